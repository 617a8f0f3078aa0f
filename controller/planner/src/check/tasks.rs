//! Steps with tasks: each by evidence that the snapshot holds, on the task as it was seen, one for each task.
//!
//! A task is stopped only if its machine is proven gone, was killed under AWS's notice, or says itself that
//! it does not run it; it is put into a queue only if nobody can have it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Violation, require};
use crate::ids::{InstanceId, QueueName, TaskId, Time};
use crate::plan::{Action, Plan};
use crate::policy::{Policy, SidecarMode};
use crate::snapshot::{Instance, Signal, Snapshot, Source, State};
use crate::task::{Cause, Marks, PutBack, RequeueWhen, Seen, TaskRef, TaskStatus, TaskStep};

const MOST_STEPS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);
const HALF_MINUTE: Duration = Duration::from_secs(30);
const MOST_ATTEMPTS: u32 = 3;

pub(super) fn check(policy: &Policy, snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    let steps = plan.actions.iter().filter_map(|action| match action {
        Action::Task { task, seen, step } => Some((task, seen, step)),
        Action::Launch { .. }
        | Action::Settle { .. }
        | Action::Send { .. }
        | Action::Terminate { .. }
        | Action::Unregister { .. } => None,
    });
    let steps: Vec<(&TaskId, &Seen, &TaskStep)> = steps.collect();
    if steps.is_empty() {
        return Ok(());
    }
    require(steps.len() <= MOST_STEPS, || format!("{} steps with tasks at once", steps.len()))?;
    require(snapshot.lease_held, || "it touches tasks without the lease".to_owned())?;
    require(policy.shutdown.is_none(), || "it touches tasks while it shuts down".to_owned())?;
    require(snapshot.is_fresh(Source::Tasks), || "it touches tasks by a stale list of them".to_owned())?;
    let read_at = snapshot.freshness.get(&Source::Tasks).map_or(Time(0), |age| age.read_began_at);
    let book = Book::of(policy, snapshot, read_at);
    let mut touched = BTreeSet::new();
    for (id, seen, step) in steps {
        require(touched.insert(id), || format!("two steps with task {id} at once"))?;
        let Some(task) = book.tasks.get(id) else {
            return Err(Violation(format!("a step with task {id}, which is not on record")));
        };
        let same = seen.status == task.status
            && seen.status_changed == task.status_changed
            && seen.last_worker == task.last_worker;
        require(same, || format!("a step with task {id} rests on what was not seen"))?;
        let rested = snapshot
            .touched
            .get(id)
            .is_none_or(|touch| touch.at < read_at && touch.not_before <= snapshot.now);
        require(rested, || format!("a step with task {id} before the last one was looked at"))?;
        book.by_right(task, step)?;
    }
    Ok(())
}

struct Book<'a> {
    policy: &'a Policy,
    snapshot: &'a Snapshot,
    read_at: Time,
    tasks: BTreeMap<&'a TaskId, &'a TaskRef>,
    /// Instances that hold a task, those proven gone excepted.
    holders: BTreeMap<&'a TaskId, BTreeSet<&'a InstanceId>>,
}

impl<'a> Book<'a> {
    fn of(policy: &'a Policy, snapshot: &'a Snapshot, read_at: Time) -> Self {
        let lists = [&snapshot.running, &snapshot.unplaced, &snapshot.marked];
        let tasks = lists.into_iter().flatten().map(|task| (&task.task, task)).collect();
        let mut holders: BTreeMap<&TaskId, BTreeSet<&InstanceId>> = BTreeMap::new();
        for (id, instance) in snapshot.instances.iter().filter(|(id, _)| !snapshot.proven_gone.contains(*id))
        {
            let busy = match &instance.state {
                State::Busy { task } => task.as_ref(),
                _ => None,
            };
            for task in instance.word.held.iter().chain(busy) {
                holders.entry(task).or_default().insert(id);
            }
        }
        Self { policy, snapshot, read_at, tasks, holders }
    }

