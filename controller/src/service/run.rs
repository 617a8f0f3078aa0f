//! One run of the autoscaler, put together: configuration, ClearML, lease, journal, EC2, gateway, loop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use engine::ports::Clock as _;
use engine::{Engine, Intervals, Ports, Published, Start};
use planner::{Hold, ShutdownAction, SidecarMode};
use secrecy::SecretString;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::artifacts::sidecar_dir;
use super::assembly::InForce;
use super::boot_scripts::{AgentSetups, Setups};
use super::foundation::{Foundation, refused};
use super::input::Input;
use super::lease::{Claim, Held, Lease, LeaseError};
use super::ledger::{Book, Ledger, RegionalPrices};
use super::operator::Wishes;
use super::reload::Reloader;
use super::report::BootLogs;
use crate::admin::{self, Admin, Records};
use crate::cli::BadInput;
use crate::config::Config;
use crate::gateway::{Artifacts, Gateway, Identity, Limits, SessionTable};
use crate::journal::Store;
use crate::live::{LiveClearMl, LiveClock, LiveCloud, Recipe};

/// How often ClearML's list of workers is read.
const WORKERS_INTERVAL: Duration = Duration::from_secs(10);
/// Between two clean-ups of the journal.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Between two looks at the lease.
const LEASE_LOOK: Duration = Duration::from_secs(1);
/// A sidecar may be slow to answer, ClearML and EC2 to be read afresh.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(180);
/// Image names that are not looked up by then are looked up while the loop runs.
const IMAGE_PATIENCE: Duration = Duration::from_secs(10);
/// The loop is given this long to finish the calls that it has in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// A running autoscaler.
pub struct Service {
    published: watch::Receiver<Arc<Published>>,
    stop: oneshot::Sender<()>,
    looping: JoinHandle<()>,
    pruning: JoinHandle<()>,
    ledger: Ledger,
    keeping: JoinHandle<()>,
    lease: Lease<clearml::Client>,
    gateway: Option<Gateway>,
    reloader: Arc<Reloader>,
    boot_logs: BootLogs,
    prices: RegionalPrices,
    secrets: Vec<SecretString>,
    /// Held for its socket.
    _admin: Admin,
    store: Arc<Store>,
}

impl Service {
    /// Contacts ClearML and EC2, takes the lease and starts the loop.
    ///
    /// # Errors
    /// [`BadInput`] for what the operator must correct, another autoscaler with the same prefix included.
    pub async fn start(input: Input) -> anyhow::Result<Self> {
        let foundation = Foundation::lay(input).await?;
        let Foundation { config, clearml, ec2, fleet, mode, server, task, secrets, .. } = &foundation;
        tracing::info!(
            prefix = config.prefix, %fleet, region = ec2.region(), sidecar = ?mode,
            server = server.server_version.as_deref().unwrap_or("unknown"), "starting"
        );
        let queues: Vec<&str> = config.pools.iter().map(|pool| pool.queue.as_str()).collect();
        clearml
            .ensure_queues(&queues)
            .await
            .map_err(|error| refused(&error))
            .context("the budget's queues")?;

        let clock = LiveClock::start();
        let store = Arc::new(
            Store::open(&config.state_dir, clock.now()).await.map_err(|error| BadInput(error.to_string()))?,
        );
        store.claim_fleet(fleet).await.map_err(|error| BadInput(error.to_string()))?;
        let epoch = store.next_epoch(clock.now()).await?;
        let lease = take_lease(clearml, &store, &config.prefix).await?;

        let launches = Arc::new(Setups::new(Arc::new(AgentSetups::new(
            Arc::clone(config),
            &foundation.settings,
            task.as_deref(),
        ))));
        let (silent_idle_limit, limit) = watch::channel(config.max_idle);
        let gateway = match mode {
            SidecarMode::Required => {
                let gateway = open_gateway(&foundation, &store, epoch, &launches, limit, clock).await?;
                tracing::info!(address = %gateway.local_addr(), "the gateway listens");
                Some(gateway)
            }
            SidecarMode::Off => None,
        };
        let assembly = foundation.assembly(gateway.as_ref(), &launches)?;
        let parts = assembly.parts(config).map_err(|faults| BadInput(faults.to_string()))?;
        let (in_force, views) = InForce::new(parts, Arc::clone(&launches), silent_idle_limit);
        let nobody = || Arc::new(SessionTable::new(move || clock.now()));
        let sessions = gateway.as_ref().map_or_else(nobody, Gateway::sessions);
        let prices = RegionalPrices::follow(ec2, config).map_err(|faults| BadInput(faults.to_string()))?;
        let ledger = Ledger::resume(Arc::clone(&store), Arc::new(prices.clone()), clock.now()).await?;
        let boot_logs = BootLogs::new(ec2.clone(), gateway.as_ref().map(Gateway::sessions));
        let secrets = secrets.clone();
        let cloud = LiveCloud::new(ec2.clone(), fleet.clone(), task.clone(), views.recipe);
        cloud.settle(IMAGE_PATIENCE).await;
        let ports = Ports {
            clearml: Arc::new(LiveClearMl::new(clearml.clone(), config.prefix.clone(), clock)),
            cloud: Arc::new(cloud),
            sessions,
            journal: Arc::clone(&store),
            clock,
        };
        let (will, operator) = watch::channel(Arc::new(store.operator()));
        let start = Start {
            policy: views.policy,
            operator,
            intervals: views.intervals,
            epoch,
            next_intent: store.next_intent().await?,
            journal_is_new: store.was_new(),
            lease: follow(lease.held()),
        };
        let engine = Engine::new(ports, start).await?;
        let published = engine.published();
        launches.follow(published.clone());
        let socket = config.state_dir.join(admin::SOCKET);
        let reloader = Arc::new(foundation.reloader(assembly, in_force));
        let keeping = tokio::spawn(ledger.clone().keep(published.clone()));
        let records = Records::of(&store, clock);
        let wishes = Arc::new(Wishes::new(Arc::clone(&store), clock, published.clone(), will));
        let admin = Admin::listen(socket, published.clone(), Arc::clone(&reloader), records, wishes).await?;
        let pruning = tokio::spawn(prune(Arc::clone(&store), clock, published.clone()));
        let (stop, stopped) = oneshot::channel();
        let looping = tokio::spawn(engine.run(async {
            // A sender that was dropped means to stop as well.
            let _ = stopped.await;
        }));
        Ok(Self {
            published,
            stop,
            looping,
            pruning,
            ledger,
            keeping,
            lease,
            gateway,
            reloader,
            boot_logs,
            prices,
            secrets,
            _admin: admin,
            store,
        })
    }

