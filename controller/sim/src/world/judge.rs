//! The invariants, by what is so and not by what the controller believes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::ports::Launch;
use planner::{
    InstanceId, IntentId, OrderKind, Policy, ResourceName, ShutdownAction, Source, TaskStep, WorkerId,
};
use serde::{Deserialize, Serialize};
use sidecar::agent::{Answer, Order, OrderKind as Told, Outcome, Standing};

use super::World;
use super::clearml::Status;
use super::machine::{Ender, Fortune, Machine};
use crate::scenario::{MINUTE, SECOND};

/// A policy is in force for launches that were planned so long after it was replaced.
const REPLACED: u64 = 3 * SECOND;
/// Violations kept of one seed.
const KEPT: usize = 5;

/// Something that must never be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which invariant.
    pub invariant: String,
    /// When, in milliseconds of the seed's time.
    pub at: u64,
    /// What was so.
    pub detail: String,
}

/// How a source was last read, by the run that lives.
#[derive(Debug, Default)]
struct Looked {
    began: Option<u64>,
    failing: bool,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) broken: Vec<Broken>,
    pub(crate) drains: u64,
    pub(crate) launches: u64,
    pub(crate) streams: u64,
    looked: BTreeMap<Source, Looked>,
    limits: BTreeMap<IntentId, u32>,
}

impl World {
    pub(crate) fn broken(&mut self, invariant: &str, detail: String) {
        self.tell(|| format!("VIOLATION {invariant}: {detail}"));
        if self.judge.broken.len() < KEPT {
            self.judge.broken.push(Broken { invariant: invariant.to_owned(), at: self.now, detail });
        }
    }

    fn require(&mut self, holds: bool, invariant: &str, detail: impl FnOnce(&World) -> String) {
        if !holds {
            let detail = detail(self);
            self.broken(invariant, detail);
        }
    }

    /// A new run of the controller has read nothing.
    pub(crate) fn judge_run(&mut self) {
        self.judge.looked.clear();
    }

    pub(crate) fn judge_read(&mut self, source: Source, began: u64, good: bool) {
        let looked = self.judge.looked.entry(source).or_default();
        looked.failing = !good;
        if good {
            looked.began = Some(began);
        }
    }

    fn is_fresh(&self, source: Source, patience: u64) -> bool {
        self.judge.looked.get(&source).is_some_and(|looked| {
            !looked.failing && looked.began.is_some_and(|began| self.now <= began + patience)
        })
    }

    fn has_adopted(&self) -> bool {
        [Source::Queues, Source::Workers, Source::Cloud]
            .iter()
            .all(|source| self.judge.looked.get(source).is_some_and(|looked| looked.began.is_some()))
    }

    /// Policies that a call of now may have been planned by.
    fn policies_in_force(&self) -> impl Iterator<Item = &Policy> {
        let lately = self.policies.iter().filter(|(until, _)| self.now <= until + REPLACED);
        lately.map(|(_, policy)| policy).chain([&self.policy])
    }

    fn maximum(&self, resource: &ResourceName) -> u32 {
        let of = |policy: &Policy| {
            policy.pools.iter().find(|pool| pool.resource == *resource).map_or(0, |pool| pool.maximum)
        };
        self.policies_in_force().map(of).max().unwrap_or(0)
    }

    fn says(&self, action: Option<ShutdownAction>) -> bool {
        self.policies_in_force().any(|policy| policy.shutdown == action)
    }

    pub(crate) fn judge_launch_sent(&mut self, launch: &Launch) {
        let (now, run) = (self.now, &self.controller);
        let leased = run.lease || now < run.lease_lost_at + REPLACED;
        let waited = !run.journal_is_new || now + 100 >= run.began + MINUTE;
        let adopted = self.has_adopted();
        self.require(adopted, "adoption", |_| format!("{} is launched before all was read", launch.intent));
        self.require(leased, "lease", |_| format!("{} is launched without the lease", launch.intent));
        self.require(waited, "new journal", |_| format!("{} is launched too soon", launch.intent));
        let wanted = self.says(None);
        self.require(wanted, "shutdown", |_| format!("{} is launched at the end", launch.intent));
        let maximum = self.maximum(&launch.resource);
        self.judge.limits.insert(launch.intent.clone(), maximum);
    }

