//! One run of the autoscaler, put together: configuration, ClearML, lease, journal, EC2, gateway, loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clearml::ServerInfo;
use engine::ports::Clock as _;
use engine::{Engine, Intervals, Ports, Published, Start};
use planner::{FleetId, Policy, SidecarMode};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::artifacts::{missing_sidecars, sidecar_dir};
use super::boot_scripts::AgentSetups;
use super::fleet::{Reach, agent_addresses, runs_on_ec2, user_data};
use super::lease::{Claim, Held, Lease, LeaseError};
use super::report::BootLogs;
use crate::admin::{self, Admin};
use crate::cli::BadInput;
use crate::config::{self, Config};
use crate::gateway::{Artifacts, Gateway, Identity, Limits, SessionTable};
use crate::journal::Store;
use crate::live::{LiveClearMl, LiveClock, LiveCloud};

/// How often ClearML's list of workers is read.
const WORKERS_INTERVAL: Duration = Duration::from_secs(10);
/// Between two clean-ups of the journal.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Between two looks at the lease.
const LEASE_LOOK: Duration = Duration::from_secs(1);
/// The loop is given this long to finish the calls that it has in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// Everything that an operator gives: validated, nothing contacted yet.
pub struct Input {
    /// The YAML file.
    pub config: Config,
    /// ClearML's address and keys.
    pub clearml: config::clearml::Settings,
    /// EC2's address, if it is not AWS's.
    pub aws_endpoint: Option<String>,
    /// Keys for EC2 in place of the file's or the standard chain's, for the sandbox's sake.
    pub aws_keys: Option<ec2::Keys>,
    /// The id of the ClearML task that this run is, if it is one: instances and workers are tagged with it.
    pub task: Option<String>,
}

impl Input {
    /// Reads the file and ClearML's settings.
    ///
    /// # Errors
    /// All faults of both.
    pub fn load(config_file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadInput> {
        let home = env("HOME").map(std::path::PathBuf::from);
        let config = config::load(config_file, env);
        let clearml = config::clearml::load(env, home.as_deref());
        match (config, clearml) {
            (Ok(config), Ok(clearml)) => {
                Ok(Self { config, clearml, aws_endpoint: None, aws_keys: None, task: None })
            }
            (config, clearml) => {
                let faults = [
                    config.err().map(|faults| faults.to_string()),
                    clearml.err().map(|faults| faults.to_string()),
                ];
                Err(BadInput(faults.into_iter().flatten().collect::<Vec<_>>().join("\n")))
            }
        }
    }
}

/// A running autoscaler.
pub struct Service {
    published: watch::Receiver<Arc<Published>>,
    stop: oneshot::Sender<()>,
    looping: JoinHandle<()>,
    pruning: JoinHandle<()>,
    lease: Lease<clearml::Client>,
    gateway: Option<Gateway>,
    boot_logs: BootLogs,
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
        let Foundation { config, clearml, ec2, fleet, mode, reach, setups, server, task, secrets } =
            &foundation;
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
        let claim = Claim {
            prefix: config.prefix.clone(),
            run: uuid::Uuid::new_v4().simple().to_string(),
            predecessor: None,
        };
        let lease = Lease::acquire(clearml.clone(), &claim).await.map_err(lease_refused)?;

        let (gateway, blocked) = match mode {
            SidecarMode::Required => {
                let dir = sidecar_dir(config)?;
                let artifacts = Artifacts::load(&dir)?;
                let blocked = missing_sidecars(config, &artifacts, &dir);
                let gateway = open_gateway(&foundation, &store, epoch, artifacts, clock).await?;
                tracing::info!(address = %gateway.local_addr(), "the gateway listens");
                (Some(gateway), blocked)
            }
            SidecarMode::Off => (None, BTreeMap::new()),
        };
        let nobody = || Arc::new(SessionTable::new(move || clock.now()));
        let sessions = gateway.as_ref().map_or_else(nobody, Gateway::sessions);
        let boot_logs = BootLogs::new(ec2.clone(), gateway.as_ref().map(Gateway::sessions));
        let secrets = secrets.clone();
        let policy: Policy = config.policy(fleet.clone(), *mode, |resource| blocked.get(resource).cloned());
        let ports = Ports {
            clearml: Arc::new(LiveClearMl::new(clearml.clone(), config.prefix.clone())),
            cloud: Arc::new(LiveCloud::new(
                ec2.clone(),
                Arc::clone(config),
                fleet.clone(),
                task.clone(),
                user_data(config, setups, gateway.as_ref().zip(reach.as_ref()))?,
            )),
            sessions,
            journal: Arc::clone(&store),
            clock,
        };
        let (policy_sender, policy) = watch::channel(Arc::new(policy));
        let start = Start {
            policy,
            intervals: Intervals {
                queues: config.queue_interval,
                workers: WORKERS_INTERVAL,
                cloud: config.cloud_interval,
            },
            epoch,
            next_intent: store.next_intent().await?,
            journal_is_new: store.was_new(),
            lease: follow(lease.held()),
        };
        let engine = Engine::new(ports, start).await?;
        let published = engine.published();
        setups.follow(published.clone());
        let admin = Admin::listen(config.state_dir.join(admin::SOCKET), published.clone()).await?;
        let pruning = tokio::spawn(prune(Arc::clone(&store), clock, published.clone()));
        let (stop, stopped) = oneshot::channel();
        let looping = tokio::spawn(async move {
            // Held so that the policy stays as it is until somebody can change it.
            let _policy = policy_sender;
            engine
                .run(async {
                    // A sender that was dropped means to stop as well.
                    let _ = stopped.await;
                })
                .await;
        });
        Ok(Self {
            published,
            stop,
            looping,
            pruning,
            lease,
            gateway,
            boot_logs,
            secrets,
            _admin: admin,
            store,
        })
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

