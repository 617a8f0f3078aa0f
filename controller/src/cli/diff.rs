//! `controller diff`: what the file says against what the running controller uses.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{BadInput, env, print, socket_of, told};
use crate::admin::{self, InUse};
use crate::config::{self, Change, Sealed};

/// The exit code for "there are differences".
const DIFFERENT: u8 = 1;

/// Options of `controller diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 no difference, 1 differences, 2 a file that must be corrected, 3 no controller."
)]
pub(crate) struct DiffArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The file to compare; its state directory holds the running controller's socket.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// The socket itself.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// The schema of `--json`.
#[derive(Serialize)]
struct Difference {
    /// What the running controller read last.
    running: String,
    file: PathBuf,
    /// From what runs to what the file says.
    changes: Vec<Change>,
}

pub(crate) async fn diff(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let (document, _) =
        config::load_written(&args.config_file, &env).map_err(|faults| BadInput(faults.to_string()))?;
    let socket = socket_of(args.socket.as_deref(), &args.config_file)?;
    // Digests of secrets mean something within this one comparison only.
    let key: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let InUse { source, keys } = admin::in_use(&socket, &key).await.map_err(told)?;
    let changes = keys.changes(&Sealed::of(&document, key.as_bytes()));
    let different = !changes.is_empty();
    if args.json {
        let difference = Difference { running: source, file: args.config_file.clone(), changes };
        print(&serde_json::to_string(&difference)?)?;
    } else {
        print(&text(&source, &args.config_file, &changes))?;
    }
    Ok(if different { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS })
}

fn text(source: &str, file: &Path, changes: &[Change]) -> String {
    let file = file.display();
    if changes.is_empty() {
        return format!("no difference: the running controller uses what {file} says\n");
    }
    let mut text = format!("running ({source}) -> {file}\n");
    for change in changes {
        let _ = writeln!(text, "  {change}");
    }
    text
}