    /// What instances cost.
    pub fn prices(&self) -> RegionalPrices {
        self.prices.clone()
    }

    /// What was spent, as it is now.
    pub(super) fn book(&self) -> Book {
        self.ledger.book()
    }

    /// Where the boot logs of instances are to be had.
    pub fn boot_logs(&self) -> BootLogs {
        self.boot_logs.clone()
    }

    /// What must not stand in any console.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.secrets.clone()
    }

    /// What the last pass saw and decided.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Reads the configuration again.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Whether the loop has ended by itself, which it never should.
    pub fn is_finished(&self) -> bool {
        self.looping.is_finished()
    }

    /// What the configuration in force wants to become of the fleet at the end.
    pub fn shutdown_action(&self) -> ShutdownAction {
        self.reloader.running().config.shutdown
    }

    /// Does with the fleet what is to be done before [`Service::stop`]. Resolves when no instance is left
    /// that would go by it, or after some minutes: what remains then goes by itself once it is idle. May be
    /// dropped.
    pub async fn shut_down(&self, action: ShutdownAction) {
        if action == ShutdownAction::Nothing {
            return;
        }
        let mut published = self.published();
        self.reloader.in_force.shut_down(action);
        let over =
            published.wait_for(|published| {
                published.plan.holds.iter().any(
                    |hold| matches!(hold, Hold::ShuttingDown { action: of, remaining: 0 } if *of == action),
                )
            });
        match tokio::time::timeout(SHUTDOWN_PATIENCE, over).await {
            Ok(Ok(_)) => tracing::info!(%action, "the fleet was shut down"),
            Ok(Err(_)) => tracing::warn!(%action, "the loop has ended before the fleet was shut down"),
            Err(_) => {
                tracing::warn!(%action, "the fleet was not shut down in time: the rest goes when it is idle");
            }
        }
    }

    /// Ends the loop once its calls are answered, and gives the lease back. Instances are left as they are:
    /// their sidecars see to it that an idle one does not stay.
    pub async fn stop(self) {
        let Self {
            published,
            stop,
            looping,
            pruning,
            ledger,
            keeping,
            lease,
            gateway,
            reloader: _reloader,
            boot_logs: _,
            prices: _,
            secrets: _,
            _admin,
            store,
        } = self;
        pruning.abort();
        keeping.abort();
        // Both hold the journal until they have ended.
        let _ = pruning.await;
        let _ = keeping.await;
        // The loop may have ended already.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_PATIENCE, looping).await.is_err() {
            tracing::warn!("calls in flight were not answered in time");
        }
        if let Some(gateway) = gateway {
            gateway.stop().await;
        }
        lease.release().await;
        let last = published.borrow().clone();
        ledger.finish(&last).await;
        drop(ledger);
        if let Some(store) = Arc::into_inner(store) {
            store.close().await;
        }
    }
}