    pub(crate) fn judge_launched(&mut self, launch: &Launch, ids: &BTreeSet<InstanceId>) {
        let live = self
            .machines
            .iter()
            .filter(|machine| machine.ours && !machine.has_ended() && machine.resource == launch.resource);
        let count = live.count();
        let maximum = self.judge.limits.get(&launch.intent).copied().unwrap_or(0);
        self.require(count <= maximum as usize, "maximum", |_| {
            format!("{count} instances of {}, {maximum} at most, with {}", launch.resource, launch.intent)
        });
        let times = self.region.brought.get(&launch.intent).copied().unwrap_or(0);
        self.require(times <= 1, "launched once", |_| {
            format!("{} brought instances {times} times, now {ids:?}", launch.intent)
        });
    }

    pub(crate) fn judge_terminate_sent(&mut self, ids: &[InstanceId]) {
        let adopted = self.has_adopted();
        self.require(adopted, "adoption", |_| format!("{ids:?} are ended before all was read"));
        if self.says(Some(ShutdownAction::All)) {
            return;
        }
        let fresh = self.is_fresh(Source::Workers, 41 * SECOND) && self.is_fresh(Source::Tasks, 61 * SECOND);
        self.require(fresh, "stale input", |_| format!("{ids:?} are ended by it"));
        for id in ids {
            let right = self.machine_of(id).is_some_and(|at| self.may_be_ended(at));
            self.require(right, "right to end", |_| format!("{id} is ended by none"));
        }
    }

    /// Retired; or never ready past its limit; or silent past its deadline, or its agent dead.
    fn may_be_ended(&self, at: usize) -> bool {
        let machine = &self.machines[at];
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // By the controller's clock against EC2's, or by the right one.
        let told = self.controller_time().since(self.cloud_time(machine.launched_at));
        let age = told.max(Duration::from_millis(self.now - machine.launched_at));
        let never_ready = !machine.reported_ready && age >= self.policy.max_spin_up;
        let deadline = millis(self.policy.max_idle + self.policy.silent_grace);
        let silent = self.now + SECOND >= machine.heard_at.unwrap_or(0) + deadline;
        let dead = machine.reported_ready && !machine.shim.alive;
        let retired = self.is_retired(at) || machine.said_retired;
        // Nothing accounts for it, and its agent was never up.
        let orphan = !machine.reported_ready && !self.notes.known.contains(&machine.intent);
        machine.ours && (orphan || retired || never_ready || silent || dead || machine.has_ended())
    }

    pub(crate) fn judge_order_sent(&mut self, id: &InstanceId, kind: OrderKind) {
        if kind == OrderKind::Undrain || self.policies_in_force().any(|policy| policy.shutdown.is_some()) {
            return;
        }
        let fresh = self.is_fresh(Source::Queues, 21 * SECOND);
        self.require(fresh, "stale input", |_| format!("{id} is told to {kind} by it"));
    }

    pub(crate) fn judge_unregister(&mut self, worker: &WorkerId) {
        let machine = self.machines.iter().find(|machine| machine.worker == *worker);
        let live = machine.is_some_and(|machine| !machine.has_ended());
        self.require(!live, "live worker", |_| format!("{worker} is unregistered"));
    }

    pub(crate) fn judge_end(&mut self, at: usize, by: Ender) {
        let machine = &self.machines[at];
        let foreign = !machine.ours && by == Ender::Controller;
        self.require(!foreign, "foreign", |world| format!("{} is ended", world.machines[at].id));
        let machine = &self.machines[at];
        let held = machine.shim.task.filter(|task| {
            machine.shim.alive
                && self.server.tasks[*task].holder == Some(at)
                && !self.server.tasks[*task].aborted
        });
        let by_right = match by {
            Ender::Controller => self.says(Some(ShutdownAction::All)),
            Ender::Sidecar(_) | Ender::Armed => false,
            Ender::Spot | Ender::Hand | Ender::Stopped => true,
        };
        if let Some(task) = held {
            self.require(by_right, "killed", |world| {
                format!("{} with {} by {by:?}", world.machines[at].id, world.server.tasks[task].id)
            });
        }
    }

    pub(crate) fn judge_popped(&mut self, at: usize, task: usize) {
        let closed = self.machines[at].said_drained || self.machines[at].said_retired;
        self.require(!closed, "gate", |world| {
            format!("{} took {} behind its closed gate", world.machines[at].id, world.server.tasks[task].id)
        });
    }

