//! A sandbox whose instances are rows without processes, and the real service over it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller::journal::{NEW_FOR, Store};
use controller::live::LiveClock;
use controller::service::{Input, Service};
use engine::ports::Clock as _;
use planner::Time;
use sandbox::Sandbox;
use sandbox::ec2::Call;
use sandbox::instances::Image;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::peer::{self, Birth, Doing};

/// For whatever is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Sidecars that attach at the same time.
const ATTACHING: usize = 64;

/// One line of the budget: a queue with a resource of its own.
pub(crate) struct Line {
    pub(crate) queue: String,
    pub(crate) maximum: u32,
}

impl Line {
    pub(crate) fn new(queue: impl Into<String>, maximum: u32) -> Self {
        Self { queue: queue.into(), maximum }
    }
}

pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    service: Service,
    _dir: TempDir,
}

impl Stage {
    /// `settings` are lines of `hyper_params` beyond those without which nothing runs.
    pub(crate) async fn open(lines: &[Line], settings: &str) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("fleet-bench-")?;
        let mut options = sandbox::Options::default();
        options.ec2.other_images = Some(Image::NoProcesses);
        let sandbox = Sandbox::start(options).await?;
        let file = dir.path().join("aws_autoscaler.yaml");
        std::fs::write(&file, configuration(dir.path(), &sandbox, lines, settings))?;
        for arch in ["x86_64", "aarch64"] {
            // Nobody downloads it here.
            std::fs::write(dir.path().join(format!("sidecar-{arch}")), "#!/bin/sh\n")?;
        }
        age_journal(&dir.path().join("state")).await?;
        let service = Service::start(input(&sandbox, &file)?).await?;
        Ok(Self { sandbox, service, _dir: dir })
    }

    pub(crate) async fn close(self) {
        self.service.stop().await;
        self.sandbox.shutdown().await;
    }

    pub(crate) fn queue_id(&self, name: &str) -> anyhow::Result<String> {
        let mut queues = self.sandbox.clearml.handle().queues().into_iter();
        Ok(queues.find(|queue| queue.name == name).with_context(|| format!("find queue {name}"))?.id)
    }

    /// As an agent does when it takes a task.
    pub(crate) fn pop(&self, queue: &str) -> anyhow::Result<()> {
        self.sandbox.clearml.handle().call("queues.get_next_task", json!({ "queue": queue }))?;
        Ok(())
    }

    /// A fleet that works: so many tasks were enqueued, each has an instance with a sidecar, and holds it.
    pub(crate) async fn busy_fleet(
        &self,
        queue: &str,
        count: u32,
    ) -> anyhow::Result<Vec<(String, mpsc::Sender<Doing>)>> {
        let clearml = self.sandbox.clearml.handle();
        let id = self.queue_id(queue)?;
        let before = self.sandbox.ec2.counts().launched;
        for number in 0..count {
            clearml.create_task(&format!("task {number}"), 3600.0, Some(&id))?;
        }
        self.launched(before + u64::from(count)).await?;
        let mut peers = Vec::new();
        let mut attaching = JoinSet::new();
        for call in self.calls_for(queue) {
            let launch = Launched::read(&call)?;
            for instance in &call.instances {
                while attaching.len() >= ATTACHING {
                    attached(attaching.join_next().await)?;
                }
                let (sender, changes) = mpsc::channel(4);
                let birth = launch.birth(instance);
                let dialer = launch.dialer.clone();
                let doing = Doing::Busy { task: format!("task-of-{instance}"), since: Instant::now() };
                attaching.spawn(async move { peer::attach(&dialer, birth, doing, changes).await });
                peers.push((instance.clone(), sender));
            }
        }
        while !attaching.is_empty() {
            attached(attaching.join_next().await)?;
        }
        for _ in 0..count {
            self.pop(&id)?;
        }
        self.settled(queue, count).await?;
        Ok(peers)
    }

    /// Waits until EC2 has launched so many in all; when it had.
    pub(crate) async fn launched(&self, total: u64) -> anyhow::Result<Instant> {
        let ec2 = &self.sandbox.ec2;
        let reached = ec2.wait_until(PATIENCE, |ec2| ec2.counts().launched >= total).await;
        let at = Instant::now();
        anyhow::ensure!(reached, "{} of {total} launched", ec2.counts().launched);
        // A call is noted a moment after its work is done.
        let noted = |ec2: &sandbox::ec2::Ec2| {
            let calls = ec2.calls_of("RunInstances");
            calls.iter().map(|call| call.instances.len() as u64).sum::<u64>() >= total
        };
        anyhow::ensure!(ec2.wait_until(PATIENCE, noted).await, "calls are missing in the log");
        Ok(at)
    }

    /// RunInstances for a queue, oldest first.
    pub(crate) fn calls_for(&self, queue: &str) -> Vec<Call> {
        let mut calls = self.sandbox.ec2.calls_of("RunInstances");
        calls.retain(|call| call.error.is_none() && call.params.values().any(|value| value == queue));
        calls
    }

    /// Waits until the loop knows that so many work and that no task waits.
    async fn settled(&self, queue: &str, busy: u32) -> anyhow::Result<()> {
        let mut published = self.service.published();
        let settled = published.wait_for(|published| {
            let snapshot = &published.snapshot;
            let waits = snapshot.queues.get(queue).is_some_and(|tasks| !tasks.is_empty());
            let working = snapshot.instances.values().filter(|instance| {
                instance.queue.as_str() == queue && matches!(instance.state, planner::State::Busy { .. })
            });
            !waits && working.count() >= busy as usize
        });
        tokio::time::timeout(PATIENCE, settled).await.context("the fleet is at work")??;
        Ok(())
    }
}

