//! `controller reload`: has the running controller read its configuration again, and the same on SIGHUP.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{print, socket_of, told};
use crate::admin::{self, Reloaded};
use crate::service::Reloader;

/// Options of `controller reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The running controller's configuration: its state directory holds the socket.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// The socket itself.
    #[arg(long, value_name = "PATH", conflicts_with = "config_file")]
    socket: Option<PathBuf>,
}

pub(crate) async fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let socket = socket_of(args.socket.as_deref(), &args.config_file)?;
    let reloaded = admin::reload(&socket).await.map_err(told)?;
    if args.json {
        print(&serde_json::to_string(&reloaded)?)?;
    } else {
        print(&text(&reloaded))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reloads whenever this process is sent SIGHUP. What comes of it is logged.
///
/// # Errors
/// If the signal can't be watched.
pub(crate) async fn on_hangup(reloader: Arc<Reloader>) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    while hangups.recv().await.is_some() {
        // The outcome is in the log; nobody else waits for it.
        let _ = reloader.reload().await;
    }
    Ok(())
}

fn text(reloaded: &Reloaded) -> String {
    let Reloaded { source, changes, warnings } = reloaded;
    let mut text = String::new();
    for change in changes {
        let _ = writeln!(text, "{change}");
    }
    for warning in warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let _ = match changes.len() {
        0 => writeln!(text, "{source} says what was in force already"),
        1 => writeln!(text, "1 change of {source} is in force"),
        several => writeln!(text, "{several} changes of {source} are in force"),
    };
    text
}
