//! The schema of `history --json`: what was done to the fleet, and why.

use planner::{InstanceId, OrderKind, QueueName, ResourceName, TaskId, Time};
use serde::{Deserialize, Serialize};

/// The answer to `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// From when on, milliseconds since the Unix epoch; nothing is kept for longer than 30 days.
    pub since: Time,
    /// Oldest first; of more than asked for, the newest.
    pub events: Vec<Event>,
    /// Older ones within the time that are not among them.
    pub omitted: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since the Unix epoch.
    pub at: Time,
    /// What.
    pub kind: EventKind,
    /// To which instances.
    pub instances: Vec<InstanceId>,
    /// Which resource it concerns, if one.
    pub resource: Option<ResourceName>,
    /// Which queue it concerns, if one.
    pub queue: Option<QueueName>,
    /// Which task it concerns, if one.
    pub task: Option<TaskId>,
    /// Why, in words; one line.
    pub reason: String,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// EC2 gave instances.
    Launched,
    /// EC2 refused a launch.
    Refused,
    /// EC2's answer to a launch was lost; it is asked for again.
    Unanswered,
    /// Told to close its gate.
    Drain,
    /// Would not close its gate.
    DrainRefused,
    /// Told to open its gate again.
    Undrain,
    /// Told to close its gate for good.
    Retire,
    /// Told EC2 to end it.
    Terminated,
    /// It should be reporting and is not.
    Lost,
    /// Its machine has gone.
    Gone,
    /// Its worker's entry was removed from ClearML.
    Unregistered,
    /// A task was stopped, put back or marked.
    Task,
}

impl EventKind {
    /// As it is written in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Launched => "launched",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Drain => "drain",
            Self::DrainRefused => "drain_refused",
            Self::Undrain => "undrain",
            Self::Retire => "retire",
            Self::Terminated => "terminated",
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Unregistered => "unregistered",
            Self::Task => "task",
        }
    }

    /// The kind of an order's event.
    pub(crate) fn of_order(kind: OrderKind) -> Self {
        match kind {
            OrderKind::Drain | OrderKind::Finish => Self::Drain,
            OrderKind::Undrain => Self::Undrain,
            OrderKind::Retire => Self::Retire,
        }
    }
}

impl Event {
    /// Something that happened now, to nothing in particular yet.
    pub fn new(at: Time, kind: EventKind, reason: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            instances: Vec::new(),
            resource: None,
            queue: None,
            task: None,
            reason: reason.into(),
        }
    }

    /// The same, to these instances.
    #[must_use]
    pub fn of_instances<'a>(mut self, ids: impl IntoIterator<Item = &'a InstanceId>) -> Self {
        self.instances.extend(ids.into_iter().cloned());
        self
    }

    /// The same, in this pool.
    #[must_use]
    pub fn in_pool(mut self, resource: &ResourceName, queue: &QueueName) -> Self {
        self.resource = Some(resource.clone());
        self.queue = Some(queue.clone());
        self
    }

    /// The same, about this task.
    #[must_use]
    pub fn about(mut self, task: &TaskId) -> Self {
        self.task = Some(task.clone());
        self
    }
}
