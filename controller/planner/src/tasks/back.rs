//! Interrupted tasks go back into their queue: stopped, machine gone, attempt counted, enqueued, released.
//!
//! Each step leaves its trace on the task before the next is taken. A stop that is not ours is a user's
//! word and ends it, and so does any other life that the task has begun meanwhile.

use std::collections::BTreeMap;

use super::Desk;
use crate::hold::{TaskHold, Trouble};
use crate::ids::InstanceId;
use crate::policy::Policy;
use crate::snapshot::{Snapshot, Source};
use crate::task::{Cause, MOST_ATTEMPTS, NOT_RESPONSIVE, PutBack, TaskRef, TaskStatus, TaskStep};

/// The next step of a task with our tag that neither runs nor is in limbo.
pub(super) fn plan_marked(desk: &mut Desk<'_, '_>, task: &TaskRef) {
    match task.status {
        TaskStatus::Stopped => plan_stopped(desk, task),
        TaskStatus::Created if task.marks.resetting.is_some() => {
            let cause = task.marks.cause.unwrap_or(Cause::Gone);
            enqueue(desk, task, cause);
        }
        // A draft again by its user's hand, waiting, or over: nothing of ours is left to do.
        TaskStatus::Created | TaskStatus::Queued | TaskStatus::Ended => plan_release(desk, task),
        // Decided with those that run.
        TaskStatus::InProgress => {}
    }
}

/// Takes our tag and notes off.
pub(super) fn plan_release(desk: &mut Desk<'_, '_>, task: &TaskRef) {
    let attempts = task.marks.attempts.max(task.marks.resetting.unwrap_or(0));
    let trouble = Trouble::Interrupted(task.marks.cause.unwrap_or(Cause::Gone));
    desk.take(task, trouble, TaskStep::Release { attempts });
}

/// Whether a running task's tag is of an earlier life: it runs elsewhere than where it was interrupted.
pub(super) fn is_over(desk: &Desk<'_, '_>, task: &TaskRef) -> bool {
    let prefix = &desk.policy().prefix;
    let Some(worker) = &task.last_worker else { return false };
    let interrupted = task.marks.instance.as_ref().map(InstanceId::as_str);
    if worker.instance_text(prefix) == interrupted {
        return false;
    }
    // On a machine that is gone, too, or about to go, the next note takes the place of this one.
    let text = worker.instance_text(prefix).unwrap_or_default();
    let going = desk.fleet.member(text).is_some_and(|member| member.instance.word.notice.is_some());
    !going && !desk.snapshot().losses.contains_key(text)
}

fn plan_stopped(desk: &mut Desk<'_, '_>, task: &TaskRef) {
    let (Some(cause), Some(id)) = (task.marks.cause, &task.marks.instance) else {
        return plan_release(desk, task);
    };
    let claimed = is_claimed(task);
    let allowed = desk.policy().requeue.allows(cause);
    if !allowed || !may_go_back(task) || (!claimed && task.marks.attempts >= MOST_ATTEMPTS) {
        return plan_release(desk, task);
    }
    let trouble = Trouble::Interrupted(cause);
    if let Some(why) = someone_has_it(desk, task, id) {
        return desk.hold(task, trouble, why);
    }
    if desk.queue(task).is_none() {
        return desk.hold(task, trouble, TaskHold::QueueUnknown);
    }
    // A stranded one's machine lives on, and does not run it.
    if cause != Cause::Stranded && !desk.snapshot().losses.contains_key(id) {
        desk.plan.look_up.insert(id.clone());
        return desk.hold(task, trouble, TaskHold::NotGoneYet(id.clone()));
    }
    if !claimed {
        if task.status_changed.is_none() {
            // Which stop it was can't be told, and so not whether it is counted already.
            return desk.hold(task, trouble, TaskHold::ClockUnknown);
        }
        let attempt = task.marks.attempts + 1;
        let reset = desk.policy().requeue.reset;
        let step = TaskStep::Claim { attempt, stopped_at: task.status_changed, reset };
        return desk.take(task, trouble, step);
    }
    if task.marks.resetting.is_some() {
        return desk.take(task, trouble, TaskStep::Reset);
    }
    enqueue(desk, task, cause);
}

fn enqueue(desk: &mut Desk<'_, '_>, task: &TaskRef, cause: Cause) {
    let trouble = Trouble::Interrupted(cause);
    match desk.queue(task).cloned() {
        Some(queue) => {
            desk.take(task, trouble, TaskStep::Enqueue { queue, why: PutBack::Interrupted(cause) });
        }
        None => desk.hold(task, trouble, TaskHold::QueueUnknown),
    }
}

/// This very stop was counted.
fn is_claimed(task: &TaskRef) -> bool {
    task.marks.stopped_at.is_some() && task.marks.stopped_at == task.status_changed
}

/// The stop is ours; or it followed from our asking, and was counted or is about to be.
fn may_go_back(task: &TaskRef) -> bool {
    let ours = task.is_by_us() && task.status_message == NOT_RESPONSIVE;
    let asked = task.marks.aborting && task.marks.stopped_at.is_none();
    ours || asked || is_claimed(task)
}

/// A stopped task that somebody has all the same.
fn someone_has_it(desk: &Desk<'_, '_>, task: &TaskRef, own: &InstanceId) -> Option<TaskHold> {
    if desk.claims.is_twice(&task.task) {
        return Some(TaskHold::Twice);
    }
    if let Some(holder) = desk.claims.holder(&task.task).filter(|holder| *holder != own) {
        return Some(TaskHold::HeldBy(holder.clone()));
    }
    let worker = desk.claims.listed_elsewhere(desk.fleet, &task.task, Some(own.as_str()))?;
    Some(TaskHold::ListedOn(worker.clone()))
}

/// How many tasks will come back to each queue: those that a noticed instance holds, and those on their way.
/// What is to run them can be launched before they wait.
pub(crate) fn coming_back<'a>(policy: &Policy, snapshot: &'a Snapshot) -> BTreeMap<&'a str, u32> {
    let mut coming = BTreeMap::new();
    if !policy.requeue.allows(Cause::Spot) {
        return coming;
    }
    let returns = |task: &TaskRef| task.marks.attempts < MOST_ATTEMPTS && !task.is_stopping_for_its_user();
    for (id, instance) in &snapshot.instances {
        if instance.word.notice.is_none() || snapshot.proven_gone.contains(id) {
            continue;
        }
        for task in snapshot.running.iter().filter(|task| instance.word.held.contains(&task.task)) {
            if returns(task)
                && let Some(queue) = &task.queue
            {
                *coming.entry(queue.as_str()).or_default() += 1;
            }
        }
    }
    // Not again one that waits already, or that was touched since the tasks were read and may.
    let read_at = snapshot.freshness.get(&Source::Tasks).map(|age| age.read_began_at);
    let is_new = |task: &TaskRef| {
        let listed = snapshot.queues.values().any(|waiting| waiting.contains(&task.task));
        let touched = snapshot.touched.get(&task.task).is_some_and(|touch| Some(touch.at) >= read_at);
        !listed && !touched
    };
    let on_their_way = snapshot.marked.iter().filter(|task| {
        let spot = task.status == TaskStatus::Stopped && task.marks.cause == Some(Cause::Spot);
        spot && may_go_back(task) && (is_claimed(task) || task.marks.attempts < MOST_ATTEMPTS) && is_new(task)
    });
    for queue in on_their_way.filter_map(|task| task.queue.as_ref()) {
        *coming.entry(queue.as_str()).or_default() += 1;
    }
    coming
}
