//! Why something is not done: typed, so that `status` and `explain` can tell, and in words.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId};
use crate::plan::OrderKind;
use crate::policy::{Offering, ShutdownAction};
use crate::snapshot::Source;
use crate::task::Cause;

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "hold")]
pub enum Hold {
    /// Not everything has been read since the start.
    Adopting {
        /// What is missing.
        missing: Vec<Source>,
    },
    /// Sidecars of adopted instances still have time to attach.
    AwaitingSessions {
        /// How many instances.
        instances: u32,
        /// Until then.
        until: Time,
    },
    /// No journal of an earlier run: its launches may still come to light.
    NewJournal {
        /// Until then nothing is launched.
        until: Time,
    },
    /// Another autoscaler holds the prefix.
    LeaseLost,
    /// The operator has paused launches.
    Paused {
        /// Since when.
        since: Time,
        /// The operator's words.
        reason: Option<String>,
    },
    /// The run is about to end: nothing is launched any more.
    ShuttingDown {
        /// What becomes of the fleet.
        action: ShutdownAction,
        /// How many instances are still to go by it.
        remaining: u32,
    },
    /// A source can't be read: nothing that rests on it is done.
    Stale {
        /// Which.
        source: Source,
        /// Since when.
        since: Time,
    },
    /// The server does not list a queue of the budget: what waits in it is not known.
    QueueUnknown {
        /// Which.
        queue: QueueName,
    },
    /// Every pool of the queue is full.
    MaximumReached {
        /// The queue.
        queue: QueueName,
        /// Tasks that wait beyond what is there or on its way.
        waiting: u32,
        /// The sum of its maxima.
        maximum: u32,
    },
    /// EC2 refused this lately.
    Unavailable {
        /// What.
        offering: Offering,
        /// Until when it is left alone.
        until: Time,
        /// EC2's words.
        reason: String,
    },
    /// The resource can't be launched as things are.
    ResourceBlocked {
        /// Which.
        resource: ResourceName,
        /// Why, and the remedy.
        reason: String,
    },
    /// Boots of this pool failed in a row: it rests.
    PoolPaused {
        /// Which.
        resource: ResourceName,
        /// How many.
        failures: u32,
        /// One may be tried again then.
        until: Time,
        /// Why the last of them failed.
        reason: String,
    },
    /// The pool has not shown a ready instance (again): as many as may try are on their way.
    Unproven {
        /// Which.
        resource: ResourceName,
        /// Boots that failed so far.
        failures: u32,
        /// Why the last of them failed.
        reason: String,
    },
    /// As many instances as the pace allows were launched lately.
    Paced {
        /// How many more are wanted.
        count: u32,
        /// More may be launched then.
        until: Time,
    },
    /// An operator's tag spares it.
    Kept {
        /// Which.
        instance: InstanceId,
    },
    /// Nothing accounts for it: it is looked at once more, then it goes.
    Orphan {
        /// Which.
        instance: InstanceId,
        /// When.
        until: Time,
    },
    /// A launch's reply was lost; it is asked for again with the same token.
    LaunchUnanswered {
        /// Which.
        intent: IntentId,
        /// Instances that may come of it.
        count: u32,
        /// When it is asked again.
        retry_at: Time,
    },
    /// A launch's reply was lost, and the budget has no room for it any more: it is not asked for again.
    LaunchGivenUp {
        /// Which.
        intent: IntentId,
        /// Instances that may still come of it.
        count: u32,
        /// It is forgotten then, if EC2's list shows none of them.
        until: Time,
    },
    /// On its way.
    Booting {
        /// Which.
        instance: InstanceId,
        /// Its phase.
        phase: String,
        /// It is replaced if it is not ready then.
        until: Time,
    },
    /// Idle, and within its limit.
    IdleUntil {
        /// Which.
        instance: InstanceId,
        /// The limit.
        until: Time,
    },
    /// Idle beyond its limit, and kept because tasks wait.
    KeptForWaiting {
        /// Which.
        instance: InstanceId,
    },
    /// An order is out.
    OrderAwaited {
        /// Whose.
        instance: InstanceId,
        /// Which.
        kind: OrderKind,
    },
    /// The sidecar refused to drain.
    DrainRefused {
        /// Whose.
        instance: InstanceId,
        /// The task that it holds, if that is why.
        task: Option<TaskId>,
    },
    /// The operator drains it, and it can't go yet.
    OperatorDrain {
        /// Which.
        instance: InstanceId,
        /// When that was asked for.
        since: Time,
        /// What it waits for.
        awaits: Awaits,
    },
    /// The sidecar refused another order; it is sent again.
    OrderRefused {
        /// Whose.
        instance: InstanceId,
        /// Which.
        kind: OrderKind,
        /// When.
        retry_at: Time,
    },
    /// It may go once a look that begins now has shown nothing against it.
    FreshLook {
        /// Which.
        instance: InstanceId,
    },
    /// ClearML shows a task on an instance that is otherwise to go.
    TaskSeen {
        /// Which.
        instance: InstanceId,
        /// The task.
        task: TaskId,
    },
    /// Its sidecar is silent.
    LostUntil {
        /// Which.
        instance: InstanceId,
        /// It may be ended then, if nothing shows a task on it.
        until: Time,
    },
    /// Lost past its deadline, and a task of its queue is in limbo: it may hold it.
    Limbo {
        /// Which.
        instance: InstanceId,
        /// Its queue.
        queue: QueueName,
        /// How many tasks.
        tasks: u32,
    },
    /// It judges itself and powers itself off: there is no way in.
    OnItsOwn {
        /// Which.
        instance: InstanceId,
    },
    /// More instances than the maximum, and none of the excess idle.
    OverMaximum {
        /// The pool.
        resource: ResourceName,
        /// How many too many.
        excess: u32,
    },
    /// A task is in trouble and left alone for now.
    Task {
        /// Which.
        task: TaskId,
        /// What is wrong.
        trouble: Trouble,
        /// Why nothing is done.
        why: TaskHold,
    },
    /// Two instances hold the same task.
    TaskTwice {
        /// Which.
        task: TaskId,
        /// Who.
        instances: Vec<InstanceId>,
    },
    /// More tasks want a step than one pass takes.
    TasksNextPass {
        /// How many more.
        count: u32,
    },
    /// AWS is about to take it back: it takes no more tasks and counts against its maximum until it is gone.
    Noticed {
        /// Which.
        instance: InstanceId,
        /// When it is taken.
        until: Time,
    },
}

