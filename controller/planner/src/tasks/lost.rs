//! Tasks in progress whose machine is gone, is about to be taken back, or lives and does not run them.

use std::time::Duration;

use super::{Desk, on_our_clock};
use crate::fleet::Member;
use crate::hold::{TaskHold, Trouble};
use crate::ids::{InstanceId, Time};
use crate::plan::Plan;
use crate::policy::SidecarMode;
use crate::snapshot::{Signal, Source, State};
use crate::task::{Cause, Loss, Notice, STOPPING, TaskRef, TaskStep};

/// Two reads of a task on a lost machine must agree over this span.
const AGREE: Duration = Duration::from_secs(30);
/// A task on a live machine is stranded after this.
const STRANDED_AFTER: Duration = Duration::from_secs(60);
/// A task on a machine that this run never saw must have been silent for so long: a living one pings each minute.
const SILENT: Duration = Duration::from_secs(300);
/// An abort callback that has less time than this is not called.
const LEAST_ABORT: Duration = Duration::from_secs(30);

/// What is to be done about a task in progress, if anything.
pub(super) fn plan_running(desk: &mut Desk<'_, '_>, task: &TaskRef) {
    let fleet = desk.fleet;
    let Some(text) = task.last_worker.as_ref().and_then(|it| it.instance_text(&fleet.policy.prefix)) else {
        return;
    };
    if let Some((id, loss)) = fleet.snapshot.losses.get_key_value(text) {
        return plan_gone(desk, task, id, *loss);
    }
    let Some(member) = fleet.member(text) else {
        // No list shows its machine: EC2 is asked by id.
        desk.plan.look_up.insert(text.into());
        return;
    };
    match (&member.instance.state, &member.instance.word.notice) {
        (State::Terminating | State::Gone, _) => {
            desk.plan.look_up.insert(member.id.clone());
            desk.hold(task, Trouble::Gone(member.id.clone()), TaskHold::NotGoneYet(member.id.clone()));
        }
        (_, Some(notice)) if member.instance.holds(&task.task) => plan_noticed(desk, task, member, *notice),
        (State::Idle, _) => plan_stranded(desk, task, member),
        (
            State::Requested
            | State::Pending
            | State::Booting { .. }
            | State::Busy { .. }
            | State::Draining
            | State::Drained
            | State::Retiring
            | State::Retired
            | State::Lost { .. },
            _,
        ) => {}
    }
}

/// Its machine is proven gone. The last word about its worker may be an old one: it is touched only if
/// nothing of it has changed since the loss, and nobody else claims it.
fn plan_gone(desk: &mut Desk<'_, '_>, task: &TaskRef, id: &InstanceId, loss: Loss) {
    let trouble = Trouble::Gone(id.clone());
    let snapshot = desk.snapshot();
    if let Some(why) = claimed(desk, task, id) {
        return desk.hold(task, trouble, why);
    }
    let Some(changed) = on_our_clock(snapshot, task.status_changed) else {
        return desk.hold(task, trouble, TaskHold::ClockUnknown);
    };
    if changed > loss.first_seen {
        return desk.hold(task, trouble, TaskHold::ChangedSince);
    }
    if !loss.was_ours && is_alive(desk, task, id) {
        if let Some(update) = on_our_clock(snapshot, task.last_update) {
            wake_at(desk.plan, snapshot.now, update.after(SILENT));
        }
        return desk.hold(task, trouble, TaskHold::Alive);
    }
    let due = task.unchanged_since.max(loss.first_seen).after(AGREE);
    let after_loss = loss.first_seen.after(Duration::from_millis(1));
    let seen =
        desk.read_by(task, &trouble, due) && desk.source_read_by(task, &trouble, Source::Workers, after_loss);
    if seen {
        let noticed = task.marks.cause == Some(Cause::Spot) && task.marks.instance.as_ref() == Some(id);
        let cause = if loss.by_spot || noticed { Cause::Spot } else { Cause::Gone };
        stop(desk, task, trouble, cause, id);
    }
}

/// It may run on a machine of which this run knows nothing but that EC2 does not: one in another region, say.
fn is_alive(desk: &Desk<'_, '_>, task: &TaskRef, id: &InstanceId) -> bool {
    let snapshot = desk.snapshot();
    let quiet = on_our_clock(snapshot, task.last_update)
        .is_some_and(|update| snapshot.now.since(update) >= SILENT && snapshot.now >= update);
    let listed = desk.fleet.entries.iter().any(|entry| entry.instance == id.as_str());
    listed || !quiet
}

