//! What the checks add up from the snapshot, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{IntentId, QueueName, ResourceName, TaskId};
use crate::plan::OrderKind;
use crate::policy::{Policy, Pool};
use crate::snapshot::{Answer, Instance, Snapshot, Source, State};
use crate::task::{Cause, REASON, RequeueWhen, TaskRef, TaskStatus};

pub(super) struct Sums<'a> {
    snapshot: &'a Snapshot,
    resources: BTreeMap<&'a ResourceName, Sum<'a>>,
    /// Tasks that an instance took after the queues were read.
    held: BTreeMap<&'a QueueName, BTreeSet<&'a TaskId>>,
    /// Tasks that come back to their queue from an interrupted instance.
    returning: BTreeMap<&'a QueueName, u64>,
    /// Instances of each open launch.
    shown: BTreeMap<&'a IntentId, u64>,
}

/// The sums of one resource of the budget.
struct Sum<'a> {
    pool: &'a Pool,
    /// Instances that count, and those that open launches may bring.
    counted: u64,
    /// Those of them that never showed whether they boot.
    unready: u64,
    /// Instances for the pool's queue that nothing has told to go.
    staying: u64,
    /// Idle instances for the pool's queue.
    idle: u64,
}

impl<'a> Sums<'a> {
    pub(super) fn of(policy: &'a Policy, snapshot: &'a Snapshot) -> Self {
        let sum =
            |pool: &'a Pool| (&pool.resource, Sum { pool, counted: 0, unready: 0, staying: 0, idle: 0 });
        let mut sums = Self {
            snapshot,
            resources: policy.pools.iter().rev().map(sum).collect(),
            held: BTreeMap::new(),
            returning: returning(policy, snapshot),
            shown: BTreeMap::new(),
        };
        for (id, instance) in &snapshot.instances {
            sums.add(instance, snapshot.is_drained_by_operator(id, instance));
        }
        for (id, intent) in &snapshot.intents {
            let open = match &intent.answered {
                None => u64::from(intent.count).saturating_sub(sums.shown(id)),
                Some(ids) => ids
                    .iter()
                    .filter(|id| !snapshot.instances.contains_key(*id) && !snapshot.proven_gone.contains(*id))
                    .count() as u64,
            };
            if let Some(sum) = sums.resources.get_mut(&intent.resource) {
                sum.counted += open;
                sum.unready += open;
            }
        }
        sums
    }

    fn add(&mut self, instance: &'a Instance, drained_by_operator: bool) {
        if let Some(sum) = self.resources.get_mut(&instance.resource) {
            sum.counted += u64::from(instance.counts());
            if sum.pool.queue == instance.queue && !drained_by_operator {
                sum.unready += u64::from(instance.is_coming() && instance.ready_at.is_none());
                sum.staying += u64::from(is_staying(self.snapshot, instance));
                sum.idle +=
                    u64::from(instance.state == State::Idle && !is_taken_back(self.snapshot, instance));
            }
        }
        if let Some(intent) = &instance.intent
            && self.snapshot.intents.contains_key(intent)
        {
            *self.shown.entry(intent).or_default() += 1;
        }
        let read_began = self.snapshot.freshness.get(&Source::Queues).map(|age| age.read_began_at);
        if let State::Busy { task: Some(task) } = &instance.state
            && read_began.is_some_and(|began| instance.since >= began)
        {
            self.held.entry(&instance.queue).or_default().insert(task);
        }
    }

