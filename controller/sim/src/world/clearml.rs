//! ClearML: queues whose pop leaves a task without an owner, tasks, and workers that stay listed.

use std::collections::{BTreeMap, VecDeque};

use engine::ports::{ClearMlError, TaskList, TaskScope};
use planner::{
    Marks, NOT_RESPONSIVE, QueueName, REASON, STOPPED_AS_ASKED, STOPPING, Seen, TaskId, TaskRef, TaskStatus,
    TaskStep, Time, Worker, WorkerId,
};

use super::{BASE, World};
use crate::scenario::SECOND;

/// How long a worker stays listed after its last report.
const WORKER_TIMEOUT: u64 = 600 * SECOND;

/// ClearML's words for where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    /// Also of one that was popped and not started.
    Queued,
    InProgress,
    Stopped,
    Completed,
}

/// A task, with what ClearML knows of it and what is so.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) queue: QueueName,
    pub(crate) lasts: u64,
    pub(crate) status: Status,
    /// When that began, and the last sign of life, by the server's clock.
    pub(crate) status_changed: u64,
    pub(crate) last_update: u64,
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) marks: Marks,
    pub(crate) last_worker: Option<WorkerId>,
    /// The machine whose agent has it, from the pop on.
    pub(crate) holder: Option<usize>,
    /// The machine on which its program runs.
    pub(crate) runs_on: Option<usize>,
    pub(crate) popped_at: Option<u64>,
    pub(crate) aborted: bool,
    /// Why nobody has it any more: bad luck that no controller could prevent.
    pub(crate) cause: Option<&'static str>,
}

impl Task {
    /// As the server tells of it.
    fn seen_by_readers(&self) -> TaskRef {
        TaskRef {
            task: self.id.clone(),
            status: match self.status {
                Status::Created => TaskStatus::Created,
                Status::Queued => TaskStatus::Queued,
                Status::InProgress => TaskStatus::InProgress,
                Status::Stopped => TaskStatus::Stopped,
                Status::Completed => TaskStatus::Ended,
            },
            status_changed: Some(Time(self.status_changed)),
            last_update: Some(Time(self.last_update)),
            status_message: self.message.clone(),
            status_reason: self.reason.clone(),
            queue: Some(self.queue.clone()),
            last_worker: self.last_worker.clone(),
            marks: self.marks.clone(),
            ..TaskRef::default()
        }
    }
}

#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) task: Option<TaskId>,
    pub(crate) reported_at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) tasks: Vec<Task>,
    pub(crate) queues: BTreeMap<QueueName, VecDeque<usize>>,
    pub(crate) workers: BTreeMap<WorkerId, Listed>,
    /// Nobody reaches it until then.
    pub(crate) down_until: u64,
}

impl Server {
    pub(crate) fn waiting(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }
}

impl World {
    /// A user makes a task and enqueues it.
    pub(crate) fn enqueue_new(&mut self, queue: &QueueName, lasts: u64) {
        let at = self.server.tasks.len();
        let id = TaskId(format!("task-{at:04}"));
        self.tell(|| format!("{id} for {queue}, {} s", lasts / SECOND));
        self.server.tasks.push(Task {
            id,
            queue: queue.clone(),
            lasts,
            status: Status::Queued,
            status_changed: BASE + self.now,
            last_update: BASE + self.now,
            message: String::new(),
            reason: String::new(),
            marks: Marks::default(),
            last_worker: None,
            holder: None,
            runs_on: None,
            popped_at: None,
            aborted: false,
            cause: None,
        });
        self.server.queues.entry(queue.clone()).or_default().push_back(at);
    }

    /// `queues.get_next_task`.
    pub(crate) fn pop(&mut self, queue: &QueueName) -> Option<usize> {
        let task = self.server.queues.get_mut(queue)?.pop_front()?;
        self.server.tasks[task].popped_at = Some(self.now);
        Some(task)
    }

    /// The task is nobody's now, and whose fault that is not.
    pub(crate) fn mislay(&mut self, task: usize, cause: &'static str) {
        let id = &self.server.tasks[task].id;
        self.tell(|| format!("{id} is nobody's: {cause}"));
        let task = &mut self.server.tasks[task];
        task.holder = None;
        task.runs_on = None;
        task.cause.get_or_insert(cause);
    }

    /// `workers.status_report`.
    pub(crate) fn report_worker(&mut self, worker: &WorkerId, task: Option<usize>) {
        let now = self.now;
        let id = task.map(|task| self.server.tasks[task].id.clone());
        if let Some(task) = task {
            self.server.tasks[task].last_worker = Some(worker.clone());
            self.server.tasks[task].last_update = BASE + now;
        }
        self.server.workers.insert(worker.clone(), Listed { task: id, reported_at: now });
    }

    pub(crate) fn list_queues(&self) -> BTreeMap<QueueName, Vec<TaskId>> {
        let ids =
            |tasks: &VecDeque<usize>| tasks.iter().map(|task| self.server.tasks[*task].id.clone()).collect();
        self.server.queues.iter().map(|(queue, tasks)| (queue.clone(), ids(tasks))).collect()
    }