/// Its machine lives, its gate has been idle since after the task began, and nothing there runs it.
fn plan_stranded(desk: &mut Desk<'_, '_>, task: &TaskRef, member: &Member<'_>) {
    let (snapshot, instance) = (desk.snapshot(), member.instance);
    let Some(changed) = on_our_clock(snapshot, task.status_changed) else { return };
    let due = task.unchanged_since.max(instance.since).max(changed).after(STRANDED_AFTER);
    if changed > instance.since || snapshot.now < due {
        // Just begun, or just ended. Should it stay so, the clock brings it up.
        if changed <= instance.since {
            desk.plan.wake(due);
        }
        return;
    }
    let trouble = Trouble::Stranded(member.id.clone());
    let speaks = desk.policy().sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
    let told = instance.word.settled_at.is_some_and(|at| at >= due);
    let looked = instance.word.at_work.as_ref().is_some_and(|tasks| !tasks.contains(&task.task));
    if !(speaks && told && looked) || instance.holds(&task.task) {
        return desk.hold(task, trouble, TaskHold::MayBeOn(member.id.clone()));
    }
    if let Some(why) = claimed(desk, task, member.id) {
        return desk.hold(task, trouble, why);
    }
    if let Some(worker) = desk.claims.listed_elsewhere(desk.fleet, &task.task, None) {
        return desk.hold(task, trouble, TaskHold::ListedOn(worker.clone()));
    }
    let seen = desk.read_by(task, &trouble, due) && desk.source_read_by(task, &trouble, Source::Workers, due);
    if seen {
        stop(desk, task, trouble, Cause::Stranded, member.id);
    }
}

/// AWS is about to take its machine: it is marked, asked to save what it can, and stopped once it was killed.
fn plan_noticed(desk: &mut Desk<'_, '_>, task: &TaskRef, member: &Member<'_>, notice: Notice) {
    let id = member.id;
    let trouble = Trouble::Noticed(id.clone());
    if desk.claims.is_twice(&task.task) {
        return desk.hold(task, trouble, TaskHold::Twice);
    }
    let now = desk.snapshot().now;
    let in_time = now.after(LEAST_ABORT) < notice.ends_at;
    if notice.killed {
        let runs = member.instance.word.at_work.as_ref().is_some_and(|tasks| tasks.contains(&task.task));
        if !runs {
            if let Some(why) = claimed(desk, task, id) {
                return desk.hold(task, trouble, why);
            }
            return stop(desk, task, trouble, Cause::Spot, id);
        }
    } else if !task.is_stopping_for_its_user() {
        if !is_noted(task, id) {
            let aborting = task.abort_timeout > 0 && in_time;
            let note = TaskStep::Note { cause: Cause::Spot, instance: id.clone(), aborting };
            return desk.take(task, trouble, note);
        }
        if task.marks.aborting && in_time && task.status_message != STOPPING {
            return desk.take(task, trouble, TaskStep::Abort);
        }
    }
    wake_at(desk.plan, now, notice.ends_at);
    desk.hold(task, trouble, TaskHold::RunsOn(notice.ends_at));
}

/// Writes it down first if it is to be put back, so that whoever comes after a crash goes on from there.
fn stop(desk: &mut Desk<'_, '_>, task: &TaskRef, trouble: Trouble, cause: Cause, id: &InstanceId) {
    let as_asked = task.is_stopping_for_its_user();
    if !as_asked && desk.puts_back(task, cause) && !is_noted(task, id) {
        let note = TaskStep::Note { cause, instance: id.clone(), aborting: false };
        return desk.take(task, trouble, note);
    }
    desk.take(task, trouble, TaskStep::Stop { cause, instance: id.clone(), as_asked });
}

fn is_noted(task: &TaskRef, id: &InstanceId) -> bool {
    task.marks.tagged && task.marks.cause.is_some() && task.marks.instance.as_ref() == Some(id)
}

/// Anyone but the machine itself that has it.
fn claimed(desk: &Desk<'_, '_>, task: &TaskRef, own: &InstanceId) -> Option<TaskHold> {
    if desk.claims.is_twice(&task.task) {
        return Some(TaskHold::Twice);
    }
    if let Some(holder) = desk.claims.holder(&task.task).filter(|holder| *holder != own) {
        return Some(TaskHold::HeldBy(holder.clone()));
    }
    let worker = desk.claims.listed_elsewhere(desk.fleet, &task.task, Some(own.as_str()))?;
    Some(TaskHold::ListedOn(worker.clone()))
}

fn wake_at(plan: &mut Plan, now: Time, at: Time) {
    if at > now {
        plan.wake(at);
    }
}
