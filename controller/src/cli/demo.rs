//! `controller demo`: sandbox, autoscaler and tasks in one command, told as it happens.
//!
//! Everything between the parts is real: the ClearML API, EC2's wire protocol, user data run by bash,
//! the sidecar's code and its sessions. Only the agent is a stand-in, unless one is named.

mod narrate;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use engine::ports::Clock as _;
use planner::Time;
use sandbox::Sandbox;
use tempfile::TempDir;

use self::narrate::Narrator;
use self::summary::Summary;
use super::print;
use super::sandbox::POLL_SECONDS;
use crate::journal::{NEW_FOR, Store};
use crate::live::LiveClock;
use crate::service::{Input, Service};

const QUEUE: &str = "demo";
/// The demo gives up when nothing has come to an end by then.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at the sandbox.
const LOOK: Duration = Duration::from_millis(200);

/// Options of `controller demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many tasks to enqueue.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=500))]
    tasks: u32,
    /// Print the summary as JSON, and nothing else, on stdout.
    #[arg(long)]
    json: bool,
    /// Stay up afterwards, to look around with `controller status` or ClearML's SDK.
    #[arg(long)]
    serve: bool,
    /// A virtual environment with clearml-agent: instances run the real agent in place of the stand-in.
    #[arg(long, value_name = "DIR")]
    agent_venv: Option<PathBuf>,
}

pub(crate) async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let DemoArgs { tasks, json, serve, agent_venv } = args;
    let dir = TempDir::with_prefix("clearml-autoscaler-demo-")?;
    let options = super::sandbox::options(agent_venv)?;
    let sandbox = Sandbox::start(options).await.context("start the sandbox")?;
    let outcome = run(&sandbox, dir.path(), tasks, json, serve).await;
    sandbox.shutdown().await;
    outcome
}

async fn run(sandbox: &Sandbox, dir: &Path, tasks: u32, json: bool, serve: bool) -> anyhow::Result<ExitCode> {
    let config_file = dir.join("aws_autoscaler.yaml");
    std::fs::write(&config_file, configuration(dir, sandbox)).context("write the demo's configuration")?;
    write_sidecar(dir)?;
    let input = input(sandbox, &config_file)?;
    age_journal(&dir.join("state")).await?;
    let service = Service::start(input).await?;
    let clearml = sandbox.clearml.handle();
    let mut queues = clearml.queues().into_iter();
    let queue = queues.find(|queue| queue.name == QUEUE).context("the service has made its queue")?.id;
    for number in 0..tasks {
        // Three to six seconds, so that tasks end one after the other.
        let seconds = 3.0 + f64::from(number % 4);
        clearml
            .create_task(&format!("demo task {number}"), seconds, Some(&queue))
            .context("create a task")?;
    }
    let mut narrator = Narrator::new(service.published(), json);
    narrator.say(&format!(
        "{tasks} tasks wait in queue {QUEUE}; at most 4 spot and 2 on-demand instances may serve them"
    ));
    if serve {
        narrator.say(&format!("look around:  controller status --config-file {}", config_file.display()));
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut interrupted = std::pin::pin!(super::stopped());
    let mut ended = false;
    while !ended && tokio::time::Instant::now() < deadline && !service.is_finished() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = narrator.follow() => {}
            _ = &mut interrupted => break,
        }
        ended = summary(sandbox).is_over();
    }
    let summary = summary(sandbox);
    if json {
        print(&serde_json::to_string(&summary)?)?;
    } else {
        print(&summary.text())?;
    }
    if serve && !service.is_finished() {
        for (name, value) in sandbox.environment() {
            narrator.say(&format!("export {name}={value}"));
        }
        narrator.say("it stays up until you interrupt it (Ctrl-C)");
        loop {
            tokio::select! {
                () = narrator.follow() => {}
                _ = &mut interrupted => break,
            }
        }
    }
    service.stop().await;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(sandbox: &Sandbox) -> Summary {
    let clearml = sandbox.clearml.handle();
    let waiting: Vec<String> = clearml.queues().into_iter().flat_map(|queue| queue.entries).collect();
    Summary::of(&clearml.tasks(), &waiting, sandbox.ec2.counts())
}

/// A fleet without a journal waits a minute, lest launches of before come to light. Here there is no before.
async fn age_journal(state_dir: &Path) -> anyhow::Result<()> {
    let now = LiveClock::start().now();
    let earlier = Time(now.0.saturating_sub(2 * NEW_FOR.as_secs() * 1000));
    Store::open(state_dir, earlier).await?.close().await;
    Ok(())
}

/// A file as the script writes it, with times that suit a demo of a minute.
fn configuration(dir: &Path, sandbox: &Sandbox) -> String {
    let state_dir = dir.join("state");
    let api = sandbox.clearml.api_url();
    format!(
        "\
hyper_params:
  cloud_provider: AWS
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  workers_prefix: demo
  max_idle_time_min: 0.1
  max_spin_up_time_min: 5
  polling_interval_time_min: 5
  queue_polling_interval_sec: 1
  listen: 127.0.0.1:0
  advertise_address: 127.0.0.1
  agent_api_server: {api}
  sidecar: required
  state_dir: {state}
  sidecar_dir: {sidecars}
configurations:
  resource_configurations:
    spot:
      instance_type: g4dn.xlarge
      is_spot: true
      availability_zone: us-east-1b
      ami_id: ami-0123456789abcdef0
      ebs_device_name: /dev/xvda
      ebs_volume_size: 100
      ebs_volume_type: gp3
    regular:
      instance_type: g4dn.2xlarge
      is_spot: false
      availability_zone: us-east-1a
      ami_id: ami-0123456789abcdef0
      ebs_device_name: /dev/xvda
      ebs_volume_size: 100
      ebs_volume_type: gp3
  queues:
    {QUEUE}:
    - - spot
      - 4
    - - regular
      - 2
  extra_vm_bash_script: export CLEARML_AGENT_QUEUE_POLL_FREQ_SEC={POLL_SECONDS}
",
        state = state_dir.display(),
        sidecars = dir.display(),
    )
}

/// What the gateway serves as the sidecar: a script that runs the sidecar's code in this very executable.
fn write_sidecar(dir: &Path) -> anyhow::Result<()> {
    let executable = std::env::current_exe()?;
    let script = format!(
        "#!/bin/sh\nexec '{}' sidecar \"$@\"\n",
        executable.display().to_string().replace('\'', "'\\''")
    );
    for arch in ["x86_64", "aarch64"] {
        std::fs::write(dir.join(format!("sidecar-{arch}")), &script).context("write the demo's sidecar")?;
    }
    Ok(())
}

/// The sandbox's addresses and keys, without touching this process's environment.
fn input(sandbox: &Sandbox, config_file: &Path) -> anyhow::Result<Input> {
    let environment = sandbox.environment();
    let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut input = Input::load(config_file, &value)?;
    input.aws_endpoint = value("AWS_ENDPOINT_URL");
    input.aws_keys = value("AWS_ACCESS_KEY_ID")
        .zip(value("AWS_SECRET_ACCESS_KEY"))
        .map(|(key, secret)| ec2::Keys { key, secret: secret.into(), token: None });
    Ok(input)
}