    pub(crate) fn judge_started(&mut self, at: usize, task: usize) {
        let elsewhere = self.server.tasks[task].runs_on.filter(|other| {
            let shim = &self.machines[*other].shim;
            *other != at && shim.alive && shim.task == Some(task)
        });
        self.require(elsewhere.is_none(), "runs twice", |world| {
            format!("{} on {} and {elsewhere:?}", world.server.tasks[task].id, world.machines[at].id)
        });
    }

    /// An order comes to the sidecar.
    pub(crate) fn judge_ordered(&mut self, at: usize, order: Order) {
        let machine = &mut self.machines[at];
        let number = (order.epoch, order.generation);
        if number > machine.newest_heard {
            machine.newest_heard = number;
            match order.kind {
                Told::Drain => self.judge.drains += 1,
                Told::Undrain => machine.said_drained = false,
                Told::Retire | Told::Finish => {}
            }
        }
    }

    pub(crate) fn judge_answered(&mut self, at: usize, answer: &Answer) {
        if answer.outcome != Outcome::Done {
            return;
        }
        let machine = &mut self.machines[at];
        let repeated = machine.last_done == Some(answer.order);
        machine.last_done = Some(answer.order);
        let old = (answer.order.epoch, answer.order.generation) < machine.newest_heard;
        match answer.order.kind {
            Told::Drain => machine.said_drained = true,
            Told::Retire => machine.said_retired = true,
            Told::Undrain | Told::Finish => {}
        }
        let undone = machine.said_retired && answer.order.kind == Told::Undrain;
        self.require(!old || repeated, "old order", |world| {
            format!("{} obeyed {}", world.machines[at].id, answer.order)
        });
        self.require(!undone, "retired for good", |world| {
            format!("{} obeyed {}", world.machines[at].id, answer.order)
        });
    }

    /// A step of the controller's with a task is about to be taken.
    pub(crate) fn judge_step(&mut self, task: usize, step: &TaskStep) {
        let known = &self.server.tasks[task];
        let runs = known.runs_on.is_some_and(|at| self.machines[at].on);
        let held = known.holder.is_some_and(|at| self.machines[at].on && self.machines[at].shim.alive);
        let aborted = known.aborted;
        let id = known.id.clone();
        match step {
            TaskStep::Stop { .. } => {
                self.require(!runs, "stopped at work", |_| format!("{id} runs and is stopped"));
            }
            TaskStep::Reset | TaskStep::Enqueue { .. } => {
                self.require(!held, "put back while held", |_| format!("{id} is held: {step:?}"));
                self.require(!aborted, "a user's word", |_| format!("{id} was aborted: {step:?}"));
            }
            TaskStep::Note { .. } | TaskStep::Abort | TaskStep::Claim { .. } | TaskStep::Release { .. } => {}
        }
    }

    pub(crate) fn judge_renewed(&mut self, at: usize) {
        let retired = self.machines[at].said_retired;
        self.require(!retired, "retired for good", |world| {
            format!("{} opens its gate again", world.machines[at].id)
        });
    }

    pub(crate) fn judge_standing(&mut self, at: usize, standing: Standing) {
        let undone = self.machines[at].said_retired && standing != Standing::Retired;
        self.require(!undone, "retired for good", |world| {
            format!("{} reports {standing:?}", world.machines[at].id)
        });
        // Also by its own decision, under a silent controller.
        self.machines[at].said_retired |= standing == Standing::Retired;
    }
}

/// The end of a seed, and the bounds on the way to it.
impl World {
    /// Whether nothing is left to be done.
    pub(crate) fn is_over(&self) -> bool {
        // With controller and sidecar both dead for good nobody is left to end a machine.
        let ends = |machine: &Machine| {
            let left = machine.sidecar_broken && self.is_stuck();
            !left && (self.controller.up || !(machine.sidecar_broken || machine.fortune == Fortune::Dead))
        };
        let mut ours = self.machines.iter().filter(|machine| machine.ours && ends(machine));
        let live = ours.any(|machine| machine.ended_at.is_none());
        let held = self.server.tasks.iter().any(|task| task.holder.is_some());
        let all_settled = || (0..self.server.tasks.len()).all(|at| self.is_settled(at));
        let repaired = !self.repairs() || all_settled();
        !live && !held && repaired && (!self.controller.up || self.server.waiting() == 0)
    }

    /// Whether somebody is there who repairs what bad luck mislaid.
    fn repairs(&self) -> bool {
        self.controller.up && self.policy.shutdown.is_none() && !self.is_stuck()
    }

