//! The agent behind its shim: polls while the lease stands, holds the lock during a poll, writes what it got
//! before it releases it, and dies in any phase.

use std::collections::BTreeSet;
use std::time::Duration;

use planner::TaskId;
use sidecar::agent::Reading;

use super::World;
use super::clearml::Status;
use crate::scenario::SECOND;

/// Between two polls.
const POLL_EVERY: u64 = 5 * SECOND;

/// The shim's files, and the agent's process.
#[derive(Debug)]
pub(crate) struct Shim {
    /// The state file.
    pub(crate) reading: Reading,
    pub(crate) alive: bool,
    /// Its process is stopped for good.
    pub(crate) frozen: bool,
    /// The lock is held for a poll.
    pub(crate) locked: bool,
    /// The lease's end on the machine's clock.
    pub(crate) lease: Duration,
    idle_since: Duration,
    /// The task that it has.
    pub(crate) task: Option<usize>,
}

impl Default for Shim {
    fn default() -> Self {
        Self {
            reading: Reading::Absent,
            alive: false,
            frozen: false,
            locked: false,
            lease: Duration::ZERO,
            idle_since: Duration::ZERO,
            task: None,
        }
    }
}

/// What a poll gave.
#[derive(Clone, Copy)]
enum Popped {
    Nothing,
    Task(usize),
    Failed,
}

impl World {
    pub(crate) fn start_agent(&mut self, at: usize) {
        let now = self.boottime(at);
        let shim = &mut self.machines[at].shim;
        shim.alive = true;
        shim.idle_since = now;
        shim.reading = Reading::Idle { since: now };
        self.tell_machine(at, "agent up");
        self.worker_report(at);
        let delay = self.range(500, 4 * SECOND);
        self.after(delay, move |world| world.poll(at));
    }

    fn tell_machine(&self, at: usize, line: &str) {
        self.tell(|| format!("{} {line}", self.machines[at].id));
    }

    fn reaches_clearml(&self, at: usize) -> bool {
        self.now >= self.machines[at].no_clearml_until && self.now >= self.server.down_until
    }

    /// Every 30 s, and at once when a task starts.
    fn worker_report(&mut self, at: usize) {
        if !self.machines[at].shim.alive || self.machines[at].shim.frozen {
            return;
        }
        self.report_now(at);
        self.after(30 * SECOND, move |world| world.worker_report(at));
    }

    fn report_now(&mut self, at: usize) {
        if self.reaches_clearml(at) {
            let worker = self.machines[at].worker.clone();
            let task =
                self.machines[at].shim.task.filter(|task| self.server.tasks[*task].runs_on == Some(at));
            self.report_worker(&worker, task);
        }
    }

    fn poll(&mut self, at: usize) {
        let now = self.boottime(at);
        let shim = &mut self.machines[at].shim;
        if !shim.alive || shim.frozen {
            return;
        }
        if shim.lease <= now {
            // Closed: whatever was popped before is not held.
            match shim.reading {
                Reading::Busy { .. } => return self.ended(at),
                Reading::Unknown { .. } | Reading::Absent => {}
                Reading::Idle { .. } | Reading::Polling { .. } => {
                    shim.reading = Reading::Idle { since: shim.idle_since };
                }
            }
            return self.poll_later(at);
        }
        shim.locked = true;
        shim.reading = Reading::Polling { since: shim.idle_since };
        self.sidecar_event(at, None);
        if !self.reaches_clearml(at) {
            let delay = self.range(20, 10 * SECOND);
            return self.after(delay, move |world| world.polled(at, Popped::Failed));
        }
        let there = if self.rng.chance(0.02) { self.range(20, 4 * SECOND) } else { self.range(5, 120) };
        self.after(there, move |world| world.pop_effect(at));
    }

    fn pop_effect(&mut self, at: usize) {
        let queue = self.machines[at].queue.clone();
        if !self.machines[at].shim.alive && self.rng.chance(0.5) {
            return;
        }
        let Some(task) = self.pop(&queue) else {
            let back = self.range(5, 60);
            return self.after(back, move |world| world.polled(at, Popped::Nothing));
        };
        if !self.machines[at].shim.alive {
            return self.mislay(task, "the agent died during its poll");
        }
        if self.strikes(|luck| luck.pop_lost) {
            self.mislay(task, "the answer to a pop was lost");
            let delay = self.range(SECOND, 10 * SECOND);
            if self.rng.chance(0.5) {
                // The agent's HTTP layer asks again, and a pop is not idempotent.
                return self.after(delay, move |world| world.pop_effect(at));
            }
            return self.after(delay, move |world| world.polled(at, Popped::Failed));
        }
        self.server.tasks[task].holder = Some(at);
        self.machines[at].shim.task = Some(task);
        self.judge_popped(at, task);
        let back = self.range(5, 200);
        self.after(back, move |world| world.polled(at, Popped::Task(task)));
    }