    fn by_right(&self, task: &TaskRef, step: &TaskStep) -> Result<(), Violation> {
        let id = &task.task;
        let Marks { tagged, instance: noted, stopped_at, attempts, resetting, .. } = &task.marks;
        match step {
            TaskStep::Note { cause, instance, aborting } => {
                self.lost(task, instance, *cause)?;
                require(!aborting || task.abort_timeout > 0, || format!("task {id} has no abort callback"))?;
                let by_user = is_aborted_by_user(task);
                require(!by_user, || format!("task {id} is being stopped by its user, and marked"))
            }
            TaskStep::Abort => {
                let noted = noted.as_ref().filter(|_| *tagged && task.marks.aborting);
                let Some(known) = noted.and_then(|id| self.snapshot.instances.get(id)) else {
                    return Err(Violation(format!("task {id} is aborted, and that is not written down")));
                };
                require(known.word.notice.is_some() && runs_on(self.policy, task, noted), || {
                    format!("task {id} is aborted, and nobody takes its machine")
                })?;
                require(task.status_message != "stopping", || format!("task {id} is aborted again"))
            }
            TaskStep::Stop { cause, instance, as_asked } => {
                self.lost(task, instance, *cause)?;
                self.unclaimed(task, Some(instance))?;
                let live = self.snapshot.instances.get(instance).filter(|_| *cause == Cause::Spot);
                let live = live.filter(|_| !self.snapshot.losses.contains_key(instance));
                let killed = live.is_none_or(|instance| {
                    let word = &instance.word;
                    let works = word.at_work.as_ref().is_some_and(|tasks| tasks.contains(id));
                    word.notice.is_some_and(|notice| notice.killed) && !works
                });
                require(killed, || format!("task {id} is stopped, and {instance} still runs it"))?;
                require(*as_asked == is_aborted_by_user(task), || {
                    format!("task {id} is stopped, and whose wish that was is not kept")
                })
            }
            TaskStep::Claim { attempt, stopped_at: stop, reset } => {
                self.goes_back(task)?;
                let next = *attempt == attempts + 1 && *attempt <= MOST_ATTEMPTS;
                require(next, || format!("task {id} is put back for the {attempt}th time"))?;
                require(stop.is_some() && *stop == task.status_changed, || {
                    format!("task {id} is put back from another stop than the one seen")
                })?;
                require(*reset == self.policy.requeue.reset, || {
                    format!("task {id} is reset, or not, unasked")
                })
            }
            TaskStep::Reset => {
                let counted = stopped_at.is_some() && *stopped_at == task.status_changed;
                require(counted && resetting.is_some(), || format!("task {id} is reset uncounted"))?;
                self.goes_back(task)
            }
            TaskStep::Enqueue { queue, why } => self.enqueued(task, queue, *why),
            TaskStep::Release { attempts: left } => {
                require(*tagged, || format!("task {id} is released and has no tag"))?;
                require(*left >= *attempts, || format!("task {id} loses count of its attempts"))
            }
        }
    }

    /// The task is in progress on that very machine by the server's list, and has lost it.
    fn lost(&self, task: &TaskRef, machine: &InstanceId, cause: Cause) -> Result<(), Violation> {
        let id = &task.task;
        let there = task.status == TaskStatus::InProgress && runs_on(self.policy, task, Some(machine));
        require(there, || format!("task {id} does not run on {machine}"))?;
        let changed = self.ours(task.status_changed);
        if let Some(loss) = self.snapshot.losses.get(machine) {
            require(self.snapshot.proven_gone.contains(machine), || format!("{machine} is not proven gone"))?;
            let before = changed.is_some_and(|changed| changed <= loss.first_seen);
            require(before, || format!("task {id} may have changed after {machine} went"))?;
            let agreed = self.read_at >= task.unchanged_since.max(loss.first_seen).after(HALF_MINUTE);
            require(agreed, || format!("two reads 30 s apart do not agree on task {id}"))?;
            let looked = self.snapshot.read_after(Source::Workers, loss.first_seen);
            require(looked, || format!("task {id} is touched without a look at the workers"))?;
            let silent =
                self.ours(task.last_update).is_some_and(|last| self.snapshot.now.since(last) >= 5 * MINUTE);
            return require(loss.was_ours || silent, || {
                format!("task {id} lives, on a machine we never saw")
            });
        }
        let Some(instance) = self.snapshot.instances.get(machine) else {
            return Err(Violation(format!("task {id} ran on {machine}, which nobody knows")));
        };
        match cause {
            Cause::Spot => {
                let noticed = instance.word.notice.is_some();
                require(noticed && holds(instance, id), || format!("AWS does not take {machine} back"))
            }
            Cause::Stranded => self.stranded(task, machine, instance, changed),
            Cause::Gone => Err(Violation(format!("{machine} is not proven gone"))),
        }
    }

