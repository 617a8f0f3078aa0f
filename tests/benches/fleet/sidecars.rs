//! What thousands of sidecars cost the controller, and how soon a change of one is published.
//!
//! This process is the gateway and the loop; the sidecars are in another one. ClearML and EC2 are
//! constants here, so that nothing but the sessions and the loop is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use controller::gateway::{
    Artifacts, BootScripts, Gateway, Identity, Limits, MemoryVault, SessionTable, Settings,
};
use controller::journal::Store;
use controller::live::LiveClock;
use engine::ports::{
    Admission, ClearMl, ClearMlError, Clock as _, Cloud, CloudError, CloudInstance, CloudState, Gone, Launch,
    Prepared, Sessions as _, TaskList, TaskScope, Workers,
};
use engine::{Engine, Intervals, Ports, Published, Start};
use planner::{
    InstanceId, IntentId, Market, Offering, Placement, Policy, Pool, QueueName, Resource, Seen, SidecarMode,
    State, TaskId, TaskStep, Worker, WorkerId,
};
use proto::v1;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::figures::{Samples, Shown};
use crate::load::{self, INTENT, SECRET, TALKERS};

const PREFIX: &str = "bench";
const QUEUE: &str = "queue";
const RESOURCE: &str = "resource";
const SETTLE: Duration = Duration::from_secs(10);
const ALONE: Duration = Duration::from_secs(30);
const TOGETHER: Duration = Duration::from_secs(60);
/// For all of them to attach.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn sidecars(wanted: usize) -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(200);
    let count = wanted.min(room);
    if count < wanted {
        println!("only {count} of {wanted} sidecars: a process may have {limit} open files here");
    }
    let clock = LiveClock::start();
    let gateway = gateway(clock)?;
    let table = gateway.sessions();
    let instances = (0..count).map(|number| (id(number), Some(IntentId::from(INTENT)))).collect();
    table.admit(Admission { instances });
    let (empty, _) = usage()?;

    let began = Instant::now();
    let load = Load::start(&gateway, count)?;
    while table.live() < count {
        anyhow::ensure!(began.elapsed() < PATIENCE, "{} of {count} attached", table.live());
        sleep(Duration::from_millis(20)).await;
    }
    let attach = Shown(began.elapsed());
    sleep(SETTLE).await;
    let (rss, alone) = over(ALONE).await?;
    println!(
        "{count} sidecars over TLS, heartbeat 5 s, gateway alone: {alone:.1} % of one core, {} MB resident \
         ({} MB before the first); attached in {attach}",
        mega(rss),
        mega(empty)
    );

    let (_held, lease) = watch::channel(true);
    let engine = engine(&table, clock, count, lease).await?;
    let published = engine.published();
    let (stop, stopped) = oneshot::channel::<()>();
    let looping = tokio::spawn(engine.run(async {
        // Dropping the sender is a stop as well.
        let _ = stopped.await;
    }));
    sleep(SETTLE).await;
    let watching = tokio::spawn(watch_changes(published, TOGETHER));
    let (rss, together) = over(TOGETHER).await?;
    let samples = watching.await?;
    println!(
        "{count} sidecars and the loop over {count} instances, 5 changes a second: {together:.1} % of one core, \
         {} MB resident",
        mega(rss)
    );
    println!("change in a sidecar -> published, {count} instances: {samples}");
    anyhow::ensure!(table.live() == count, "{} of {count} sessions were left", table.live());
    drop(stop);
    looping.await?;
    drop(load);
    gateway.stop().await;
    Ok(())
}

/// How old each change was when it was first to be seen.
async fn watch_changes(mut published: watch::Receiver<Arc<Published>>, stretch: Duration) -> Samples {
    let mut samples = Samples::default();
    let mut seen: BTreeMap<InstanceId, TaskId> = BTreeMap::new();
    let talkers: Vec<InstanceId> = (0..TALKERS).map(id).collect();
    let began = load::monotonic();
    let end = tokio::time::Instant::now() + stretch;
    while let Ok(Ok(())) = tokio::time::timeout_at(end, published.changed()).await {
        let now = load::monotonic();
        let latest = Arc::clone(&published.borrow_and_update());
        for talker in &talkers {
            let Some(State::Busy { task: Some(task) }) =
                latest.snapshot.instances.get(talker).map(|instance| &instance.state)
            else {
                continue;
            };
            if seen.get(talker) == Some(task) {
                continue;
            }
            seen.insert(talker.clone(), task.clone());
            if let Some(taken) = load::taken_at(task.as_str()).filter(|taken| *taken > began) {
                samples.push(now.saturating_sub(taken));
            }
        }
    }
    samples
}

fn gateway(clock: LiveClock) -> anyhow::Result<Gateway> {
    let vault = Arc::new(MemoryVault::default());
    vault.put_launch_secret(INTENT.into(), SECRET.to_vec());
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        epoch: 1,
        silent_idle_limit: watch::channel(Duration::from_secs(900)).1,
        limits: Limits::default(),
    };
    let identity = Identity::generate()?;
    Ok(Gateway::bind(settings, &identity, vault, Arc::new(NoScripts), Artifacts::default(), clock)?)
}

