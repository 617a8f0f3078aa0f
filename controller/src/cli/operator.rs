//! `controller drain`, `undrain`, `pause`, `resume`: what an operator asks of a running controller. Each says
//! what was done and what is waited for.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{print, socket_of, told};
use crate::admin::{self, Awaiting, DrainAnswer, DrainRequest, Drained, LaunchesAnswer, UndrainAnswer};

/// Which controller, and how it is answered.
#[derive(Debug, Args)]
struct Running {
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

/// Options of `controller drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// EC2's ids, as `status` shows them.
    #[arg(value_name = "INSTANCE", required_unless_present = "idle", conflicts_with = "idle")]
    instances: Vec<String>,
    /// Instead of names: all that are idle at this moment.
    #[arg(long)]
    idle: bool,
    /// With --idle: of this queue alone.
    #[arg(long, requires = "idle")]
    queue: Option<String>,
    /// With --idle: of this resource alone.
    #[arg(long, requires = "idle")]
    resource: Option<String>,
    #[command(flatten)]
    running: Running,
}

/// Options of `controller undrain`.
#[derive(Debug, Args)]
pub(crate) struct UndrainArgs {
    /// EC2's ids, as `status` shows them.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
    #[command(flatten)]
    running: Running,
}

/// Options of `controller pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Why, for whoever looks at `status`.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    running: Running,
}

/// Options of `controller resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    running: Running,
}

pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<ExitCode> {
    let DrainArgs { instances, idle, queue, resource, running } = args;
    let request =
        if idle { DrainRequest::Idle { queue, resource } } else { DrainRequest::Instances { instances } };
    let answer = admin::drain(&running.socket()?, &request).await.map_err(told)?;
    running.show(&answer, drained)
}

pub(crate) async fn undrain(args: UndrainArgs) -> anyhow::Result<ExitCode> {
    let UndrainArgs { instances, running } = args;
    let answer = admin::undrain(&running.socket()?, instances).await.map_err(told)?;
    running.show(&answer, undrained)
}

pub(crate) async fn pause(args: PauseArgs) -> anyhow::Result<ExitCode> {
    let PauseArgs { reason, running } = args;
    let answer = admin::pause(&running.socket()?, reason).await.map_err(told)?;
    running.show(&answer, launches)
}

pub(crate) async fn resume(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let ResumeArgs { running } = args;
    let answer = admin::resume(&running.socket()?).await.map_err(told)?;
    running.show(&answer, launches)
}

impl Running {
    fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(socket_of(self.socket.as_deref(), &self.config_file)?)
    }

    fn show<T: Serialize>(&self, answer: &T, text: impl Fn(&T) -> String) -> anyhow::Result<ExitCode> {
        print(&if self.json { serde_json::to_string(answer)? } else { text(answer) })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn drained(answer: &DrainAnswer) -> String {
    let DrainAnswer { instances, paused } = answer;
    let mut text = String::new();
    for Drained { instance, state, awaiting } in instances {
        let what = match awaiting {
            Awaiting::Nothing => "goes now".to_owned(),
            Awaiting::Boot => "goes once it has booted".to_owned(),
            Awaiting::Task { task: Some(task) } => format!("finishes task {task} first, and takes no other"),
            Awaiting::Task { task: None } => "finishes its task first, and takes no other".to_owned(),
            Awaiting::Sidecar => {
                "is silent: told when its sidecar reports again, ended when it is lost".to_owned()
            }
            Awaiting::Gone => "goes already".to_owned(),
        };
        let _ = writeln!(text, "{instance} ({state}): {what}");
    }
    if instances.is_empty() {
        text.push_str("no instance is idle\n");
    } else if !paused {
        text.push_str("what tasks need is replaced; `controller pause` prevents that\n");
    }
    text
}

fn undrained(answer: &UndrainAnswer) -> String {
    let mut text = String::new();
    for admin::Undrained { instance, state } in &answer.instances {
        let _ = writeln!(text, "{instance} ({state}): stays");
    }
    text
}

fn launches(answer: &LaunchesAnswer) -> String {
    match answer {
        LaunchesAnswer { paused: Some(_), changed: true } => {
            "paused: nothing is launched until `controller resume`; drains and removals go on".to_owned()
        }
        LaunchesAnswer { paused: Some(_), changed: false } => "was paused already".to_owned(),
        LaunchesAnswer { paused: None, changed: true } => "resumed: what tasks need is launched".to_owned(),
        LaunchesAnswer { paused: None, changed: false } => "was not paused".to_owned(),
    }
}