    fn polled(&mut self, at: usize, popped: Popped) {
        let now = self.boottime(at);
        let shim = &mut self.machines[at].shim;
        if !shim.alive {
            return;
        }
        shim.locked = false;
        match popped {
            Popped::Nothing => {
                shim.reading = Reading::Idle { since: shim.idle_since };
                self.sidecar_event(at, None);
                self.poll_later(at);
            }
            Popped::Failed => {
                shim.reading = Reading::Unknown { since: now };
                self.sidecar_event(at, None);
                self.poll_later(at);
            }
            Popped::Task(task) => {
                let id = self.server.tasks[task].id.to_string();
                self.tell(|| format!("{} has {id}", self.machines[at].id));
                shim_busy(&mut self.machines[at].shim, id, now);
                self.sidecar_event(at, None);
                let delay = self.range(20, 120);
                self.after(delay, move |world| world.start_task(at, task));
            }
        }
    }

    fn poll_later(&mut self, at: usize) {
        self.after(POLL_EVERY, move |world| world.poll(at));
    }

    fn has(&self, at: usize, task: usize) -> bool {
        let shim = &self.machines[at].shim;
        shim.alive && !shim.frozen && shim.task == Some(task)
    }

    /// `tasks.started`, the worker's report, and the child.
    fn start_task(&mut self, at: usize, task: usize) {
        if !self.has(at, task) {
            return;
        }
        if !self.reaches_clearml(at) {
            if self.rng.chance(0.2) {
                self.mislay(task, "the agent gave up before the start");
                return self.ended(at);
            }
            return self.after(5 * SECOND, move |world| world.start_task(at, task));
        }
        if self.server.tasks[task].status != Status::Queued {
            self.server.tasks[task].holder = None;
            return self.ended(at);
        }
        self.set_status(task, Status::InProgress);
        if self.strikes(|luck| luck.start_fails) {
            // Its report went out before the second `tasks.started` failed.
            let worker = self.machines[at].worker.clone();
            self.report_worker(&worker, Some(task));
            self.mislay(task, "the agent failed to start it");
            return self.ended(at);
        }
        self.judge_started(at, task);
        self.server.tasks[task].runs_on = Some(at);
        self.report_now(at);
        let lasts = self.server.tasks[task].lasts;
        self.after(lasts, move |world| world.finish_task(at, task));
        self.after(5 * SECOND, move |world| world.watch_abort(at, task));
    }

    fn watch_abort(&mut self, at: usize, task: usize) {
        if !self.has(at, task) || self.server.tasks[task].runs_on != Some(at) {
            return;
        }
        if self.server.tasks[task].aborted && self.reaches_clearml(at) {
            self.set_status(task, Status::Stopped);
            self.release(task);
            return self.ended(at);
        }
        self.after(5 * SECOND, move |world| world.watch_abort(at, task));
    }

    fn finish_task(&mut self, at: usize, task: usize) {
        if !self.has(at, task) || self.server.tasks[task].runs_on != Some(at) {
            return;
        }
        if !self.reaches_clearml(at) {
            return self.after(5 * SECOND, move |world| world.finish_task(at, task));
        }
        self.tell(|| format!("{} done on {}", self.server.tasks[task].id, self.machines[at].id));
        self.set_status(task, Status::Completed);
        self.release(task);
        self.ended(at);
        if self.rng.chance(0.5) {
            self.report_now(at);
        }
    }

    fn release(&mut self, task: usize) {
        let task = &mut self.server.tasks[task];
        (task.holder, task.runs_on) = (None, None);
    }

    /// It holds nothing any more: idleness begins.
    fn ended(&mut self, at: usize) {
        let now = self.boottime(at);
        self.machines[at].useless_since = self.now;
        let shim = &mut self.machines[at].shim;
        shim.task = None;
        shim.idle_since = now;
        shim.reading = Reading::Idle { since: now };
        self.sidecar_event(at, None);
        let delay = self.range(100, SECOND);
        self.after(delay, move |world| world.poll(at));
    }

    /// The agent's process is gone, with whatever it had; its state file stays as it is.
    pub(crate) fn lose_agent(&mut self, at: usize, cause: &'static str) {
        let shim = &mut self.machines[at].shim;
        shim.alive = false;
        shim.locked = false;
        self.machines[at].useless_since = self.now;
        if let Some(task) = self.machines[at].shim.task.take()
            && self.server.tasks[task].holder == Some(at)
        {
            self.mislay(task, cause);
        }
    }

    /// Frozen, it writes nothing any more, and what it ran is killed.
    pub(crate) fn freeze_agent(&mut self, at: usize) {
        self.tell_machine(at, "agent frozen");
        self.machines[at].shim.frozen = true;
        if let Some(task) = self.machines[at].shim.task.take()
            && self.server.tasks[task].holder == Some(at)
        {
            self.mislay(task, "killed before its machine was taken back");
        }
    }

    /// Tasks whose program runs on the machine.
    pub(crate) fn at_work(&self, at: usize) -> BTreeSet<TaskId> {
        let task = self.machines[at].shim.task.filter(|task| self.server.tasks[*task].runs_on == Some(at));
        task.map(|task| self.server.tasks[task].id.clone()).into_iter().collect()
    }

    pub(crate) fn kill_agent(&mut self, at: usize) {
        if self.machines[at].shim.alive {
            self.tell_machine(at, "agent dies");
            self.lose_agent(at, "its agent died");
            self.sidecar_event(at, None);
        }
    }
}

fn shim_busy(shim: &mut Shim, task: String, now: Duration) {
    shim.reading = Reading::Busy { task: Some(task), since: now };
}
