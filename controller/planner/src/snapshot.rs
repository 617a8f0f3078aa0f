//! What is known at one instant: all sources merged, each with its age. Made by the engine, read by the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::boots::Boots;
use crate::ids::{
    ClientToken, InstanceId, InstanceType, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId,
};
use crate::plan::{Order, OrderKind};
use crate::policy::Offering;

/// Everything a decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The instant it describes.
    pub now: Time,
    /// When this run of the controller began.
    pub started_at: Time,
    /// No journal of an earlier run was found: an earlier launch may be unknown to us.
    pub journal_is_new: bool,
    /// Whether this run holds the prefix's lease.
    pub lease_held: bool,
    /// This run's number; orders of an earlier run are refused by every sidecar that has seen it.
    pub epoch: u64,
    /// The number of the next intent.
    pub next_intent: u64,
    /// When each source was last read. A source that was never read is absent.
    pub freshness: BTreeMap<Source, Freshness>,
    /// Waiting tasks by queue, next first. A queue that the server does not list is absent.
    pub queues: BTreeMap<QueueName, Vec<TaskId>>,
    /// The fleet, gone instances included for as long as something still names them.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// ClearML's workers of our prefix.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Tasks that are `in_progress`, with the worker that last reported them.
    pub running: Vec<TaskRef>,
    /// Launches that are not settled yet.
    pub intents: BTreeMap<IntentId, Intent>,
    /// Offerings that EC2 refused lately: until when to leave them alone, and EC2's reason.
    pub unavailable: BTreeMap<Offering, (Time, String)>,
    /// How the boots of each pool ended. A pool that is absent has shown nothing yet.
    #[serde(default)]
    pub boots: BTreeMap<ResourceName, Boots>,
    /// Launches of the last minutes, oldest first: when they were asked for, and how many instances.
    #[serde(default)]
    pub launches: Vec<(Time, u32)>,
    /// Instances that EC2, asked by id, calls terminated or does not know.
    pub proven_gone: BTreeSet<InstanceId>,
    /// Tasks in limbo that nothing explains, by the queue that they were popped from: their status says
    /// `queued`, yet no queue's list has shown them for 60 s. An instance of that queue may hold one.
    #[serde(default)]
    pub limbo: BTreeMap<QueueName, u32>,
    /// What the operator has asked for and not taken back.
    #[serde(default)]
    pub operator: Operator,
}

/// The operator's will. It outlives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Nothing new is launched; all else goes on.
    pub paused: Option<Pause>,
    /// Instances that are to go once they are free, whatever waits, by the instant at which that was asked for.
    pub drains: BTreeMap<InstanceId, Time>,
}

/// A pause of launches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it was asked for.
    pub since: Time,
    /// The operator's own words, if there are any.
    pub reason: Option<String>,
}

/// Where knowledge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `queues.get_all`.
    Queues,
    /// `workers.get_all`.
    Workers,
    /// `tasks.get_all` of what is in progress; read on demand only.
    Tasks,
    /// `DescribeInstances` by our tag.
    Cloud,
}

/// The age of a source's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// The read that gave the data began then: what happened later it may not show.
    pub read_began_at: Time,
    /// Since when reads have failed or been overdue.
    pub stale_since: Option<Time>,
}

/// One instance of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// From its tag; the budget may no longer name it.
    pub resource: ResourceName,
    /// From its tag: the queue that its agent serves.
    pub queue: QueueName,
    /// What was bought.
    pub offering: Offering,
    /// The zone that it is in, once EC2's list says: `None` means that no list has shown it yet.
    pub zone: Option<String>,
    /// Its worker's id.
    pub worker: WorkerId,
    /// Its launch, if its tag names one.
    pub intent: Option<IntentId>,
    /// An operator's tag spares it: it is told nothing and ended by nobody but themselves.
    pub kept: bool,
    /// Something accounts for it: its launch is on record, or its sidecar can prove that it is ours.
    pub accounted: bool,
    /// When it was launched, by EC2's clock.
    pub launched_at: Time,
    /// When this run first saw it.
    pub adopted_at: Time,
    /// When its agent was first known to be up.
    pub ready_at: Option<Time>,
    /// Where it is in its life.
    pub state: State,
    /// Since when it is in that state.
    pub since: Time,
    /// What the state rests on.
    pub signal: Signal,
    /// Its gate is closed behind the task that it holds: it ends that one and takes no other.
    #[serde(default)]
    pub finishing: bool,
    /// The last order sent to its sidecar, when, and what came of it.
    pub last_order: Option<(Order, Time, Answer)>,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing yet.
    Awaited,
    /// Done as told.
    Done,
    /// The agent holds this task.
    RefusedBusy(Option<TaskId>),
    /// It could not be told: the gate's lock was not to be had in time, or the gate's state is unknown.
    RefusedUnsure,
    /// The sidecar has seen a newer order.
    RefusedStale,
}

