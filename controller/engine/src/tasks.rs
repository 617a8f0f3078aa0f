//! What this run remembers of tasks: since when reads agree on one, since when its queue lacks it, and when
//! it was touched.
//!
//! A server may hold ten thousand waiting tasks, of which none is our concern. So only those are read that
//! may have left their queue: what the last two reads of the queues differ by, and what was enqueued so
//! lately that it may have come and gone between them. Now and then, all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use planner::{QueueName, Seen, TaskId, TaskRef, TaskStatus, Time, Touch};

use crate::ports::{TaskList, TaskScope};
use crate::read::Read;
use crate::views::Views;

/// All waiting tasks are read so often: a net below the net.
const ALL_EVERY: Duration = Duration::from_secs(600);
/// How far back a read reaches beyond the one before: for clocks that differ and reads that take long.
const OVERLAP: Duration = Duration::from_secs(60);
/// After the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A touch is forgotten after this.
const REMEMBERED: Duration = Duration::from_secs(3600);

type Queues = BTreeMap<QueueName, Vec<TaskId>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TaskMemory {
    /// Tasks that have left their queue and are not known to run.
    departed: BTreeSet<TaskId>,
    /// Those of them that the read in flight asks for.
    asked: BTreeSet<TaskId>,
    /// The read in flight asks for all.
    asks_all: Option<Time>,
    all_at: Option<Time>,
    read_at: Option<Time>,
    /// The last read of the tasks was there then.
    arrived_at: Option<Time>,
    unchanged: BTreeMap<TaskId, (Seen, Time)>,
    /// Queued tasks that no queue lists, with the status that this was seen for.
    out: BTreeMap<TaskId, (Option<Time>, Time)>,
    touched: BTreeMap<TaskId, (Touch, u32)>,
}

/// Tasks by what they are to the planner.
pub(crate) struct Sorted {
    pub(crate) running: Vec<TaskRef>,
    pub(crate) unplaced: Vec<TaskRef>,
    pub(crate) marked: Vec<TaskRef>,
}

impl TaskMemory {
    /// What the next read is to show.
    pub(crate) fn scope(&mut self, now: Time) -> TaskScope {
        let all = self.all_at.is_none_or(|at| now.since(at) >= ALL_EVERY);
        self.asks_all = all.then_some(now);
        self.asked.clone_from(&self.departed);
        let back = |at: Time| Time(at.0.saturating_sub(u64::try_from(OVERLAP.as_millis()).unwrap_or(0)));
        TaskScope {
            queued_since: if all { None } else { self.read_at.map(back) },
            ids: if all { BTreeSet::new() } else { self.asked.clone() },
        }
    }

    /// What the queues held before a read of them replaces it.
    pub(crate) fn waiting(&self, queues: &Queues, read: &Read) -> Queues {
        if read.is_of_queues() { queues.clone() } else { Queues::new() }
    }

    /// The queues were read.
    pub(crate) fn queues_read(&mut self, before: Queues, views: &Views) {
        let queues = &views.queues.data;
        let Some(began) = views.queues.read_began_at() else { return };
        let suspects = |task: &&TaskRef| task.status == TaskStatus::Queued;
        let queued: Vec<&TaskRef> = views.tasks.data.tasks.iter().filter(suspects).collect();
        if before == *queues && queued.is_empty() {
            return;
        }
        let listed: HashSet<&TaskId> = queues.values().flatten().collect();
        self.departed.extend(before.into_values().flatten().filter(|task| !listed.contains(task)));
        // A task may have been enqueued between the two reads, if this one began first.
        if self.arrived_at.is_none_or(|arrived| began < arrived) {
            return;
        }
        for task in queued {
            if listed.contains(&task.task) {
                self.out.remove(&task.task);
            } else {
                let fresh = (task.status_changed, began);
                let entry = self.out.entry(task.task.clone()).or_insert_with(|| fresh);
                if entry.0 != task.status_changed {
                    *entry = fresh;
                }
            }
        }
    }

    /// The tasks were read.
    pub(crate) fn tasks_read(&mut self, views: &mut Views, now: Time) {
        let Some(began) = views.tasks.read_began_at() else { return };
        self.read_at = Some(began);
        self.arrived_at = Some(now);
        if let Some(asked) = self.asks_all.take() {
            self.all_at = Some(asked);
        }
        let listed: HashSet<&TaskId> = views.queues.data.values().flatten().collect();
        let TaskList { tasks, .. } = &mut views.tasks.data;
        // What waits in its queue is nobody's concern, unless it carries our tag.
        tasks.retain(|task| {
            task.status != TaskStatus::Queued || task.marks.tagged || !listed.contains(&task.task)
        });
        let known = std::mem::take(&mut self.unchanged);
        for task in tasks.iter_mut() {
            let seen = task.seen();
            task.unchanged_since = match known.get(&task.task) {
                Some((before, since)) if *before == seen => *since,
                Some(_) | None => began,
            };
            self.unchanged.insert(task.task.clone(), (seen, task.unchanged_since));
        }
        let queued: BTreeMap<&TaskId, Option<Time>> = tasks
            .iter()
            .filter(|task| task.status == TaskStatus::Queued)
            .map(|task| (&task.task, task.status_changed))
            .collect();
        self.out.retain(|task, (changed, _)| queued.get(task) == Some(changed));
        let asked = std::mem::take(&mut self.asked);
        self.departed.retain(|task| !asked.contains(task));
        self.departed.extend(queued.keys().map(|task| (*task).clone()));
        self.touched.retain(|_, (touch, _)| now.since(touch.not_before) < REMEMBERED);
    }

    /// A step was taken with a task, or failed; how long it is then left alone.
    pub(crate) fn stepped(&mut self, task: &TaskId, done: bool, at: Time) -> Duration {
        let failures = match self.touched.get(task) {
            Some((_, failures)) if !done => failures.saturating_add(1),
            Some(_) | None => u32::from(!done),
        };
        let pause = match failures {
            0 => Duration::ZERO,
            _ => PAUSE.saturating_mul(1 << (failures - 1).min(6)).min(LONGEST_PAUSE),
        };
        self.touched.insert(task.clone(), (Touch { at, not_before: at.after(pause) }, failures));
        pause
    }

    /// When tasks that were touched may be touched again.
    pub(crate) fn touched(&self) -> BTreeMap<TaskId, Touch> {
        self.touched.iter().map(|(task, (touch, _))| (task.clone(), *touch)).collect()
    }

    /// The tasks of the last read, by what they are to the planner.
    pub(crate) fn sorted(&self, list: &TaskList) -> Sorted {
        let mut sorted = Sorted { running: Vec::new(), unplaced: Vec::new(), marked: Vec::new() };
        for task in &list.tasks {
            match task.status {
                TaskStatus::InProgress => sorted.running.push(task.clone()),
                TaskStatus::Queued => match self.out.get(&task.task) {
                    Some((_, out)) => {
                        sorted.unplaced.push(TaskRef { out_since: Some(*out), ..task.clone() });
                    }
                    None if task.marks.tagged => sorted.marked.push(task.clone()),
                    None => {}
                },
                TaskStatus::Created | TaskStatus::Stopped | TaskStatus::Ended if task.marks.tagged => {
                    sorted.marked.push(task.clone());
                }
                TaskStatus::Created | TaskStatus::Stopped | TaskStatus::Ended => {}
            }
        }
        sorted
    }
}