    /// The pool of a resource.
    pub(super) fn pool(&self, resource: &ResourceName) -> Option<&'a Pool> {
        self.resources.get(resource).map(|sum| sum.pool)
    }

    /// Whether the budget has this instance's resource for the queue that it serves.
    pub(super) fn is_of_the_budget(&self, instance: &Instance) -> bool {
        self.pool(&instance.resource).is_some_and(|pool| pool.queue == instance.queue)
    }

    /// Instances of a resource, those that open launches may bring included.
    pub(super) fn counted(&self, resource: &ResourceName) -> u64 {
        self.resources.get(resource).map_or(0, |sum| sum.counted)
    }

    /// Instances of a resource that have not shown yet whether they boot.
    pub(super) fn unready(&self, resource: &ResourceName) -> u64 {
        self.resources.get(resource).map_or(0, |sum| sum.unready)
    }

    /// Instances of a pool that nothing has told to go, beyond its maximum.
    pub(super) fn excess(&self, resource: &ResourceName, reopened: u64) -> u64 {
        let excess = |sum: &Sum<'_>| (sum.staying + reopened).saturating_sub(u64::from(sum.pool.maximum));
        self.resources.get(resource).map_or(0, excess)
    }

    /// Idle instances by the queue of their pools.
    pub(super) fn idle_by_queue(&self) -> BTreeMap<&'a QueueName, u64> {
        let mut idle = BTreeMap::new();
        for sum in self.resources.values() {
            *idle.entry(&sum.pool.queue).or_default() += sum.idle;
        }
        idle
    }

    /// Instances that an open launch has brought so far.
    pub(super) fn shown(&self, intent: &IntentId) -> u64 {
        self.shown.get(intent).copied().unwrap_or(0)
    }

    /// Tasks of a queue that wait and that no instance has taken since; none if the server does not list it.
    pub(super) fn waiting(&self, queue: &QueueName) -> u64 {
        let held = self.held.get(queue);
        let waits = |task: &&TaskId| held.is_none_or(|held| !held.contains(*task));
        self.snapshot.queues.get(queue).map_or(0, |tasks| tasks.iter().filter(waits).count() as u64)
    }

    /// The same and those that an interruption may bring back to it: as many as there is any ground to launch for.
    pub(super) fn waiting_soon(&self, queue: &QueueName) -> u64 {
        let listed = self.snapshot.queues.contains_key(queue);
        let returning = self.returning.get(queue).copied().filter(|_| listed).unwrap_or(0);
        self.waiting(queue) + returning
    }
}

/// Tasks that a spot interruption is taking from their instance, or has taken, and that are put back.
fn returning<'a>(policy: &Policy, snapshot: &'a Snapshot) -> BTreeMap<&'a QueueName, u64> {
    let mut returning: BTreeMap<&QueueName, u64> = BTreeMap::new();
    if policy.requeue.when == RequeueWhen::Never {
        return returning;
    }
    let taken: Vec<_> = snapshot
        .instances
        .iter()
        .filter(|(id, instance)| instance.word.notice.is_some() && !snapshot.proven_gone.contains(*id))
        .map(|(_, instance)| &instance.word.held)
        .collect();
    let held = |task: &TaskRef| taken.iter().filter(|held| held.contains(&task.task)).count() as u64;
    let wanted = |task: &&TaskRef| {
        let aborted = task.status_message == "stopping" && !task.status_reason.starts_with(REASON);
        task.marks.attempts < 3 && !aborted
    };
    let running = if taken.is_empty() { &[][..] } else { &snapshot.running[..] };
    let running = running.iter().filter(wanted).map(|task| (task, held(task)));
    let stopped = snapshot.marked.iter().filter(|task| {
        let listed = snapshot.queues.values().any(|waiting| waiting.contains(&task.task));
        let spot = task.marks.cause == Some(Cause::Spot) && task.marks.tagged;
        task.status == TaskStatus::Stopped && spot && !listed
    });
    for (task, count) in running.chain(stopped.map(|task| (task, 1))).filter(|(_, count)| *count > 0) {
        if let Some(queue) = &task.queue {
            *returning.entry(queue).or_default() += count;
        }
    }
    returning
}

/// AWS has said so, and its time is not long past.
fn is_taken_back(snapshot: &Snapshot, instance: &Instance) -> bool {
    let notice = instance.word.notice;
    notice.is_some_and(|notice| snapshot.now.since(notice.ends_at) < Duration::from_secs(300))
}

pub(super) fn is_staying(snapshot: &Snapshot, instance: &Instance) -> bool {
    if is_taken_back(snapshot, instance) {
        return false;
    }
    match instance.state {
        State::Requested | State::Pending | State::Booting { .. } | State::Idle | State::Busy { .. } => true,
        // Only if it is about to open its gate again.
        State::Drained => instance.last_order.as_ref().is_some_and(|(order, _, answer)| {
            order.epoch == snapshot.epoch
                && order.kind == OrderKind::Undrain
                && matches!(answer, Answer::Awaited | Answer::Done)
        }),
        State::Draining
        | State::Retiring
        | State::Retired
        | State::Terminating
        | State::Gone
        | State::Lost { .. } => false,
    }
}