    pub(crate) fn list_workers(&mut self) -> BTreeMap<WorkerId, Worker> {
        let now = self.now;
        self.server.workers.retain(|_, listed| now - listed.reported_at < WORKER_TIMEOUT);
        self.server
            .workers
            .iter()
            .map(|(id, listed)| (id.clone(), Worker { task: listed.task.clone() }))
            .collect()
    }

    /// What runs, what carries the tag, and what the scope asks for; `offset` is the reader's clock's.
    pub(crate) fn list_tasks(&self, scope: &TaskScope, offset: i64) -> TaskList {
        let since = scope.queued_since.map(|since| since.0.saturating_add_signed(-offset));
        let wanted = |task: &&Task| {
            task.status == Status::InProgress
                || task.marks.tagged
                || (task.status == Status::Queued && since.is_none_or(|since| task.status_changed >= since))
                || scope.ids.contains(&task.id)
        };
        let tasks = self.server.tasks.iter().filter(wanted).map(Task::seen_by_readers).collect();
        TaskList { tasks, server_ahead_ms: Some(-offset) }
    }

    /// A task enters a status.
    pub(crate) fn set_status(&mut self, task: usize, status: Status) {
        let now = BASE + self.now;
        let task = &mut self.server.tasks[task];
        (task.status, task.status_changed, task.last_update) = (status, now, now);
        if status == Status::InProgress {
            task.message.clear();
            task.reason.clear();
        }
    }

    /// A step of the controller's with a task, if it is still as it was seen.
    pub(crate) fn take_step(
        &mut self,
        id: &TaskId,
        seen: &Seen,
        step: &TaskStep,
    ) -> Result<(), ClearMlError> {
        let refused = |why: &str| Err(ClearMlError::Refused(why.to_owned()));
        let Some(at) = self.server.tasks.iter().position(|task| task.id == *id) else {
            return refused("no such task");
        };
        if self.server.tasks[at].seen_by_readers().seen() != *seen {
            return refused("it has changed");
        }
        self.judge_step(at, step);
        self.tell(|| step.describe(id));
        let task = &mut self.server.tasks[at];
        match step {
            TaskStep::Note { cause, instance, aborting } => {
                task.marks.tagged = true;
                task.marks.cause = Some(*cause);
                task.marks.instance = Some(instance.clone());
                task.marks.aborting = *aborting;
                task.marks.stopped_at = None;
            }
            TaskStep::Abort => {
                STOPPING.clone_into(&mut task.message);
                task.reason = format!("{REASON}interrupted");
            }
            TaskStep::Stop { cause, instance, as_asked } => {
                task.message = if *as_asked { STOPPED_AS_ASKED } else { NOT_RESPONSIVE }.to_owned();
                task.reason = cause.reason(instance);
                self.set_status(at, Status::Stopped);
            }
            TaskStep::Claim { attempt, stopped_at, reset } => {
                task.marks.attempts = *attempt;
                task.marks.stopped_at = *stopped_at;
                task.marks.resetting = reset.then_some(*attempt);
            }
            TaskStep::Reset => self.set_status(at, Status::Created),
            TaskStep::Enqueue { queue, why: _ } => {
                let entries = self.server.queues.entry(queue.clone()).or_default();
                if entries.contains(&at) {
                    return refused("it waits already");
                }
                entries.push_front(at);
                let task = &mut self.server.tasks[at];
                (task.holder, task.runs_on, task.popped_at, task.cause) = (None, None, None, None);
                self.set_status(at, Status::Queued);
            }
            TaskStep::Release { attempts } => {
                task.marks = Marks { attempts: *attempts, ..Marks::default() };
            }
        }
        Ok(())
    }

    /// A user aborts what runs, or takes what waits out of its queue.
    pub(crate) fn user_act(&mut self) {
        let at = usize::try_from(self.range(0, self.server.tasks.len() as u64)).unwrap_or(0);
        let Some(task) = self.server.tasks.get_mut(at) else { return };
        let id = task.id.clone();
        match task.status {
            Status::InProgress => {
                task.aborted = true;
                // With a live worker it is asked to stop; with nobody on it, the server stops it at once.
                let listed =
                    task.last_worker.as_ref().is_some_and(|worker| self.server.workers.contains_key(worker));
                task.message = if listed { STOPPING } else { "" }.to_owned();
                task.reason = "user abort".to_owned();
                if !listed {
                    self.set_status(at, Status::Stopped);
                }
                self.tell(|| format!("user aborts {id}"));
            }
            Status::Queued => {
                let queue = task.queue.clone();
                let Some(entries) = self.server.queues.get_mut(&queue) else { return };
                if let Some(place) = entries.iter().position(|entry| *entry == at) {
                    entries.remove(place);
                    self.set_status(at, Status::Created);
                    self.server.tasks[at].aborted = true;
                    self.tell(|| format!("user dequeues {id}"));
                }
            }
            Status::Created | Status::Stopped | Status::Completed => {}
        }
    }
}
