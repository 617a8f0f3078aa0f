//! The plan: complete actions, typed reasons for what is not done, and when to look again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::hold::Hold;
use crate::ids::{ClientToken, InstanceId, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId};
use crate::policy::Offering;
use crate::snapshot::Source;
use crate::task::{Seen, TaskStep};

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
    /// Take a step with a task.
    Task {
        /// Which.
        task: TaskId,
        /// What the step rests on: nothing is done if the task has changed.
        seen: Seen,
        /// What.
        #[serde(flatten)]
        step: TaskStep,
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
    /// Close the gate behind the task that is held, if one is: it is ended, and no other taken.
    Finish,
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
    /// Two looks found nothing that accounts for it, and nothing shows that its agent was ever up.
    Orphan,
    /// The operator said that all go.
    Shutdown,
}

impl Plan {
    /// Look again at `instant`, or earlier.
    pub(crate) fn wake(&mut self, instant: Time) {
        self.wake_at = Some(self.wake_at.map_or(instant, |earlier| earlier.min(instant)));
    }
}
