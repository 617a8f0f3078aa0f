//! `controller sandbox`: a ClearML and an EC2 on loopback, until interrupted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use sandbox::Sandbox;
use sandbox::instances::{Image, MachineOptions};

use super::print;

/// How long an instance stays `pending`: a moment, so that one can see it.
const BOOT_DELAY: Duration = Duration::from_millis(800);
/// How often agents look for tasks, in seconds; ClearML's default of 5 would make a dull demo.
pub(super) const POLL_SECONDS: &str = "0.5";

/// Options of `controller sandbox`.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Queues to begin with.
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
    /// A virtual environment with clearml-agent: instances run the real agent in place of the stand-in.
    #[arg(long, value_name = "DIR")]
    agent_venv: Option<PathBuf>,
}

pub(crate) async fn sandbox(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    let SandboxArgs { queues, agent_venv } = args;
    let sandbox = Sandbox::start(options(agent_venv)?).await.context("start the sandbox")?;
    for queue in &queues {
        sandbox.clearml.handle().create_queue(queue).with_context(|| format!("create queue {queue}"))?;
    }
    let mut lines = String::new();
    for (name, value) in sandbox.environment() {
        let _ = writeln!(lines, "export {name}={value}");
    }
    print(&lines)?;
    let interrupted = super::stopped().await;
    sandbox.shutdown().await;
    interrupted.map(|()| ExitCode::SUCCESS)
}

/// A sandbox whose instances are processes: stand-in agents, or real ones from a virtual environment.
pub(crate) fn options(agent_venv: Option<PathBuf>) -> anyhow::Result<sandbox::Options> {
    let image = match agent_venv {
        Some(venv) => {
            Image::Venv(std::fs::canonicalize(&venv).with_context(|| format!("find {}", venv.display()))?)
        }
        None => Image::StandIn,
    };
    let env = BTreeMap::from([("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC".to_owned(), POLL_SECONDS.to_owned())]);
    let mut options = sandbox::Options::default();
    options.ec2.other_images = Some(image);
    options.ec2.boot_delay = BOOT_DELAY;
    options.ec2.machines = MachineOptions { env, ..MachineOptions::default() };
    Ok(options)
}