/// What is wrong with a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It left this queue and started nowhere.
    Limbo(QueueName),
    /// It runs by the server's list, and its machine is gone.
    Gone(InstanceId),
    /// It runs by the server's list, and its machine does not run it.
    Stranded(InstanceId),
    /// Its machine is about to be taken back.
    Noticed(InstanceId),
    /// It was stopped, and is to be put back.
    Interrupted(Cause),
}

/// Why nothing is done about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskHold {
    /// It must have been so for longer.
    Until(Time),
    /// A look that begins now must show the same.
    FreshLook,
    /// A step was taken that has not shown yet, or failed and is tried again.
    Paused(Time),
    /// An instance holds it.
    HeldBy(InstanceId),
    /// A worker's entry shows it.
    ListedOn(WorkerId),
    /// An instance of its queue may have popped it: its gate asks, is in doubt or silent, or nobody can tell.
    MayBeOn(InstanceId),
    /// A worker that is not ours serves its queue, and may have popped it.
    OtherWorkers(WorkerId),
    /// Its status changed after the first sign of the loss: it may run elsewhere.
    ChangedSince,
    /// It has given signs of life, and its machine was never seen by this run.
    Alive,
    /// How the server's clock stands to ours is not known.
    ClockUnknown,
    /// The server no longer has its queue, or the budget does not.
    QueueUnknown,
    /// Its machine must be proven gone first.
    NotGoneYet(InstanceId),
    /// It goes on until its machine is taken.
    RunsOn(Time),
    /// Two instances hold it.
    Twice,
    /// Another autoscaler holds the prefix.
    LeaseLost,
}

/// What an instance that the operator drains waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaits {
    /// To be up: what boots can't be told anything.
    Boot,
    /// The end of its task.
    Task(Option<TaskId>),
    /// A word of its sidecar, which is silent.
    Sidecar,
    /// Its own idle limit: there is no way in.
    Itself,
}
