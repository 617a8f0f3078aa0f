//! The five ports of the loop. Errors are what the loop decides by, never a transport's.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use planner::{
    Boots, ClientToken, InstanceId, Intent, IntentId, Offering, Order, OtherWorker, QueueName, ResourceName,
    Seen, TaskId, TaskRef, TaskStep, Time, Word, Worker, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::history::Event;

/// ClearML, as far as the loop needs it.
pub trait ClearMl: Send + Sync + 'static {
    /// Every queue that the server lists, with its waiting tasks, next first.
    fn queues(&self) -> impl Future<Output = Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError>> + Send;
    /// All workers: those whose id begins with `PREFIX:`, and the others.
    fn workers(&self) -> impl Future<Output = Result<Workers, ClearMlError>> + Send;
    /// Tasks that are `in_progress`, those with our tag, and those `queued` ones that the scope asks for; each once.
    fn tasks(&self, scope: &TaskScope) -> impl Future<Output = Result<TaskList, ClearMlError>> + Send;
    /// Takes a step with a task, if it is still as it was seen: looks, and then acts. Safe to repeat.
    ///
    /// # Errors
    /// `Refused` also if it has changed.
    fn step(
        &self,
        task: &TaskId,
        seen: &Seen,
        step: &TaskStep,
    ) -> impl Future<Output = Result<(), ClearMlError>> + Send;
    /// Removes a worker's entry. Removing what is not there succeeds.
    fn unregister(&self, worker: &WorkerId) -> impl Future<Output = Result<(), ClearMlError>> + Send;
}

/// ClearML's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// Those of our prefix.
    pub ours: BTreeMap<WorkerId, Worker>,
    /// All others.
    pub others: BTreeMap<WorkerId, OtherWorker>,
}

/// Which of the `queued` tasks are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskScope {
    /// Those whose status has changed since then, by our clock; all of them if `None`.
    pub queued_since: Option<Time>,
    /// These as well, whatever their status: they have left their queue.
    pub ids: BTreeSet<TaskId>,
}

/// What a read of the tasks gave. `unchanged_since` and `out_since` are the reader's to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskList {
    /// Each task once.
    pub tasks: Vec<TaskRef>,
    /// By how many milliseconds the server's clock is ahead of ours, as far as it told.
    pub server_ahead_ms: Option<i64>,
}

/// A call to ClearML failed after its retries.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClearMlError {
    /// The server could not be reached, or answered with a fault of its own: it may work later.
    #[error("{0}")]
    Unavailable(String),
    /// The server understood and refused: the same call will be refused again.
    #[error("{0}")]
    Refused(String),
}

/// EC2, as far as the loop needs it.
pub trait Cloud: Send + Sync + 'static {
    /// Every instance with the fleet's tag, the lately terminated ones included.
    fn describe(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<InstanceId, CloudInstance>, CloudError>> + Send;
    /// Which of these EC2 calls terminated or stopped or does not know: asked by id.
    fn gone(
        &self,
        ids: &BTreeSet<InstanceId>,
    ) -> impl Future<Output = Result<BTreeMap<InstanceId, Gone>, CloudError>> + Send;
    /// Turns a launch into the exact request that is journalled and then sent. No I/O.
    ///
    /// # Errors
    /// `Invalid` if no request can be made of it.
    fn prepare(&self, launch: &Launch) -> Result<Prepared, CloudError>;
    /// Sends the request; the ids of what was launched, fewer than asked for at times.
    fn launch(
        &self,
        request: &Prepared,
    ) -> impl Future<Output = Result<BTreeSet<InstanceId>, CloudError>> + Send;
    /// Ends instances. Ending what is gone succeeds.
    fn terminate(&self, ids: &[InstanceId]) -> impl Future<Output = Result<(), CloudError>> + Send;
}

/// What EC2 says of a machine that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// It still knows it, as one of this fleet.
    pub ours: bool,
    /// It ended it as a spot instance that it took back.
    pub by_spot: bool,
}

/// What is to be launched; `planner::Action::Launch` without its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The durable note's id, also a tag.
    pub intent: IntentId,
    /// Also a tag.
    pub resource: ResourceName,
    /// Also a tag.
    pub queue: QueueName,
    /// What to buy.
    pub offering: Offering,
    /// At most this many.
    pub count: u32,
    /// Makes the call safe to repeat.
    pub token: ClientToken,
}

/// The exact request, in a form that survives a restart. It holds the launch secret: Debug shows its length alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The adapter's own text.
    pub request: String,
    /// The secret that the instances of this call share until their first attach.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({} bytes)", self.request.len())
    }
}

/// An instance as EC2 lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInstance {
    /// From its tag.
    pub resource: ResourceName,
    /// From its tag.
    pub queue: QueueName,
    /// From its tag, if it has one.
    pub intent: Option<IntentId>,
    /// Type, subnet or zone as it was asked for where known, market.
    pub offering: Offering,
    /// Where it is.
    pub zone: Option<String>,
    /// Its life as EC2 tells it.
    pub state: CloudState,
    /// By EC2's clock.
    pub launched_at: Time,
    /// It has the tag by which an operator spares it.
    pub kept: bool,
    /// When it was told to end or ended by itself, by EC2's clock, where EC2 says so.
    pub ended_at: Option<Time>,
}

