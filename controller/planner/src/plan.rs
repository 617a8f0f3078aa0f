//! The plan: complete actions, typed reasons for what is not done, and when to look again.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientToken, InstanceId, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId};
use crate::policy::{Offering, Policy};
use crate::snapshot::{Snapshot, Source};
use crate::{scale_down, scale_up};

/// What to do now, why not more, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they are to be applied.
    pub actions: Vec<Action>,
    /// Why nothing else is done.
    pub holds: Vec<Hold>,
    /// The next instant at which time alone changes the plan.
    pub wake_at: Option<Time>,
    /// Sources to read at once, whatever their interval.
    pub refresh: BTreeSet<Source>,
    /// Instances to ask EC2 about by id: workers name them and no list shows them.
    pub look_up: BTreeSet<InstanceId>,
}

/// One complete act: whoever applies it decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Ask EC2 for instances, once the intent is written.
    Launch {
        /// New, or one whose answer was lost.
        intent: IntentId,
        /// The pool.
        resource: ResourceName,
        /// Its queue.
        queue: QueueName,
        /// What to buy.
        offering: Offering,
        /// How many; EC2 may give fewer.
        count: u32,
        /// Makes the call safe to repeat.
        token: ClientToken,
    },
    /// The intent is settled: every instance of its answer has been seen.
    Settle {
        /// Which.
        intent: IntentId,
    },
    /// Tell an instance's sidecar.
    Send {
        /// Whose.
        instance: InstanceId,
        /// What.
        order: Order,
    },
    /// End instances.
    Terminate {
        /// Which.
        instances: Vec<InstanceId>,
        /// By what right.
        reason: TerminateReason,
    },
    /// Remove a worker's entry from ClearML: its machine is gone.
    Unregister {
        /// Which.
        worker: WorkerId,
    },
}

/// An order to a sidecar, fenced: it refuses what is older than the newest that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// The controller's run.
    pub epoch: u64,
    /// Counts up within a run, instance by instance.
    pub generation: u64,
    /// What to do.
    pub kind: OrderKind,
}

/// What a sidecar can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// Close the gate, or refuse.
    Drain,
    /// Open it again.
    Undrain,
    /// Close it for good, and power off if nobody ends the machine.
    Retire,
}

/// By what right an instance is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminateReason {
    /// It was retired and was seen free afresh.
    Retired,
    /// It never became ready within its limit.
    NeverReady,
    /// It is lost past its deadline, and nothing shows a task on it.
    Lost,
}

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
    /// A source can't be read: nothing that rests on it is done.
    Stale {
        /// Which.
        source: Source,
        /// Since when.
        since: Time,
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
    /// A launch's reply was lost; it is asked for again with the same token.
    LaunchUnanswered {
        /// Which.
        intent: IntentId,
        /// Instances that may come of it.
        count: u32,
        /// When it is asked again.
        retry_at: Time,
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
    /// Retired; a look that began after the acknowledgement is under way.
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
    /// It judges itself and powers itself off: there is no way in.
    OnItsOwn {
        /// Which.
        instance: InstanceId,
    },
    /// More instances than the maximum, all of them busy.
    OverMaximum {
        /// The pool.
        resource: ResourceName,
        /// How many too many.
        excess: u32,
    },
}

/// What to do about this snapshot. The same snapshot always gives the same plan.
pub fn plan(policy: &Policy, snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let demand = scale_down::plan_removals(policy, snapshot, &mut plan);
    scale_up::plan_launches(policy, snapshot, &demand, &mut plan);
    plan
}

impl Plan {
    /// Look again at `instant`, or earlier.
    pub(crate) fn wake(&mut self, instant: Time) {
        self.wake_at = Some(self.wake_at.map_or(instant, |earlier| earlier.min(instant)));
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queues => "queues",
            Self::Workers => "workers",
            Self::Tasks => "tasks",
            Self::Cloud => "EC2 instances",
        })
    }
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Retire => "retire",
        })
    }
}
