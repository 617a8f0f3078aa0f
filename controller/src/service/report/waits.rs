//! How long tasks wait: from the first sight of a task in a queue of the budget until something runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::Published;
use planner::{QueueName, State, TaskId, Time};

/// A task that left its queue and is seen nowhere is forgotten after this: another worker has it, or its user.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tasks that wait, and how long those that started since the last sample had waited.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waiting: BTreeMap<TaskId, Seen>,
    started: BTreeMap<QueueName, Sample>,
}

#[derive(Clone, Debug)]
struct Seen {
    queue: QueueName,
    first: Time,
    /// When its queue no longer had it.
    left: Option<Time>,
}

/// The waits of the tasks that started since the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) count: u32,
    pub(super) sum: Duration,
    pub(super) longest: Duration,
}

impl Sample {
    pub(super) fn mean(&self) -> Duration {
        self.sum / self.count.max(1)
    }
}

impl Waits {
    /// Takes a pass in; the tasks that it shows started, with how long they had waited.
    pub(super) fn observe(&mut self, published: &Published) -> BTreeMap<TaskId, Duration> {
        let snapshot = &published.snapshot;
        let now = snapshot.now;
        let held = held(published);
        let mut listed: BTreeSet<&TaskId> = BTreeSet::new();
        for queue in published.policy.queues() {
            // What an instance holds waits no more: the queue was read before it was taken.
            let waiting = snapshot.queues.get(queue).into_iter().flatten();
            for task in waiting.filter(|task| !held.contains_key(task)) {
                listed.insert(task);
                match self.waiting.get_mut(task) {
                    Some(seen) if seen.queue == *queue => seen.left = None,
                    Some(_) | None => {
                        let seen = Seen { queue: queue.clone(), first: now, left: None };
                        self.waiting.insert(task.clone(), seen);
                    }
                }
            }
        }
        let mut started = BTreeMap::new();
        let running = self.running(published, held, &listed);
        for (task, at) in running {
            if let Some(Seen { queue, first, left: _ }) = self.waiting.remove(&task) {
                let wait = at.max(first).since(first);
                let sample = self.started.entry(queue).or_default();
                sample.count += 1;
                sample.sum += wait;
                sample.longest = sample.longest.max(wait);
                started.insert(task, wait);
            }
        }
        self.waiting.retain(|task, seen| {
            if listed.contains(task) {
                return true;
            }
            now.since(*seen.left.get_or_insert(now)) < PATIENCE
        });
        started
    }

    /// The waits since the last time, by queue.
    pub(super) fn sample(&mut self) -> BTreeMap<QueueName, Sample> {
        std::mem::take(&mut self.started)
    }

    /// For how long the task has waited that is longest in this queue.
    pub(super) fn oldest(&self, queue: &QueueName, now: Time) -> Option<Duration> {
        let waiting = self.waiting.values().filter(|seen| seen.queue == *queue && seen.left.is_none());
        waiting.map(|seen| now.since(seen.first)).max()
    }

    /// Tasks that waited, have left their queue, and are run by something now; and since when.
    fn running<'a>(
        &self,
        published: &'a Published,
        held: BTreeMap<&'a TaskId, Time>,
        listed: &BTreeSet<&TaskId>,
    ) -> Vec<(TaskId, Time)> {
        let snapshot = &published.snapshot;
        let mut running = held;
        let by_worker = snapshot.workers.values().filter_map(|worker| worker.task.as_ref());
        let in_progress = snapshot.running.iter().map(|task| &task.task);
        for task in by_worker.chain(in_progress) {
            running.entry(task).or_insert(snapshot.now);
        }
        let waited = |task: &TaskId| self.waiting.contains_key(task) && !listed.contains(task);
        running.into_iter().filter(|(task, _)| waited(task)).map(|(task, at)| (task.clone(), at)).collect()
    }
}

/// The tasks that instances say they hold, and since when.
fn held(published: &Published) -> BTreeMap<&TaskId, Time> {
    let snapshot = &published.snapshot;
    let busy = snapshot.instances.values().filter_map(|instance| match &instance.state {
        State::Busy { task: Some(task) } => Some((task, instance.since.min(snapshot.now))),
        State::Busy { task: None }
        | State::Requested
        | State::Pending
        | State::Booting { .. }
        | State::Idle
        | State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Terminating
        | State::Gone
        | State::Lost { .. } => None,
    });
    busy.collect()
}
