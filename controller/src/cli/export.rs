//! `controller export`: a configuration as YAML or JSON, from a file or from a task.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{BadInput, env, print};
use crate::config::{self, Document};
use crate::service::{Source, SourceError};

/// Options of `controller export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file to export.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// Export what a ClearML task holds instead: its parameters and its configuration object.
    #[arg(long, value_name = "ID", conflicts_with = "config_file")]
    task: Option<String>,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// With passwords and keys; they are left out otherwise.
    #[arg(long)]
    secrets: bool,
    /// Write to this file, for its owner's eyes alone, instead of stdout.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// In which form a configuration is exported.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// As ClearML's script writes it.
    Yaml,
    /// Indented.
    Json,
}

pub(crate) async fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let document = read(args).await?;
    let document = if args.secrets { document } else { leave_out_secrets(&document) };
    let text = match args.format {
        Format::Yaml => document.to_yaml(),
        Format::Json => document.to_json(),
    };
    match &args.output {
        None => print(&text)?,
        Some(path) => {
            refuse_own_source(args, path)?;
            config::write_private_text(path, &text).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(args: &ExportArgs) -> anyhow::Result<Document> {
    let Some(id) = &args.task else {
        let written = config::load_written(&args.config_file, &env);
        return Ok(written.map_err(|faults| BadInput(faults.to_string()))?.0);
    };
    let home = env("HOME").map(PathBuf::from);
    let settings =
        config::clearml::load(&env, home.as_deref()).map_err(|faults| BadInput(faults.to_string()))?;
    let written = Source::Task(id.clone()).read(&settings.client()?, &env).await;
    Ok(written.map_err(SourceError::for_operator)?.0)
}

fn leave_out_secrets(document: &Document) -> Document {
    let secrets = document.secrets();
    if !secrets.is_empty() {
        super::note(&format!("left out, as --secrets is not given: {}", secrets.join(", ")));
    }
    document.without_secrets()
}

/// Without secrets, an export over the file that it was made from would lose them.
fn refuse_own_source(args: &ExportArgs, output: &std::path::Path) -> Result<(), BadInput> {
    let same = || Some(output.canonicalize().ok()? == args.config_file.canonicalize().ok()?);
    if args.task.is_none() && same() == Some(true) {
        let own = output.display();
        return Err(BadInput(format!("--output {own}: that is the file to export; name another")));
    }
    Ok(())
}