    fn stranded(
        &self,
        task: &TaskRef,
        machine: &InstanceId,
        instance: &Instance,
        changed: Option<Time>,
    ) -> Result<(), Violation> {
        let id = &task.task;
        let speaks = self.policy.sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
        let began_later = changed.is_none_or(|changed| changed > instance.since);
        let idle = speaks && instance.state == State::Idle && !began_later;
        require(idle, || format!("{machine} does not say that it stands idle since task {id} began"))?;
        let since = instance.since.max(task.unchanged_since);
        let settled = instance.word.settled_at.is_some_and(|at| at >= since.after(MINUTE));
        require(settled && self.read_at >= since.after(MINUTE), || {
            format!("task {id} is not stranded for a minute")
        })?;
        let absent = instance.word.at_work.as_ref().is_some_and(|tasks| !tasks.contains(id));
        require(absent && !holds(instance, id), || format!("task {id} may run on {machine}"))
    }

    /// Nobody holds or lists it, but for the machine that lost it.
    fn unclaimed(&self, task: &TaskRef, own: Option<&InstanceId>) -> Result<(), Violation> {
        let id = &task.task;
        let holders = self.holders.get(id);
        let held = holders.is_some_and(|holders| holders.iter().any(|holder| Some(*holder) != own));
        require(!held, || format!("task {id} is touched, and an instance holds it"))?;
        let prefix = &self.policy.prefix;
        let ours = self.snapshot.workers.iter().filter(|(_, worker)| worker.task.as_ref() == Some(id));
        let elsewhere = ours.into_iter().any(|(worker, _)| worker.instance(prefix).as_ref() != own);
        let others = self.snapshot.others.values().any(|worker| worker.task.as_ref() == Some(id));
        require(!elsewhere && !others, || format!("task {id} is touched, and a worker reports it"))
    }

    /// It was stopped by us or at our asking, its machine is gone, and the policy wants it back.
    fn goes_back(&self, task: &TaskRef) -> Result<(), Violation> {
        let id = &task.task;
        let Marks { tagged, cause, instance, aborting, stopped_at, .. } = &task.marks;
        let (Some(cause), Some(machine)) = (cause, instance) else {
            return Err(Violation(format!("task {id} is put back, and nothing says why")));
        };
        require(*tagged && task.status == TaskStatus::Stopped, || format!("task {id} is put back unmarked"))?;
        let wanted = match self.policy.requeue.when {
            RequeueWhen::Never => false,
            RequeueWhen::Spot => *cause == Cause::Spot,
            RequeueWhen::All => true,
        };
        require(wanted, || format!("task {id} is put back, and the policy does not want it"))?;
        let by_us = task.status_message == "Forced stop (non-responsive)"
            && task.status_reason.starts_with("clearml-autoscaler: ");
        let counted = stopped_at.is_some() && *stopped_at == task.status_changed;
        let ours = by_us || counted || (*aborting && stopped_at.is_none());
        require(ours, || format!("task {id} was stopped by its user, and is put back"))?;
        let gone = self.snapshot.proven_gone.contains(machine) || *cause == Cause::Stranded;
        require(gone, || format!("task {id} is put back, and {machine} may still run it"))?;
        self.unclaimed(task, Some(machine))
    }

