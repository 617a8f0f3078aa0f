//! Limbo: popped from its queue, and nobody started it. It is put back only if nobody can have it.

use std::time::Duration;

use super::{Desk, back};
use crate::fleet::Member;
use crate::hold::{TaskHold, Trouble};
use crate::ids::{QueueName, Time};
use crate::policy::SidecarMode;
use crate::role::Role;
use crate::snapshot::{LIMBO_AFTER, Signal, Snapshot, Source, State};
use crate::task::{PutBack, TaskRef, TaskStep};

/// A report says what a gate held somewhat earlier: no stream is kept that was silent for longer than this.
const REPORT_LAG: Duration = Duration::from_secs(30);

/// Puts it back, or says why not.
pub(super) fn plan_limbo(desk: &mut Desk<'_, '_>, task: &TaskRef) {
    if task.marks.tagged {
        // Put back by us, and popped again: what we wanted is done, and what follows is a life of its own.
        return back::plan_release(desk, task);
    }
    let (Some(out), Some(queue)) = (task.out_since, &task.queue) else { return };
    let Some(queue) = desk.queue(task).cloned().or_else(|| unlisted(desk, queue)) else { return };
    let trouble = Trouble::Limbo(queue.clone());
    let due = out.after(LIMBO_AFTER);
    if desk.snapshot().now < due {
        // The usual second of a start; no hold for that.
        desk.plan.wake(due);
        return;
    }
    if !desk.snapshot().queues.contains_key(&queue) {
        return desk.hold(task, trouble, TaskHold::QueueUnknown);
    }
    if desk.snapshot().queues.values().any(|waiting| waiting.contains(&task.task)) {
        // It waits after all: somebody was faster.
        return;
    }
    if let Some(why) = claimed(desk, task, &queue, out) {
        return desk.hold(task, trouble, why);
    }
    let seen = desk.read_by(task, &trouble, due)
        && desk.source_read_by(task, &trouble, Source::Queues, desk.read_at.max(due))
        && desk.source_read_by(task, &trouble, Source::Workers, due);
    if seen {
        desk.take(task, trouble, TaskStep::Enqueue { queue, why: PutBack::Limbo });
    }
}

/// A queue of the budget that the server does not list at the moment.
fn unlisted(desk: &Desk<'_, '_>, queue: &QueueName) -> Option<QueueName> {
    let ours = desk.policy().pools.iter().any(|pool| pool.queue == *queue);
    ours.then(|| queue.clone())
}

/// Who has it, or may have it.
fn claimed(desk: &Desk<'_, '_>, task: &TaskRef, queue: &QueueName, out: Time) -> Option<TaskHold> {
    let (fleet, snapshot) = (desk.fleet, desk.snapshot());
    if let Some(holder) = desk.claims.holder(&task.task) {
        return Some(TaskHold::HeldBy(holder.clone()));
    }
    if let Some(worker) = desk.claims.listed_elsewhere(fleet, &task.task, None) {
        return Some(TaskHold::ListedOn(worker.clone()));
    }
    let may_have =
        |member: &&Member<'_>| member.instance.queue == *queue && may_have_popped(desk, member, out);
    if let Some(member) = fleet.members.iter().find(may_have) {
        return Some(TaskHold::MayBeOn(member.id.clone()));
    }
    let foreign = snapshot.others.iter().find(|(_, worker)| worker.queues.contains(queue));
    foreign.map(|(worker, _)| TaskHold::OtherWorkers(worker.clone()))
}

/// Whether an instance may have popped a task that left its queue before `out`, without its sidecar having
/// said since then what each gate holds.
fn may_have_popped(desk: &Desk<'_, '_>, member: &Member<'_>, out: Time) -> bool {
    let snapshot = desk.snapshot();
    let instance = member.instance;
    if snapshot.proven_gone.contains(member.id) || never_began(desk, member) {
        return false;
    }
    let told = instance.word.settled_at.is_some_and(|at| at >= out.after(REPORT_LAG));
    let speaks = desk.policy().sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
    !(told && speaks)
}

/// Launched by this very run, and its sidecar has not come, or says that no agent has begun: the agent
/// comes with the boot script, and that over the session.
fn never_began(desk: &Desk<'_, '_>, member: &Member<'_>) -> bool {
    let coming = matches!(member.instance.state, State::Requested | State::Pending | State::Booting { .. });
    let untouched = coming && member.instance.ready_at.is_none() && member.role != Role::Lost;
    let required = desk.policy().sidecar == SidecarMode::Required;
    let silent = member.instance.signal == Signal::None;
    untouched && required && (!silent || is_of_this_run(desk.snapshot(), member))
}

fn is_of_this_run(snapshot: &Snapshot, member: &Member<'_>) -> bool {
    let epoch = member.instance.intent.as_ref().and_then(|intent| intent.as_str().split_once('-'));
    epoch.is_some_and(|(epoch, _)| epoch.parse() == Ok(snapshot.epoch))
}
