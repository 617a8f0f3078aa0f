//! What is known at one instant: all sources merged, each with its age. Made by the engine, read by the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::boots::Boots;
use crate::ids::{
    ClientToken, InstanceId, InstanceType, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId,
};
use crate::plan::{Order, OrderKind};
use crate::policy::Offering;
use crate::task::{Loss, TaskRef, TaskStatus, Touch, Word};

/// A task that has left its queue for this long and started nowhere is in limbo: a start takes about a second.
pub const LIMBO_AFTER: Duration = Duration::from_secs(60);

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
    /// Tasks that are `queued` and on no queue's list, by a read of the queues that began after theirs.
    #[serde(default)]
    pub unplaced: Vec<TaskRef>,
    /// Tasks with our tag that are neither.
    #[serde(default)]
    pub marked: Vec<TaskRef>,
    /// When tasks that we touched may be touched again.
    #[serde(default)]
    pub touched: BTreeMap<TaskId, Touch>,
    /// By how many milliseconds the server's clock is ahead of ours, if that is known.
    #[serde(default)]
    pub server_ahead_ms: Option<i64>,
    /// ClearML's workers that are not ours.
    #[serde(default)]
    pub others: BTreeMap<WorkerId, OtherWorker>,
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
    /// The same with all that is known of their end.
    #[serde(default)]
    pub losses: BTreeMap<InstanceId, Loss>,
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
    /// `tasks.get_all` of what is in progress, has left its queue, or carries our tag.
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
    /// What its sidecar said last of the tasks there.
    #[serde(default)]
    pub word: Word,
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

/// A worker that is none of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherWorker {
    /// The queues that it serves.
    pub queues: BTreeSet<QueueName>,
    /// The task that it reported last.
    pub task: Option<TaskId>,
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
        self.freshness
            .get(&source)
            .is_some_and(|age| age.stale_since.is_none() || fault!("stale-input-trusted"))
    }

    /// Whether the source shows what was so at `instant`: a fresh read that began later.
    pub fn read_after(&self, source: Source, instant: Time) -> bool {
        self.is_fresh(source) && self.freshness.get(&source).is_some_and(|age| age.read_began_at > instant)
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

impl Snapshot {
    /// Tasks of this queue in limbo for 60 s that no session holds: an instance of that queue may have popped one.
    /// A task of which the server no longer knows the queue may be of any.
    pub fn limbo_of(&self, queue: &QueueName) -> u32 {
        let lasting = |task: &&TaskRef| {
            let of_queue = task.queue.as_ref().is_none_or(|of| of == queue);
            let long = task.out_since.is_some_and(|out| self.now.since(out) >= LIMBO_AFTER);
            of_queue && long && task.status == TaskStatus::Queued
        };
        let held = |task: &TaskRef| self.instances.values().any(|instance| instance.holds(&task.task));
        let count = self.unplaced.iter().filter(lasting).filter(|task| !held(task)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl Instance {
    /// Whether a gate of it holds the task, by its sidecar's last word.
    pub fn holds(&self, task: &TaskId) -> bool {
        self.word.held.contains(task)
            || matches!(&self.state, State::Busy { task: Some(held) } if held == task)
    }

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