    /// Whether the loop has ended by itself, which it never should.
    pub fn is_finished(&self) -> bool {
        self.looping.is_finished()
    }

    /// Ends the loop once its calls are answered, and gives the lease back. Instances are left as they are:
    /// their sidecars see to it that an idle one does not stay.
    pub async fn stop(self) {
        let Self {
            published: _,
            stop,
            looping,
            pruning,
            lease,
            gateway,
            boot_logs: _,
            secrets: _,
            _admin,
            store,
        } = self;
        pruning.abort();
        // The loop may have ended already.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_PATIENCE, looping).await.is_err() {
            tracing::warn!("calls in flight were not answered in time");
        }
        if let Some(gateway) = gateway {
            gateway.stop().await;
        }
        lease.release().await;
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
    let policy = config.policy(fleet.clone(), mode, |_| None);
    let ports = Ports {
        clearml: Arc::new(LiveClearMl::new(clearml, config.prefix.clone())),
        cloud: Arc::new(LiveCloud::new(
            ec2,
            Arc::clone(&config),
            fleet,
            None,
            Box::new(|_, _, _| Err("a plan launches nothing".to_owned())),
        )),
        sessions: Arc::new(SessionTable::new(move || clock.now())),
        journal: Arc::new(Store::in_memory(clock.now())),
        clock,
    };
    let (_policy, policy) = watch::channel(Arc::new(policy));
    let (_lease, lease) = watch::channel(true);
    let intervals =
        Intervals { queues: config.queue_interval, workers: WORKERS_INTERVAL, cloud: config.cloud_interval };
    let start = Start { policy, intervals, epoch: 0, next_intent: 1, journal_is_new: false, lease };
    Ok(Engine::new(ports, start).await?.plan_once().await)
}

/// What every command needs before it can look at anything.
struct Foundation {
    config: Arc<Config>,
    clearml: clearml::Client,
    server: ServerInfo,
    ec2: ec2::Client,
    fleet: FleetId,
    mode: SidecarMode,
    reach: Option<Reach>,
    setups: Arc<AgentSetups>,
    task: Option<String>,
    secrets: Vec<SecretString>,
}

impl Foundation {
    async fn lay(input: Input) -> anyhow::Result<Self> {
        let Input { config, clearml: settings, aws_endpoint, aws_keys, task } = input;
        let secrets = secrets_of(&config, &settings);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let clearml = settings.client()?;
        let server = clearml.login().await.map_err(|error| refused(&error))?;
        let project = clearml.ensure_project("DevOps").await.map_err(|error| refused(&error))?;
        let fleet = fleet_id(&project, &config.prefix);
        let on_ec2 = match (config.sidecar, &config.advertise) {
            (config::SidecarSetting::Off, _) | (_, Some(_)) => None,
            (config::SidecarSetting::Auto | config::SidecarSetting::Required, None) => runs_on_ec2().await,
        };
        let (mode, warning) = config.sidecar_mode(on_ec2.is_some());
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let reach = Reach::of(&config, mode, on_ec2)?;
        let addresses = agent_addresses(&config, &settings);
        let ec2 = ec2::Client::connect(super::fleet::ec2_settings(&config, aws_endpoint, aws_keys))
            .await
            .map_err(|error| BadInput(error.to_string()))?;
        let config = Arc::new(config);
        let setups = Arc::new(AgentSetups::new(Arc::clone(&config), &settings, addresses, task.as_deref()));
        Ok(Self { config, clearml, server, ec2, fleet, mode, reach, setups, task, secrets })
    }
}

async fn open_gateway(
    foundation: &Foundation,
    store: &Arc<Store>,
    epoch: u64,
    artifacts: Artifacts,
    clock: LiveClock,
) -> anyhow::Result<Gateway> {
    let identity = Identity::of(store).await?;
    let config = &foundation.config;
    let settings = crate::gateway::Settings {
        listen: config.listen,
        epoch,
        silent_idle_limit: config.max_idle,
        limits: Limits::default(),
    };
    let scripts = Arc::clone(&foundation.setups);
    Ok(Gateway::bind(settings, &identity, Arc::clone(store), scripts, artifacts, clock)?)
}

/// ClearML's, AWS's and git's secrets, as far as they are known here.
fn secrets_of(config: &Config, settings: &config::clearml::Settings) -> Vec<SecretString> {
    let mut secrets = vec![match &settings.credentials {
        clearml::Credentials::Keys { access: _, secret } => secret.clone(),
        clearml::Credentials::Token(token) => token.clone(),
    }];
    secrets.extend(config.git.password.clone());
    if let config::Credentials::Keys { access_key: _, secret_key, session_token } = &config.aws.credentials {
        secrets.push(secret_key.clone());
        secrets.extend(session_token.clone());
    }
    secrets
}

/// Tells this server's fleet of this prefix from every other in the AWS account.
fn fleet_id(project: &str, prefix: &str) -> FleetId {
    let digest = Sha256::digest(format!("{project}\n{prefix}"));
    FleetId(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// What ClearML refuses an operator must correct; what may work later is no such thing.
fn refused(error: &clearml::Error) -> anyhow::Error {
    if error.is_transient() { anyhow::anyhow!("{error}") } else { BadInput(error.to_string()).into() }
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