    /// A machine that runs, and whose sidecar is silent for good, may have every task that is missing: neither is
    /// touched, and both are told to the operator.
    fn is_stuck(&self) -> bool {
        let silent = |machine: &Machine| machine.ours && machine.ended_at.is_none() && machine.sidecar_broken;
        self.machines.iter().any(silent) && (0..self.server.tasks.len()).any(|at| !self.is_settled(at))
    }

    /// Whether a task is where ClearML says that it is.
    fn is_settled(&self, at: usize) -> bool {
        let task = &self.server.tasks[at];
        match task.status {
            Status::Created | Status::Stopped | Status::Completed => true,
            Status::Queued => self.server.queues.get(&task.queue).is_some_and(|tasks| tasks.contains(&at)),
            Status::InProgress => task.holder.is_some(),
        }
    }

    /// Looks for machines that stay without a reason.
    pub(crate) fn judge_bounds(&mut self) {
        let now = self.now;
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            if !machine.ours || machine.has_ended() {
                continue;
            }
            let waits = self.server.queues.get(&machine.queue).is_some_and(|tasks| !tasks.is_empty());
            if machine.shim.task.is_some() || (waits && self.controller.up) {
                self.machines[at].useless_since = now;
                continue;
            }
            if machine.sidecar_broken && self.is_stuck() {
                continue;
            }
            let Some(bound) = self.bound(at) else { continue };
            // Sources that failed are tried again at a pace.
            let since = machine.useless_since.max(self.scenario.quiet_at + MINUTE);
            let over = now > since + bound;
            self.require(!over, "left running", |world| {
                format!(
                    "{} for {} s, {} s at most",
                    world.machines[at].id,
                    (now - since) / SECOND,
                    bound / SECOND
                )
            });
            if over {
                self.machines[at].useless_since = now + 60 * MINUTE;
            }
        }
    }

    /// How long a machine may stay that is of no use to anybody, if that is bounded.
    fn bound(&self, at: usize) -> Option<u64> {
        let machine = &self.machines[at];
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let policy = &self.scenario.policy;
        let idle = millis(policy.max_idle);
        if !self.controller.up {
            // It ends itself, unless it was damaged besides.
            let whole = !machine.sidecar_broken && machine.shim.alive && !self.is_booting(at);
            return whole.then_some(idle + 10 * MINUTE);
        }
        let skew = 2 * self.scenario.luck.skew;
        if machine.line.stream.is_some() && machine.shim.alive && !self.is_booting(at) {
            return Some(idle + 90 * SECOND);
        }
        Some(millis(policy.max_spin_up) + idle + millis(policy.silent_grace) + skew + 150 * SECOND)
    }

    /// At the very end: every task is accounted for, nothing is left open.
    pub(crate) fn judge_end_of_all(&mut self) {
        if !self.is_over() {
            let live: Vec<String> = self
                .machines
                .iter()
                .filter(|machine| machine.ours && machine.ended_at.is_none())
                .map(|machine| machine.id.to_string())
                .collect();
            let waiting = self.server.waiting();
            self.broken("liveness", format!("{waiting} tasks wait, {live:?} live"));
        }
        for at in 0..self.server.tasks.len() {
            // Where nobody is left to repair them, those that bad luck mislaid are for an operator.
            let mislaid = self.server.tasks[at].cause.is_some() && !self.repairs();
            let accounted = self.is_settled(at) || mislaid;
            self.require(accounted, "task lost", |world| {
                let task = &world.server.tasks[at];
                format!(
                    "{} is {:?} and nobody's ({})",
                    task.id,
                    task.status,
                    task.cause.unwrap_or("no cause")
                )
            });
        }
        if !self.controller.up {
            return;
        }
        let open: Vec<String> = self.notes.open.keys().map(ToString::to_string).collect();
        // What could not be written down is told to the operator, and asked for again by the next run.
        let whole = self.scenario.luck.journal == 0.0;
        self.require(open.is_empty() || !whole, "open intents", |_| format!("{open:?}"));
        let ghosts: Vec<String> = self
            .server
            .workers
            .keys()
            .filter(|worker| {
                self.machines.iter().any(|machine| machine.worker == **worker && machine.ended_at.is_some())
            })
            .map(ToString::to_string)
            .collect();
        self.require(ghosts.is_empty(), "ghosts", |_| format!("{ghosts:?}"));
    }
}
