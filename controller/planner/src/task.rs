//! Tasks as the planner sees them, what may be done to one, and what is known of lost machines.
//!
//! A task's own record on the server carries everything that must survive us: a tag by which it is found
//! again, and notes of why it was interrupted, where, and how often it was put back.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, QueueName, TaskId, Time, WorkerId};

/// What the server's watchdog writes, and we in its stead: ClearML's pipelines wait on for a step that ends so.
pub const NOT_RESPONSIVE: &str = "Forced stop (non-responsive)";
/// The message of a task that its user wanted to end, and whose machine went before it could.
pub const STOPPED_AS_ASKED: &str = "Stopped as its user asked; its machine has gone";
/// What every reason of ours begins with.
pub const REASON: &str = "clearml-autoscaler: ";
/// The message of a task that was asked to stop and has not yet.
pub const STOPPING: &str = "stopping";
/// A task is put back so often at most.
pub const MOST_ATTEMPTS: u32 = 3;

/// A task's status, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// A draft.
    Created,
    /// Waits in a queue, or has left it and not begun.
    Queued,
    /// Runs, or so it was said last.
    #[default]
    InProgress,
    /// Ended before its end.
    Stopped,
    /// Completed, failed, closed, published.
    Ended,
}

/// A task that is in progress, has left its queue, or carries our tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Which.
    pub task: TaskId,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// When that began, by **the server's** clock.
    pub status_changed: Option<Time>,
    /// The last sign of life that the server has, by its clock.
    pub last_update: Option<Time>,
    /// The server's words for a user.
    pub status_message: String,
    /// The server's words for a machine.
    pub status_reason: String,
    /// The queue that it was put into last, if the server still has it.
    pub queue: Option<QueueName>,
    /// The worker that last reported it. Survives until a reset: it may be an older one.
    pub last_worker: Option<WorkerId>,
    /// Seconds that its abort callback may take, if it has one.
    pub abort_timeout: u32,
    /// What we have written on it.
    pub marks: Marks,
    /// The reads in a row that show it with this status, change and worker began then.
    pub unchanged_since: Time,
    /// A read of the queues that began then, and all since, lack it, although it is `queued`.
    pub out_since: Option<Time>,
}

/// What we write on a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Our tag is on it: something is under way.
    pub tagged: bool,
    /// Why it was interrupted.
    pub cause: Option<Cause>,
    /// Where it ran then.
    pub instance: Option<InstanceId>,
    /// Its abort callback is called, or about to be.
    pub aborting: bool,
    /// How often it was put back. Stays for good.
    pub attempts: u32,
    /// It is to be put back from the stop that changed its status then, by the server's clock, and from no other.
    pub stopped_at: Option<Time>,
    /// It is being reset, to be put back by this attempt: all that survives that is a tag.
    pub resetting: Option<u32>,
}

/// How a task lost its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// AWS took the spot instance back.
    Spot,
    /// The machine went for another reason.
    Gone,
    /// The machine lives, and the task does not.
    Stranded,
}

/// Which interrupted tasks are put back (`requeue_interrupted_tasks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequeueWhen {
    /// None.
    #[serde(rename = "none")]
    Never,
    /// Those that a spot interruption ended.
    #[default]
    Spot,
    /// Those that lost their machine, however.
    All,
}

/// What becomes of interrupted tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeue {
    /// Which are put back.
    pub when: RequeueWhen,
    /// They are reset before (`reset_requeued_tasks`): their events, outputs and draft models go.
    pub reset: bool,
}

impl Requeue {
    /// Whether a task that was interrupted so is put back.
    pub fn allows(&self, cause: Cause) -> bool {
        match self.when {
            RequeueWhen::Never => false,
            RequeueWhen::Spot => cause == Cause::Spot,
            RequeueWhen::All => true,
        }
    }
}

/// A text that names no choice of interrupted tasks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be spot, all or none, not {0:?}")]
pub struct NoRequeueWhen(pub String);

impl FromStr for RequeueWhen {
    type Err = NoRequeueWhen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_lowercase().as_str() {
            "none" => Ok(Self::Never),
            "spot" => Ok(Self::Spot),
            "all" => Ok(Self::All),
            _ => Err(NoRequeueWhen(text.to_owned())),
        }
    }
}

