//! An EC2 on loopback: the Query protocol with XML answers, as much of it as an autoscaler meets, with capacity,
//! limits, throttling and faults that can be chosen. Its instances are processes of this machine.

mod beside;
mod catalog;
mod change;
mod describe;
mod error;
mod furniture;
mod iam;
mod images;
mod instance;
mod launch;
mod ledger;
mod life;
mod options;
mod params;
mod permissions;
mod request;
mod server;
mod types;
mod world;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use error::ApiError;
pub use instance::State;
pub use ledger::{Call, Counts, Fault};
pub use options::{Ami, AmiOwner, Market, Options, Pool, Rate, Subnet};

use crate::instances::Machines;
pub(crate) use catalog::{OWNER, architecture};
use instance::Cause;
pub(crate) use instance::Instance;
use world::World;

/// How long a shutdown waits for the machines.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The sandbox's EC2 did not start, or something was asked of an instance that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// No address, no directory, or no executable.
    #[error("starting the sandbox's ec2")]
    Start(#[source] io::Error),
    /// No such instance, or not in a state for this.
    #[error("instance {0} is not running as that")]
    NotThat(String),
}

/// The handle of a running EC2. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Ec2 {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    address: SocketAddr,
    world: Mutex<World>,
    machines: Machines,
    /// Counts changes, so that tests can wait for one.
    changes: watch::Sender<u64>,
    closing: watch::Sender<bool>,
}

/// An instance, to look at.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// For example `i-0123456789abcdef0`.
    pub id: String,
    /// For example `m5.xlarge`.
    pub instance_type: String,
    /// For example `us-east-1a`.
    pub zone: String,
    /// How it was bought.
    pub market: Market,
    /// By EC2's own view, without the delay of its answers.
    pub state: State,
    /// The code of its state reason, for example `Client.UserInitiatedShutdown`.
    pub reason: Option<String>,
    /// All of them.
    pub tags: BTreeMap<String, String>,
    /// By the wall clock.
    pub launched_at: Timestamp,
    /// Holds `root/`, `bin/` and `console.log`, if it has processes.
    pub dir: PathBuf,
}

impl Ec2 {
    /// Listens, and serves until `shutdown`. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the address is taken or no directory can be made.
    pub async fn start(options: Options) -> Result<Self, Ec2Error> {
        let listener = TcpListener::bind(options.listen).await.map_err(Ec2Error::Start)?;
        let address = listener.local_addr().map_err(Ec2Error::Start)?;
        let machines = Machines::new(options.machines.clone()).map_err(Ec2Error::Start)?;
        let inner = Arc::new(Inner {
            address,
            world: Mutex::new(World::new(options)),
            machines,
            changes: watch::Sender::new(0),
            closing: watch::Sender::new(false),
        });
        let ec2 = Self { inner };
        tokio::spawn(server::serve(listener, ec2.clone()));
        Ok(ec2)
    }

    /// The endpoint, without a slash at its end: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// The base of an instance's metadata service.
    pub fn imds_url(&self, instance: &str) -> String {
        format!("{}/imds/{instance}", self.url())
    }

