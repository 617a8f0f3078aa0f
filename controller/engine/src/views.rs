//! What each source said last, and how old that is. A failed read keeps the data and marks it stale.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::{Freshness, InstanceId, Loss, QueueName, Source, TaskId, Time};

use crate::ports::{CloudInstance, TaskList, Workers};

/// One source's data.
#[derive(Clone, Debug, Default)]
pub(crate) struct View<T> {
    pub(crate) data: T,
    /// When the read that gave the data began; `None` before the first.
    read_began_at: Option<Time>,
    /// The first of the reads that have failed since.
    failing_since: Option<Time>,
    /// How many of them.
    pub(crate) failures: u32,
}

impl<T> View<T> {
    /// A read that began at `began` gave this.
    pub(crate) fn succeed(&mut self, data: T, began: Time) {
        self.data = data;
        self.read_began_at = Some(began);
        self.failing_since = None;
        self.failures = 0;
    }

    /// A read that began at `began` gave nothing.
    pub(crate) fn fail(&mut self, began: Time) {
        self.failing_since.get_or_insert(began);
        self.failures = self.failures.saturating_add(1);
    }

    /// Its age, seen at `now`, if it was ever read. Data that nobody has renewed for `patience` is stale too.
    pub(crate) fn freshness(&self, now: Time, patience: Duration) -> Option<Freshness> {
        let read_began_at = self.read_began_at?;
        let overdue = read_began_at.after(patience);
        let stale_since = self.failing_since.or((now > overdue).then_some(overdue));
        Some(Freshness { read_began_at, stale_since })
    }

    /// When the last successful read began.
    pub(crate) fn read_began_at(&self) -> Option<Time> {
        self.read_began_at
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Views {
    pub(crate) queues: View<BTreeMap<QueueName, Vec<TaskId>>>,
    pub(crate) workers: View<Workers>,
    pub(crate) tasks: View<TaskList>,
    pub(crate) cloud: View<BTreeMap<InstanceId, CloudInstance>>,
    /// What EC2, asked by id, called gone.
    pub(crate) losses: BTreeMap<InstanceId, Loss>,
}

impl Views {
    /// How often a source has failed in a row.
    pub(crate) fn failures(&self, source: Source) -> u32 {
        match source {
            Source::Queues => self.queues.failures,
            Source::Workers => self.workers.failures,
            Source::Tasks => self.tasks.failures,
            Source::Cloud => self.cloud.failures,
        }
    }
}