fn attached(joined: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    joined.map_or(Ok(()), |joined| joined?)
}

/// What an instance finds in its user data.
struct Launched {
    intent: String,
    secret: Vec<u8>,
    dialer: sidecar::link::Dialer,
}

impl Launched {
    fn read(call: &Call) -> anyhow::Result<Self> {
        let encoded = call.params.get("UserData").context("no user data")?;
        let script = String::from_utf8(STANDARD.decode(encoded)?)?;
        let json = script
            .split_once("SIDECAR_JSON='")
            .and_then(|(_, rest)| rest.split_once('\''))
            .context("no sidecar.json in the user data")?
            .0;
        let json: Value = serde_json::from_str(json)?;
        let text = |key: &str| json[key].as_str().with_context(|| format!("no {key} in sidecar.json"));
        Ok(Self {
            intent: text("intent")?.to_owned(),
            secret: STANDARD.decode(text("launch_secret")?)?,
            dialer: peer::dialer(text("controller")?, text("pin")?)?,
        })
    }

    fn birth(&self, instance: &str) -> Birth {
        Birth { instance: instance.to_owned(), intent: self.intent.clone(), secret: self.secret.clone() }
    }
}

fn configuration(dir: &Path, sandbox: &Sandbox, lines: &[Line], settings: &str) -> String {
    let mut resources = String::new();
    let mut queues = String::new();
    for Line { queue, maximum } in lines {
        // Writing to a string can't fail.
        let _ = writeln!(
            resources,
            "    for-{queue}: {{instance_type: g4dn.xlarge, is_spot: false, \
             availability_zone: us-east-1a, ami_id: ami-0123456789abcdef0, \
             ebs_device_name: /dev/xvda, ebs_volume_size: 100, ebs_volume_type: gp3}}"
        );
        let _ = writeln!(queues, "    {queue}: [[for-{queue}, {maximum}]]");
    }
    format!(
        "\
hyper_params:
  cloud_provider: AWS
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  workers_prefix: bench
  listen: 127.0.0.1:0
  advertise_address: 127.0.0.1
  agent_api_server: {api}
  sidecar: required
  state_dir: {state}
  sidecar_dir: {sidecars}
{settings}configurations:
  resource_configurations:
{resources}  queues:
{queues}",
        api = sandbox.clearml.api_url(),
        state = dir.join("state").display(),
        sidecars = dir.display(),
    )
}

/// A fleet without a journal waits a minute, lest launches of before come to light. Here there is no before.
async fn age_journal(state_dir: &Path) -> anyhow::Result<()> {
    let now = LiveClock::start().now();
    let earlier = Time(now.0.saturating_sub(2 * u64::try_from(NEW_FOR.as_millis())?));
    Store::open(state_dir, earlier).await?.close().await;
    Ok(())
}

fn input(sandbox: &Sandbox, file: &Path) -> anyhow::Result<Input> {
    let environment: BTreeMap<String, String> = sandbox.environment().into_iter().collect();
    let value = |name: &str| environment.get(name).cloned();
    let mut input = Input::load(file, &value)?;
    input.aws_endpoint = value("AWS_ENDPOINT_URL");
    input.aws_keys = value("AWS_ACCESS_KEY_ID")
        .zip(value("AWS_SECRET_ACCESS_KEY"))
        .map(|(key, secret)| ec2::Keys { key, secret: secret.into(), token: None });
    Ok(input)
}
