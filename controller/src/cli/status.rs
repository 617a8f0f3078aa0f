//! `controller status`: asks the running controller over its socket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{BadInput, NoController, env, print, render};
use crate::{admin, config};

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Options of `controller status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show it again every second until interrupted.
    #[arg(long)]
    watch: bool,
    /// The running controller's configuration: its state directory holds the socket.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// The socket itself.
    #[arg(long, value_name = "PATH", conflicts_with = "config_file")]
    socket: Option<PathBuf>,
}

pub(crate) async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => socket_of(&args.config_file)?,
    };
    loop {
        let status = admin::ask(&socket).await.map_err(|error| {
            NoController(format!(
                "no controller answers on {} ({error:#}): is it running with this configuration? --socket PATH names another",
                socket.display()
            ))
        })?;
        if args.json {
            print(&serde_json::to_string(&status)?)?;
        } else {
            // Home and clear, so that --watch stays in its place.
            let clear = if args.watch { "\x1b[H\x1b[2J" } else { "" };
            print(&format!("{clear}{}", render::page(&status)))?;
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

fn socket_of(config_file: &std::path::Path) -> anyhow::Result<PathBuf> {
    let config = config::load(config_file, &env).map_err(|faults| BadInput(faults.to_string()))?;
    Ok(config.state_dir.join(admin::SOCKET))
}
