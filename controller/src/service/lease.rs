//! The lease on a worker prefix: of all the runs that use it, one launches instances.
//!
//! It is a worker entry in ClearML, `PREFIX-autoscaler:RUN`, of which the oldest that shows signs of life wins.
//! A holder that could not renew for [`HOLD`] is no holder any more, by its own clock; a contender takes a
//! rival for dead after [`SILENCE`], which is longer. So at no time two runs hold the lease.

mod contest;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clearml::{Registration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{Instrument, debug, info, info_span, warn};

use self::contest::{Contest, Verdict};

/// How long an entry stays listed without a report.
const LIFETIME: Duration = Duration::from_secs(60);
/// Between two renewals.
const RENEWAL: Duration = Duration::from_secs(15);
/// Between two looks of one that does not hold the lease.
const LOOK: Duration = Duration::from_secs(2);
/// From registering to the first judgement, so that all that register at the same time see each other.
const SETTLE: Duration = Duration::from_secs(5);
/// A renewal is good for this long.
const HOLD: Duration = Duration::from_secs(25);
/// A rival that has not reported for this long is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// No judgement takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// One call.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts after a failed one; up to as much again is added by chance.
const RETRY: Duration = Duration::from_secs(2);

/// An autoscaler's entry, its own or a rival's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `PREFIX-autoscaler:RUN`.
    pub id: String,
    /// By the server's clock, as all times here.
    pub registered: Option<Timestamp>,
    /// Its last report of any kind.
    pub active: Option<Timestamp>,
}

/// ClearML's list of workers, as far as the lease needs it.
pub trait Registry: Send + Sync + 'static {
    /// Lists this worker for 60 s after its last report.
    fn register(&self, worker: &str) -> impl Future<Output = Result<(), clearml::Error>> + Send;
    /// Keeps it listed.
    fn report(&self, worker: &str) -> impl Future<Output = Result<(), clearml::Error>> + Send;
    /// Takes it off the list.
    fn unregister(&self, worker: &str) -> impl Future<Output = Result<(), clearml::Error>> + Send;
    /// All entries that begin so.
    fn list(&self, beginning: &str) -> impl Future<Output = Result<Vec<Entry>, clearml::Error>> + Send;
}

impl Registry for clearml::Client {
    async fn register(&self, worker: &str) -> Result<(), clearml::Error> {
        let tags = &["clearml-autoscaler"];
        self.register_worker(&Registration { worker, timeout: LIFETIME, tags, queues: &[] }).await
    }

    async fn report(&self, worker: &str) -> Result<(), clearml::Error> {
        self.report_worker(worker, &[]).await
    }

    async fn unregister(&self, worker: &str) -> Result<(), clearml::Error> {
        self.unregister_worker(worker).await
    }

    async fn list(&self, beginning: &str) -> Result<Vec<Entry>, clearml::Error> {
        let workers = self.workers(LIFETIME).await?.into_iter();
        let ours = workers.filter(|worker| worker.id.starts_with(beginning));
        Ok(ours
            .map(|worker| Entry {
                id: worker.id,
                registered: worker.register_time,
                active: worker.last_activity_time,
            })
            .collect())
    }
}

/// Who wants the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The worker prefix.
    pub prefix: String,
    /// Unlike that of any other run, past or present: a UUID, say. Not the machine's boot id, which two runs
    /// on one machine would share.
    pub run: String,
    /// The `run`s of earlier runs that surely ended: their journal, which only one run can have open, is now
    /// ours. Their entries are removed at once instead of being waited out.
    pub predecessors: Vec<String>,
}

impl Claim {
    fn family(&self) -> String {
        format!("{}-autoscaler:", self.prefix)
    }
}

/// The lease was not obtained. Nothing is left behind in ClearML.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another live run has it.
    #[error(
        "the worker prefix is in use: another autoscaler, {winner}, holds its lease; end that one, or use another workers_prefix"
    )]
    Held {
        /// Its worker id.
        winner: String,
    },
    /// It could not be made out for too long whether another one lives.
    #[error("cannot tell whether another autoscaler, {rival}, is alive")]
    Undecided {
        /// Its worker id.
        rival: String,
    },
    /// ClearML did not answer.
    #[error("the lease on the worker prefix cannot be obtained: {0}")]
    ClearMl(#[from] clearml::Error),
}

