//! `controller import`: a configuration, JSON or YAML, as the file that the autoscaler runs by.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{BadInput, env, print};
use crate::config;

/// Options of `controller import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What to read: JSON if its name ends in `.json`, else YAML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to write, for its owner's eyes alone.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

pub(crate) fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let (document, config) =
        config::load_written(&args.file, &env).map_err(|faults| BadInput(faults.to_string()))?;
    let target = args.config_file.display();
    let written = if args.force {
        config::write_private(&args.config_file, &document)
    } else {
        config::create_private(&args.config_file, &document.to_yaml())
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BadInput(format!("{target} exists; --force replaces it")).into());
        }
        written => written.with_context(|| format!("write {target}"))?,
    }
    for warning in &config.warnings {
        super::note(&format!("warning: {warning}"));
    }
    print(&format!("{target}: {} resources, {} pools", config.resources.len(), config.pools.len()))?;
    Ok(ExitCode::SUCCESS)
}