    fn enqueued(&self, task: &TaskRef, queue: &QueueName, why: PutBack) -> Result<(), Violation> {
        let id = &task.task;
        let own = task.queue.as_ref() == Some(queue) && self.snapshot.queues.contains_key(queue);
        let budgeted = self.policy.pools.iter().any(|pool| pool.queue == *queue);
        require(own && budgeted, || format!("task {id} is put into queue {queue}, where it was not"))?;
        match (why, task.status) {
            (PutBack::Limbo, TaskStatus::Queued) => self.limbo(task, queue),
            (PutBack::Interrupted(_), TaskStatus::Created) => {
                require(task.marks.tagged && task.marks.resetting.is_some(), || {
                    format!("task {id} is a draft, and is put into a queue")
                })
            }
            (PutBack::Interrupted(_), TaskStatus::Stopped) => {
                let counted = task.marks.stopped_at.is_some() && task.marks.stopped_at == task.status_changed;
                require(counted, || format!("task {id} is put back uncounted"))?;
                require(task.marks.attempts <= MOST_ATTEMPTS, || format!("task {id} is put back for ever"))?;
                self.goes_back(task)
            }
            (_, status) => Err(Violation(format!("task {id} is {status:?} and put back"))),
        }
    }

    /// A minute out of every queue by two reads, nobody has it, and nobody can have it.
    fn limbo(&self, task: &TaskRef, queue: &QueueName) -> Result<(), Violation> {
        let (id, snapshot) = (&task.task, self.snapshot);
        let Some(out) = task.out_since else {
            return Err(Violation(format!(
                "task {id} is put back, and nothing shows that it left its queue"
            )));
        };
        let just_before = |at: Time| Time(at.0.saturating_sub(1));
        let looked = self.read_at >= out.after(MINUTE)
            && snapshot.read_after(Source::Queues, just_before(self.read_at))
            && snapshot.read_after(Source::Workers, just_before(out.after(MINUTE)));
        require(looked, || format!("task {id} is put back without a look after a minute"))?;
        let listed = snapshot.queues.values().any(|tasks| tasks.contains(id));
        require(!listed, || format!("task {id} is put back, and waits already"))?;
        self.unclaimed(task, None)?;
        let served = snapshot.others.values().any(|worker| worker.queues.contains(queue));
        require(!served, || format!("task {id} is put back, and another's worker serves queue {queue}"))?;
        for (machine, instance) in snapshot.instances.iter().filter(|(_, known)| known.queue == *queue) {
            let gone = snapshot.proven_gone.contains(machine);
            let speaks = self.policy.sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
            let told = instance.word.settled_at.is_some_and(|at| at >= out.after(HALF_MINUTE));
            require(gone || (speaks && told) || self.has_no_agent(instance), || {
                format!("task {id} is put back, and {machine} may have it")
            })?;
        }
        Ok(())
    }

    /// Its agent has not begun: the sidecar says so, or has not come since this run launched it.
    fn has_no_agent(&self, instance: &Instance) -> bool {
        let coming = matches!(instance.state, State::Requested | State::Pending | State::Booting { .. });
        let ours = instance
            .intent
            .as_ref()
            .is_some_and(|intent| intent.as_str().starts_with(&format!("{}-", self.snapshot.epoch)));
        self.policy.sidecar == SidecarMode::Required
            && coming
            && instance.ready_at.is_none()
            && (ours || instance.signal != Signal::None)
    }

    fn ours(&self, server: Option<Time>) -> Option<Time> {
        let (time, ahead) = (server?, self.snapshot.server_ahead_ms?);
        let shifted = i128::from(time.0) - i128::from(ahead);
        Some(Time(u64::try_from(shifted).unwrap_or(0)))
    }
}

fn runs_on(policy: &Policy, task: &TaskRef, machine: Option<&InstanceId>) -> bool {
    let worker = task.last_worker.as_ref().and_then(|worker| worker.instance(&policy.prefix));
    worker.is_some() && worker.as_ref() == machine
}

fn holds(instance: &Instance, task: &TaskId) -> bool {
    instance.word.held.contains(task)
        || matches!(&instance.state, State::Busy { task: Some(held) } if held == task)
}

fn is_aborted_by_user(task: &TaskRef) -> bool {
    task.status_message == "stopping" && !task.status_reason.starts_with("clearml-autoscaler: ")
}