/// The lease, renewed in the background until it is released or dropped.
#[derive(Debug)]
pub struct Lease<R: Registry> {
    registry: Arc<R>,
    worker: String,
    standing: watch::Receiver<Standing>,
    keeper: JoinHandle<()>,
}

/// Tells whether the lease is held *now*. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Held(watch::Receiver<Standing>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Standing {
    until: Option<Instant>,
    rival: Option<String>,
}

impl Held {
    /// Whether it is held, by the clock: also a process that was frozen for a while knows at once.
    pub fn is_held(&self) -> bool {
        self.0.borrow().until.is_some_and(|until| Instant::now() < until)
    }

    /// The run that holds it instead, if that is known.
    pub fn rival(&self) -> Option<String> {
        self.0.borrow().rival.clone()
    }

    /// Resolves when it was renewed, lost or regained; never again after the lease was dropped.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<R: Registry> Lease<R> {
    /// Obtains the lease: within about 5 s if nobody else wants it, within about 35 s if another run died
    /// lately. Dropped half-way, it leaves an entry that goes by itself within 60 s.
    ///
    /// # Errors
    /// [`LeaseError::Held`] within about 20 s if another run is alive.
    pub async fn acquire(registry: R, claim: &Claim) -> Result<Self, LeaseError> {
        let registry = Arc::new(registry);
        let worker = format!("{}{}", claim.family(), claim.run);
        for run in &claim.predecessors {
            let predecessor = format!("{}{run}", claim.family());
            if let Err(error) = bounded("workers.unregister", registry.unregister(&predecessor)).await {
                warn!(%error, worker = %predecessor, "the entry of an earlier run could not be removed");
            }
        }
        let mut keeper = Keeper::new(registry.clone(), claim.family(), worker.clone());
        match timeout(PATIENCE, keeper.contend()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(keeper.retreat(error).await),
            Err(_) => {
                let rival = keeper.rival().unwrap_or_default();
                return Err(keeper.retreat(LeaseError::Undecided { rival }).await);
            }
        }
        info!(%worker, "the lease on the worker prefix is ours");
        let standing = keeper.standing.subscribe();
        let span = info_span!("lease", %worker);
        Ok(Self { registry, worker, standing, keeper: tokio::spawn(keeper.keep().instrument(span)) })
    }

    /// Watches it.
    pub fn held(&self) -> Held {
        Held(self.standing.clone())
    }

    /// This run's worker id.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Gives it up, so that the next run need not wait.
    pub async fn release(mut self) {
        self.keeper.abort();
        // A renewal under way must not list the entry again.
        let _ = (&mut self.keeper).await;
        if let Err(error) = bounded("workers.unregister", self.registry.unregister(&self.worker)).await {
            warn!(%error, "the lease could not be given back; it ends by itself");
        }
    }
}

impl<R: Registry> Drop for Lease<R> {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper<R: Registry> {
    registry: Arc<R>,
    family: String,
    worker: String,
    contest: Contest,
    standing: watch::Sender<Standing>,
    /// When the last report began: what others know of us is at least as new.
    reported: Instant,
    /// No judgement before.
    settled: Instant,
    listed: bool,
}

impl<R: Registry> Keeper<R> {
    fn new(registry: Arc<R>, family: String, worker: String) -> Self {
        let now = Instant::now();
        let contest = Contest::new(worker.clone());
        let standing = watch::Sender::default();
        Self { registry, family, worker, contest, standing, reported: now, settled: now, listed: false }
    }

    /// Until the lease is won or lost for the first time.
    async fn contend(&mut self) -> Result<(), LeaseError> {
        let mut told = false;
        loop {
            match self.renew().await? {
                Verdict::Won => return Ok(()),
                Verdict::Lost(winner) => return Err(LeaseError::Held { winner }),
                Verdict::Undecided(rival) if !told => {
                    info!(%rival, "another autoscaler's lease is listed; waiting to see whether it is alive");
                    told = true;
                }
                Verdict::Undecided(_) | Verdict::Unsettled => {}
            }
            sleep(LOOK).await;
        }
    }