    /// What a client needs to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let world = self.inner.world();
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ACCESS_KEY_ID", world.options.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", world.options.secret_access_key.clone()),
            ("AWS_REGION", world.options.region.clone()),
            ("AWS_DEFAULT_REGION", world.options.region.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Changes capacity, limits, delays and the like while it runs. `listen` and `machines` stay as they were.
    pub fn configure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.inner.world().options);
    }

    /// The next `times` calls of an action meet this fault.
    pub fn fail_next(&self, action: &str, times: usize, fault: &Fault) {
        self.inner.world().ledger.plan_faults(action, times, fault);
    }

    /// The calls so far, oldest first; the last 20,000 of them.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.world().ledger.calls.iter().cloned().collect()
    }

    /// The calls of one action, oldest first.
    pub fn calls_of(&self, action: &str) -> Vec<Call> {
        self.inner.world().ledger.calls.iter().filter(|call| call.action == action).cloned().collect()
    }

    /// The IAM actions that the calls so far needed.
    pub fn permissions_used(&self) -> BTreeSet<String> {
        self.inner.world().ledger.calls.iter().flat_map(|call| call.permissions.iter().cloned()).collect()
    }

    /// Totals since the start.
    pub fn counts(&self) -> Counts {
        self.inner.world().counts()
    }

    /// Every instance that is still listed, in order of launch.
    pub fn instances(&self) -> Vec<InstanceView> {
        let world = self.inner.world();
        world.all().map(|instance| self.view(instance)).collect()
    }

    /// One instance.
    pub fn instance(&self, id: &str) -> Option<InstanceView> {
        self.inner.world().get(id).map(|instance| self.view(instance))
    }

    /// The console so far, its last 64 KiB.
    pub fn console(&self, id: &str) -> String {
        String::from_utf8_lossy(&self.inner.machines.console(id)).into_owned()
    }

    /// AWS takes a spot instance back: its metadata says so at once, and it is terminated after the notice.
    ///
    /// # Errors
    /// If it is no spot instance that runs.
    pub fn interrupt(&self, id: &str, notice: Duration) -> Result<(), Ec2Error> {
        let end = Timestamp::now() + SignedDuration::try_from(notice).unwrap_or(SignedDuration::MAX);
        self.inner.mark_spot(id, |instance| instance.interruption = Some(end))?;
        let (ec2, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(notice).await;
            ec2.inner.end(&id, Cause::Interrupted);
        });
        Ok(())
    }

    /// AWS recommends to leave a spot instance: a hint in its metadata, nothing else.
    ///
    /// # Errors
    /// If it is no spot instance that runs.
    pub fn recommend_rebalance(&self, id: &str) -> Result<(), Ec2Error> {
        let now = Timestamp::now();
        self.inner.mark_spot(id, |instance| instance.rebalance = Some(now))
    }

    /// The machine dies, as hardware does: no warning, no word to anybody.
    pub fn crash(&self, id: &str) {
        self.inner.end(id, Cause::Failed);
    }

    /// Waits until the condition holds; `false` if it did not within the limit. Looks again at every change and,
    /// for conditions on something else, every 50 ms.
    pub async fn wait_until(&self, limit: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let mut changes = self.inner.changes.subscribe();
        let wait = async {
            while !condition(self) {
                let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Ends every instance with all of its processes, then stops serving. `false` if some would not end in time.
    pub async fn shutdown(&self) -> bool {
        self.end_all();
        let ended = self.wait_until(STOP_LIMIT, |ec2| ec2.inner.world().live().next().is_none()).await;
        self.close();
        ended
    }

    /// The same without waiting: the instances end as long as the runtime goes on, and with it at the latest.
    pub fn close(&self) {
        self.end_all();
        self.inner.closing.send_replace(true);
    }

    fn end_all(&self) {
        let ids: Vec<String> = self.inner.world().all().map(|instance| instance.id.clone()).collect();
        for id in &ids {
            self.inner.end(id, Cause::Terminated);
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    fn view(&self, instance: &Instance) -> InstanceView {
        InstanceView {
            id: instance.id.clone(),
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            market: instance.market,
            state: instance.state,
            reason: instance.cause.map(|cause| cause.reason().0.to_owned()),
            tags: instance.tags.clone(),
            launched_at: instance.launched_at,
            dir: self.inner.machines.dir(&instance.id),
        }
    }
}

impl Inner {
    /// The lock is never held across an await, nor by anything that panics half-way through a change.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn end(&self, id: &str, cause: Cause) {
        self.world().end(id, cause);
        self.changed();
    }

    fn mark_spot(&self, id: &str, mark: impl FnOnce(&mut Instance)) -> Result<(), Ec2Error> {
        let mut world = self.world();
        match world.get_mut(id).filter(|it| it.market == Market::Spot && it.state == State::Running) {
            Some(instance) => {
                mark(instance);
                Ok(())
            }
            None => Err(Ec2Error::NotThat(id.to_owned())),
        }
    }
}