/// One pass against the real world; nothing is applied, nothing is registered.
///
/// # Errors
/// As [`Service::start`].
pub async fn plan_once(input: Input) -> anyhow::Result<Arc<Published>> {
    let foundation = Foundation::lay(input).await?;
    let Foundation { config, clearml, ec2, fleet, mode, .. } = foundation;
    let clock = LiveClock::start();
    let policy = Arc::new(config.policy(fleet.clone(), mode, |_| None));
    let (_intervals, intervals) = watch::channel(intervals(&config));
    let (_recipe, recipe) = watch::channel(Arc::new(Recipe {
        config: Arc::clone(&config),
        policy: Arc::clone(&policy),
        user_data: Box::new(|_, _, _| Err("a plan launches nothing".to_owned())),
    }));
    let ports = Ports {
        clearml: Arc::new(LiveClearMl::new(clearml, config.prefix.clone(), clock)),
        cloud: Arc::new(LiveCloud::new(ec2, fleet, None, recipe)),
        sessions: Arc::new(SessionTable::new(move || clock.now())),
        journal: Arc::new(Store::in_memory(clock.now())),
        clock,
    };
    let (_policy, policy) = watch::channel(policy);
    let (_lease, lease) = watch::channel(true);
    // What an operator asked a running controller for is its affair.
    let (_operator, operator) = watch::channel(Arc::default());
    let start = Start { policy, operator, intervals, epoch: 0, next_intent: 1, journal_is_new: false, lease };
    Ok(Engine::new(ports, start).await?.plan_once().await)
}

/// How often the sources are read by this configuration.
pub(super) fn intervals(config: &Config) -> Intervals {
    Intervals { queues: config.queue_interval, workers: WORKERS_INTERVAL, cloud: config.cloud_interval }
}

async fn open_gateway(
    foundation: &Foundation,
    store: &Arc<Store>,
    epoch: u64,
    launches: &Arc<Setups>,
    silent_idle_limit: watch::Receiver<Duration>,
    clock: LiveClock,
) -> anyhow::Result<Gateway> {
    let config = &foundation.config;
    let artifacts = Artifacts::load(&sidecar_dir(config)?)?;
    let identity = Identity::of(store).await?;
    let settings = crate::gateway::Settings {
        listen: config.listen,
        epoch,
        silent_idle_limit,
        limits: Limits::default(),
    };
    let scripts = Arc::clone(launches);
    Ok(Gateway::bind(settings, &identity, Arc::clone(store), scripts, artifacts, clock)?)
}

/// Takes the lease over from the journal's earlier runs, which have surely ended, or waits for others.
async fn take_lease(
    clearml: &clearml::Client,
    store: &Store,
    prefix: &str,
) -> anyhow::Result<Lease<clearml::Client>> {
    /// Runs that came no further than this are not many.
    const MOST: usize = 20;
    let run = uuid::Uuid::new_v4().simple().to_string();
    let mut predecessors = store.runs();
    predecessors.truncate(MOST);
    // Written before anything is registered: a run that dies half-way is not waited for either.
    let listed = [run.clone()].into_iter().chain(predecessors.iter().cloned()).collect();
    store.store_runs(listed).await?;
    let claim = Claim { prefix: prefix.to_owned(), run: run.clone(), predecessors };
    let lease = Lease::acquire(clearml.clone(), &claim).await.map_err(lease_refused)?;
    store.store_runs(vec![run]).await?;
    Ok(lease)
}

/// Another autoscaler is the operator's to end; a server that does not answer is nobody's fault here.
fn lease_refused(error: LeaseError) -> anyhow::Error {
    match error {
        LeaseError::Held { .. } => BadInput(error.to_string()).into(),
        LeaseError::Undecided { .. } | LeaseError::ClearMl(_) => error.into(),
    }
}

/// Forgets, every hour, what the journal has kept for long enough.
async fn prune(store: Arc<Store>, clock: LiveClock, published: watch::Receiver<Arc<Published>>) {
    loop {
        clock.sleep(PRUNE_INTERVAL).await;
        let live = published.borrow().snapshot.instances.keys().cloned().collect();
        if let Err(error) = store.prune(clock.now(), &live).await {
            tracing::warn!("prune the {error}");
        }
    }
}

/// The lease as a flag. Looked at every second besides: it also runs out without anybody saying so.
fn follow(mut held: Held) -> watch::Receiver<bool> {
    let (flag, lease) = watch::channel(held.is_held());
    tokio::spawn(async move {
        while !flag.is_closed() {
            flag.send_if_modified(|flag| std::mem::replace(flag, held.is_held()) != *flag);
            tokio::select! {
                () = held.changed() => {}
                () = tokio::time::sleep(LEASE_LOOK) => {}
            }
        }
    });
    lease
}