    /// For ever: renews, and regains what was lost.
    async fn keep(mut self) {
        loop {
            let held = self.standing.borrow().until;
            let pause = if held.is_some() { RENEWAL } else { LOOK };
            sleep_until(self.reported + pause).await;
            // What takes too long has failed: the flag must fall in time.
            let limit = held.unwrap_or_else(|| Instant::now() + PATIENCE);
            match timeout_at(limit, self.renew()).await {
                Ok(Ok(verdict)) => debug!(?verdict, "renewed"),
                Ok(Err(error)) => {
                    warn!(%error, "the lease could not be renewed");
                    let jitter = rand::random_range(0..=RETRY.as_millis() as u64);
                    let retry = Instant::now() + RETRY + Duration::from_millis(jitter);
                    sleep_until(held.map_or(retry, |until| until.min(retry))).await;
                }
                Err(_) => debug!("the renewal took too long"),
            }
            if held.is_some_and(|until| Instant::now() >= until) && self.lapsed() {
                warn!("the lease is lost: it could not be renewed in time; nothing is launched without it");
                self.publish(None, None);
            }
        }
    }

    fn lapsed(&self) -> bool {
        Instant::now() >= self.reported + HOLD
    }

    /// Looks who else is there, renews, and judges.
    async fn renew(&mut self) -> Result<Verdict, clearml::Error> {
        // Who was silent for so long may be taken for dead by others: seniority is lost with the lease.
        if !self.listed || self.lapsed() {
            self.enter().await?;
        }
        let looked = Instant::now();
        let entries = bounded("workers.get_all", self.registry.list(&self.family)).await?;
        if !self.contest.is_listed(&entries) {
            warn!("the lease's entry has gone; it is registered anew");
            self.enter().await?;
            return Ok(Verdict::Unsettled);
        }
        let verdict = self.contest.judge(&entries, looked);
        let began = Instant::now();
        bounded("workers.status_report", self.registry.report(&self.worker)).await?;
        self.reported = began;
        self.contest.reported(Instant::now());
        let verdict = if looked < self.settled { Verdict::Unsettled } else { verdict };
        let until = began + HOLD;
        match &verdict {
            Verdict::Won => self.publish(Some(until), None),
            Verdict::Lost(rival) | Verdict::Undecided(rival) => self.publish(None, Some(rival.clone())),
            Verdict::Unsettled => self.publish(None, None),
        }
        Ok(verdict)
    }

    /// As the youngest of all.
    async fn enter(&mut self) -> Result<(), clearml::Error> {
        self.publish(None, None);
        if self.listed {
            bounded("workers.unregister", self.registry.unregister(&self.worker)).await?;
            self.listed = false;
        }
        let began = Instant::now();
        bounded("workers.register", self.registry.register(&self.worker)).await?;
        let now = Instant::now();
        self.listed = true;
        self.reported = began;
        self.settled = now + SETTLE;
        self.contest.entered(now);
        Ok(())
    }

    fn rival(&self) -> Option<String> {
        self.standing.borrow().rival.clone()
    }

    fn publish(&self, until: Option<Instant>, rival: Option<String>) {
        let new = Standing { until, rival };
        let old = self.standing.send_replace(new.clone());
        match (old.until.is_some(), new.until.is_some(), &new.rival) {
            (true, false, Some(rival)) => {
                warn!(%rival, "the lease on the worker prefix is lost; nothing is launched without it");
            }
            (false, true, _) if old.rival.is_some() => info!("the lease on the worker prefix is regained"),
            (_, _, _) => {}
        }
    }

    /// Leaves nothing behind.
    async fn retreat(&self, error: LeaseError) -> LeaseError {
        if let Err(error) = bounded("workers.unregister", self.registry.unregister(&self.worker)).await {
            warn!(%error, "the entry of this run could not be removed; it ends by itself");
        }
        error
    }
}

async fn bounded<T>(
    endpoint: &'static str,
    call: impl Future<Output = Result<T, clearml::Error>>,
) -> Result<T, clearml::Error> {
    timeout(CALL_LIMIT, call).await.unwrap_or_else(|_| {
        Err(clearml::Error::Unavailable { endpoint, reason: format!("no answer within {CALL_LIMIT:?}") })
    })
}
