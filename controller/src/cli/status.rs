//! `controller status`: asks the running controller over its socket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{print, render, socket_of, told};
use crate::admin;

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
    let socket = socket_of(args.socket.as_deref(), &args.config_file)?;
    loop {
        let status = admin::ask(&socket).await.map_err(told)?;
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