async fn engine(
    table: &Arc<SessionTable>,
    clock: LiveClock,
    count: usize,
    lease: watch::Receiver<bool>,
) -> anyhow::Result<Engine<Constant, Constant, SessionTable, Store, LiveClock>> {
    let offering =
        Offering { instance_type: "g4dn.xlarge".into(), placement: Placement::Any, market: Market::OnDemand };
    let maximum = u32::try_from(count)?;
    let policy = Policy {
        fleet: planner::FleetId::from("f0"),
        prefix: PREFIX.to_owned(),
        pools: vec![Pool { queue: QUEUE.into(), resource: RESOURCE.into(), maximum }],
        resources: BTreeMap::from([(
            RESOURCE.into(),
            Resource { offerings: vec![offering.clone()], blocked: None },
        )]),
        max_idle: Duration::from_secs(900),
        max_spin_up: Duration::from_secs(1800),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        launches_per_minute: 600,
        shutdown: None,
        requeue: planner::Requeue::default(),
    };
    let now = clock.now();
    let cloud = CloudInstance {
        resource: RESOURCE.into(),
        queue: QUEUE.into(),
        intent: Some(INTENT.into()),
        offering,
        zone: Some("us-east-1a".to_owned()),
        state: CloudState::Running,
        launched_at: now,
        kept: false,
        ended_at: None,
    };
    let world =
        Arc::new(Constant { instances: (0..count).map(|number| (id(number), cloud.clone())).collect() });
    let ports = Ports {
        clearml: Arc::clone(&world),
        cloud: world,
        sessions: Arc::clone(table),
        journal: Arc::new(Store::in_memory(now)),
        clock,
    };
    let start = Start {
        policy: watch::channel(Arc::new(policy)).1,
        operator: watch::channel(Arc::default()).1,
        intervals: watch::channel(Intervals {
            queues: Duration::from_secs(5),
            workers: Duration::from_secs(10),
            cloud: controller::config::Config::CLOUD_INTERVAL,
        })
        .1,
        epoch: 1,
        next_intent: 2,
        journal_is_new: false,
        lease,
    };
    Ok(Engine::new(ports, start).await?)
}

/// A ClearML and an EC2 in which all is as it was: every instance runs, every worker holds a task.
struct Constant {
    instances: BTreeMap<InstanceId, CloudInstance>,
}

impl ClearMl for Constant {
    async fn queues(&self) -> Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError> {
        Ok(BTreeMap::from([(QUEUE.into(), Vec::new())]))
    }

    async fn workers(&self) -> Result<Workers, ClearMlError> {
        let workers = self.instances.iter().map(|(id, seen)| {
            let worker = WorkerId::of(PREFIX, &seen.resource, &seen.offering.instance_type, id);
            (worker, Worker { task: Some(TaskId(format!("task-of-{id}"))) })
        });
        Ok(Workers { ours: workers.collect(), ..Workers::default() })
    }

    async fn tasks(&self, _scope: &TaskScope) -> Result<TaskList, ClearMlError> {
        Ok(TaskList::default())
    }

    async fn step(&self, _task: &TaskId, _seen: &Seen, _step: &TaskStep) -> Result<(), ClearMlError> {
        Err(ClearMlError::Refused("no task is touched here".to_owned()))
    }

    async fn unregister(&self, _worker: &WorkerId) -> Result<(), ClearMlError> {
        Ok(())
    }
}

impl Cloud for Constant {
    async fn describe(&self) -> Result<BTreeMap<InstanceId, CloudInstance>, CloudError> {
        Ok(self.instances.clone())
    }

    async fn gone(&self, _ids: &BTreeSet<InstanceId>) -> Result<BTreeMap<InstanceId, Gone>, CloudError> {
        Ok(BTreeMap::new())
    }

    fn prepare(&self, _launch: &Launch) -> Result<Prepared, CloudError> {
        Err(CloudError::Invalid("nothing is launched here".to_owned()))
    }

    async fn launch(&self, _request: &Prepared) -> Result<BTreeSet<InstanceId>, CloudError> {
        Err(CloudError::Invalid("nothing is launched here".to_owned()))
    }

    async fn terminate(&self, _ids: &[InstanceId]) -> Result<(), CloudError> {
        Err(CloudError::Invalid("nothing is ended here".to_owned()))
    }
}

/// Sidecars that have theirs.
struct NoScripts;

impl BootScripts for NoScripts {
    fn script(&self, _instance: &InstanceId, _intent: &IntentId) -> Option<v1::BootScript> {
        None
    }
}

/// The other process; it ends with this.
struct Load(Child);

impl Load {
    fn start(gateway: &Gateway, count: usize) -> anyhow::Result<Self> {
        let url = format!("https://{}", gateway.local_addr());
        let child = Command::new(std::env::current_exe()?)
            .args(["sidecar-load", &url, gateway.pin(), &count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start the load generator")?;
        Ok(Self(child))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn id(number: usize) -> InstanceId {
    InstanceId(load::instance(number))
}

/// Resident bytes at the end of a stretch, and the share of one core that was used in it, in percent.
async fn over(stretch: Duration) -> anyhow::Result<(u64, f64)> {
    let began = Instant::now();
    let (_, before) = usage()?;
    sleep(stretch).await;
    let (rss, after) = usage()?;
    let share = (after - before).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((rss, share * 100.0))
}

/// Resident bytes and CPU time of this process.
fn usage() -> anyhow::Result<(u64, Duration)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = resident.trim().trim_end_matches("kB").trim().parse()?;
    Ok((kilobytes * 1024, Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?))
}

fn mega(bytes: u64) -> u64 {
    bytes / 1_000_000
}