/// Where an instance is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// EC2 named it in a launch's reply; no describe shows it yet.
    Requested,
    /// EC2 is starting it.
    Pending,
    /// It runs, its agent does not yet.
    Booting {
        /// The boot script's phase, as far as it is known.
        phase: String,
    },
    /// Its agent holds no task, since `Instance::since`.
    Idle,
    /// Its agent holds a task.
    Busy {
        /// Which, where it is known.
        task: Option<TaskId>,
    },
    /// Told to close the gate; no answer yet.
    Draining,
    /// The gate is closed and no task is held. Can be undone.
    Drained,
    /// Told to retire; no acknowledgement yet.
    Retiring,
    /// Closed for good and acknowledged.
    Retired,
    /// Being terminated or powering off.
    Terminating,
    /// EC2 says terminated, stopped or not found.
    Gone,
    /// It should be reporting and is not.
    Lost {
        /// How.
        reason: LostReason,
    },
}

/// Why an instance counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// Its sidecar's session ended and none came back.
    SessionLost,
    /// An older run of the controller launched it and its sidecar never attached to this one.
    NeverAttached,
    /// Its sidecar reports that the agent has died.
    AgentDead,
}

/// What an instance's state rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Its sidecar's reports.
    Sidecar,
    /// ClearML's list of workers.
    Clearml,
    /// EC2 alone.
    None,
}

/// A worker as ClearML lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The task that it reported last.
    pub task: Option<TaskId>,
}

/// A task in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Which.
    pub task: TaskId,
    /// The worker that last reported it. Survives until a reset: it may be an older one.
    pub last_worker: Option<WorkerId>,
}

/// A launch that was written down and is not settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The pool that it is for.
    pub resource: ResourceName,
    /// That pool's queue.
    pub queue: QueueName,
    /// What is bought.
    pub offering: Offering,
    /// How many were asked for.
    pub count: u32,
    /// The call's token: asking again with it can't launch twice.
    pub token: ClientToken,
    /// When it was written.
    pub created_at: Time,
    /// Not to be asked again before this.
    pub retry_at: Time,
    /// EC2's answer; `None` while it is not known whether the call went through.
    pub answered: Option<BTreeSet<InstanceId>>,
}

impl Snapshot {
    /// Whether the operator drains this instance. A tag that keeps it is the later word of the same operator.
    pub fn is_drained_by_operator(&self, id: &InstanceId, instance: &Instance) -> bool {
        !instance.kept && self.operator.drains.contains_key(id)
    }

    /// Whether the source was read and its data is not stale.
    pub fn is_fresh(&self, source: Source) -> bool {
        self.freshness.get(&source).is_some_and(|age| age.stale_since.is_none())
    }

    /// Whether the source shows what was so at `instant`: a fresh read that began later.
    pub fn read_after(&self, source: Source, instant: Time) -> bool {
        self.freshness
            .get(&source)
            .is_some_and(|age| age.stale_since.is_none() && age.read_began_at > instant)
    }

    /// Whether ClearML shows a task on this worker or a child of it, by either list. Reads all running tasks.
    pub fn task_of(&self, worker: &WorkerId) -> Option<TaskId> {
        let (first, end) = worker.children();
        let children = (Bound::Included(first.as_str()), Bound::Excluded(end.as_str()));
        let own = self.workers.get(worker).into_iter();
        let mut listed = own.chain(self.workers.range::<str, _>(children).map(|(_, entry)| entry));
        listed.find_map(|entry| entry.task.clone()).or_else(|| {
            self.running
                .iter()
                .find(|task| task.last_worker.as_ref().is_some_and(|last| worker.covers(last)))
                .map(|task| task.task.clone())
        })
    }
}

impl State {
    /// One of DESIGN's words.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Pending => "pending",
            Self::Booting { .. } => "booting",
            Self::Idle => "idle",
            Self::Busy { .. } => "busy",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Terminating => "terminating",
            Self::Gone => "gone",
            Self::Lost { .. } => "lost",
        }
    }
}

impl Instance {
    /// Its type.
    pub fn instance_type(&self) -> &InstanceType {
        &self.offering.instance_type
    }

    /// Whether it still counts against the pool's maximum.
    pub fn counts(&self) -> bool {
        match self.state {
            State::Terminating | State::Gone => false,
            State::Requested
            | State::Pending
            | State::Booting { .. }
            | State::Idle
            | State::Busy { .. }
            | State::Draining
            | State::Drained
            | State::Retiring
            | State::Retired
            | State::Lost { .. } => true,
        }
    }

    /// Whether its gate is closed behind its task, or it was told so in this run and has not answered.
    pub fn is_finishing(&self, epoch: u64) -> bool {
        let told = self.last_order.as_ref().is_some_and(|(order, _, answer)| {
            order.epoch == epoch && order.kind == OrderKind::Finish && *answer == Answer::Awaited
        });
        matches!(self.state, State::Idle | State::Busy { .. }) && (self.finishing || told)
    }

    /// Whether it is on its way to take a task.
    pub fn is_coming(&self) -> bool {
        matches!(self.state, State::Requested | State::Pending | State::Booting { .. })
    }
}