impl fmt::Display for RequeueWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "none",
            Self::Spot => "spot",
            Self::All => "all",
        })
    }
}

/// The state of a task that a step rests on: whoever carries it out looks again, and does nothing if it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its status.
    pub status: TaskStatus,
    /// When that began, by the server's clock.
    pub status_changed: Option<Time>,
    /// The worker that last reported it.
    pub last_worker: Option<WorkerId>,
}

/// One step, safe to repeat: what was done stands on the task, and the next look shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum TaskStep {
    /// Write down that it is being interrupted, and tag it.
    Note {
        /// Why.
        cause: Cause,
        /// Where it runs.
        instance: InstanceId,
        /// Its abort callback is called next.
        aborting: bool,
    },
    /// Ask it to stop by itself: its abort callback runs.
    Abort,
    /// Write its final status: nothing runs it any more.
    Stop {
        /// Why.
        cause: Cause,
        /// Where it ran.
        instance: InstanceId,
        /// Its user had asked for it: it is not the watchdog's business.
        as_asked: bool,
    },
    /// Count the attempt, before anything is put back.
    Claim {
        /// From 1.
        attempt: u32,
        /// The stop that it is put back from.
        stopped_at: Option<Time>,
        /// It is reset next: the attempt goes into a tag as well.
        reset: bool,
    },
    /// Reset it.
    Reset,
    /// Put it into this queue, first.
    Enqueue {
        /// Which.
        queue: QueueName,
        /// Why: for the log and the task's own record.
        why: PutBack,
    },
    /// All is done, or somebody else has taken over: tag and notes go, the count stays.
    Release {
        /// The count to leave.
        attempts: u32,
    },
}

/// Why a task is put into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutBack {
    /// It left its queue and started nowhere.
    Limbo,
    /// It lost its machine.
    Interrupted(Cause),
}

/// A machine that EC2, asked by id, calls terminated or stopped or does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When the read that first said so began.
    pub first_seen: Time,
    /// EC2's reason says that it took the spot instance back.
    pub by_spot: bool,
    /// EC2 has shown it to us as one of this fleet; else it may be somebody else's, elsewhere.
    pub was_ours: bool,
}

/// When a task may be touched, after it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// The last step ended then: only what was read later shows what came of it.
    pub at: Time,
    /// The next step may be taken then.
    pub not_before: Time,
}

/// What an instance's sidecar said last of the tasks there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Every task that a gate there holds.
    pub held: BTreeSet<TaskId>,
    /// When a report last said of every gate what it holds: none was asking, or in doubt, or not bound by its gate.
    pub settled_at: Option<Time>,
    /// Tasks of which processes or containers run there, whatever the gates say; `None` if nobody has looked.
    pub at_work: Option<BTreeSet<TaskId>>,
    /// AWS is about to take the instance back.
    pub notice: Option<Notice>,
}

/// AWS's notice of a spot interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it was first reported.
    pub seen_at: Time,
    /// When the instance is taken.
    pub ends_at: Time,
    /// The agents there are frozen and what they ran was killed.
    pub killed: bool,
}

impl TaskRef {
    /// What a step on it rests on.
    pub fn seen(&self) -> Seen {
        Seen {
            status: self.status,
            status_changed: self.status_changed,
            last_worker: self.last_worker.clone(),
        }
    }

    /// Whether its words say that we stopped it, or asked it to stop.
    pub fn is_by_us(&self) -> bool {
        self.status_reason.starts_with(REASON)
    }

    /// It was asked to stop, and not by us.
    pub fn is_stopping_for_its_user(&self) -> bool {
        self.status == TaskStatus::InProgress && self.status_message == STOPPING && !self.is_by_us()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spot => "spot interruption",
            Self::Gone => "machine gone",
            Self::Stranded => "stranded",
        })
    }
}

impl Cause {
    /// What became of the machine.
    pub fn in_words(self, instance: &InstanceId) -> String {
        match self {
            Self::Spot => format!("AWS took the spot instance {instance} back"),
            Self::Gone => format!("instance {instance} is gone"),
            Self::Stranded => format!("instance {instance} lives and does not run it"),
        }
    }

    /// The words that go into the task's own `status_reason`.
    pub fn reason(self, instance: &InstanceId) -> String {
        format!("{REASON}{}", self.in_words(instance))
    }
}