/// EC2's instance states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudState {
    /// Not billed yet.
    Pending,
    /// Billed.
    Running,
    /// No longer billed.
    ShuttingDown,
    /// Gone.
    Terminated,
    /// On its way to `Stopped`.
    Stopping,
    /// Kept, without running.
    Stopped,
}

/// A call to EC2 failed; by what the caller does about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloudError {
    /// EC2 has none of this offering now, or the account's limit is reached: try another, or later.
    #[error("no capacity: {0}")]
    NoCapacity(String),
    /// Too many calls: later.
    #[error("throttled: {0}")]
    Throttled(String),
    /// What it names is gone.
    #[error("gone: {0}")]
    Gone(String),
    /// Credentials or permissions: an operator must act.
    #[error("denied: {0}")]
    Denied(String),
    /// The request is wrong: an operator must act.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Anything else; **it may have gone through**.
    #[error("{0}")]
    Other(String),
}

/// The sidecars' sessions.
pub trait Sessions: Send + Sync + 'static {
    /// The state of every session, those that ended lately included.
    fn sessions(&self) -> BTreeMap<InstanceId, Session>;
    /// Sends an order; `false` if no session is there to take it. Does not wait for the answer.
    fn send(&self, instance: &InstanceId, order: Order) -> bool;
    /// Resolves when any session has changed since the last call.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// Which instances may attach, and by which launch. Called before a launch and after each pass.
    fn admit(&self, admission: Admission);
}

/// Who may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The fleet's instances as far as they are known, with their launches.
    pub instances: BTreeMap<InstanceId, Option<IntentId>>,
}

/// One sidecar's session, as of its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whether the stream stands.
    pub connected: bool,
    /// When the last report came, or the stream ended.
    pub last_seen: Time,
    /// The boot script's phase; `ready` once the agent is up, `failed` if a phase failed.
    pub boot_phase: String,
    /// The phase that failed, if one did, with the end of its log.
    pub boot_failure: Option<String>,
    /// What the agents do, taken together: the instance is idle only if each of them is.
    pub gate: Gate,
    /// Since when, by the sidecar's monotonic duration counted back from the report's arrival.
    pub gate_since: Time,
    /// Every agent's process is alive (or has not started yet).
    pub alive: bool,
    /// How the orders left the gate.
    pub standing: Standing,
    /// When the standing was first reported.
    pub standing_since: Time,
    /// The answer to the newest order sent in this run.
    pub last_answer: Option<(Order, planner::Answer)>,
    /// What it said of the tasks there.
    pub word: Word,
}

/// What the agents of an instance do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// At least one has not started.
    Absent,
    /// None holds a task.
    Idle,
    /// One holds this task, if the id is known.
    Busy(Option<TaskId>),
    /// A poll failed: one may hold a task.
    Unknown,
}

/// How the orders left a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Held open.
    Open,
    /// Closed behind a task that is held; drained once that has ended.
    Finishing,
    /// Closed; can be undone.
    Drained,
    /// Closed for good.
    Retired,
}

/// What survives a restart.
pub trait Journal: Send + Sync + 'static {
    /// Writes the intent with its exact request, durably, before the call.
    fn begin(
        &self,
        id: &IntentId,
        intent: &Intent,
        request: &Prepared,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Writes EC2's answer.
    fn answer(
        &self,
        id: &IntentId,
        instances: &BTreeSet<InstanceId>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Puts the next try off.
    fn postpone(
        &self,
        id: &IntentId,
        retry_at: Time,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// The intent is settled, or EC2 refused it for good. Its secret stays valid for first attaches.
    fn close(&self, id: &IntentId) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// When each instance's agent was first known to be up, as far as earlier runs have noted it.
    fn ready_marks(&self) -> BTreeMap<InstanceId, Time>;
    /// Notes that an instance's agent is up; a later note for the same instance changes nothing.
    fn mark_ready(
        &self,
        instance: &InstanceId,
        at: Time,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Whether a sidecar of this instance could attach: its launch or its own token is on record.
    fn knows(&self, instance: &InstanceId, intent: Option<&IntentId>) -> bool;
    /// How the boots of each pool ended, as far as earlier runs have noted it.
    fn boots(&self) -> BTreeMap<ResourceName, Boots>;
    /// Notes how the boots of a pool ended.
    fn note_boots(
        &self,
        resource: &ResourceName,
        boots: &Boots,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
    /// Intents that are not closed, with their requests.
    fn open(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<IntentId, (Intent, Prepared)>, JournalError>> + Send;
    /// Adds to the history. Waits for nothing: what can't be written is not worth holding the loop up for.
    /// A journal without a history drops it.
    fn note(&self, event: Event) {
        drop(event);
    }
}

/// The journal could not be read or written: nothing may be launched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("journal: {0}")]
pub struct JournalError(pub String);

/// Time, so that the simulator can have its own.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, on the steady clock of `planner::Time`.
    fn now(&self) -> Time;
    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}
