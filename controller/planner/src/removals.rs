//! Who is ended, and by what right: the retired, those that never became ready, and the lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence::{Evidence, read_since};
use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::{InstanceId, Time};
use crate::plan::{Action, Plan, TerminateReason};
use crate::policy::SidecarMode;
use crate::role::Role;
use crate::snapshot::{Signal, Source, State};

/// Between the two looks at an instance that nothing accounts for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Terminations, and the holds of those that come near one.
pub(crate) fn plan_removals(fleet: &Fleet<'_>, plan: &mut Plan) {
    let evidence = Evidence::of(fleet);
    let mut ended: BTreeMap<TerminateReason, Vec<InstanceId>> = BTreeMap::new();
    for member in &fleet.members {
        if let Some(reason) = right_to_end(fleet, member, &evidence, plan) {
            ended.entry(reason).or_default().push(member.id.clone());
        }
    }
    plan.actions.extend(ended.into_iter().map(|(reason, instances)| Action::Terminate { instances, reason }));
}

fn right_to_end<'a>(
    fleet: &Fleet<'a>,
    member: &Member<'a>,
    evidence: &Evidence<'a>,
    plan: &mut Plan,
) -> Option<TerminateReason> {
    let instance = member.instance;
    if let Role::Coming { deadline } = member.role {
        // From then on it is no capacity any more.
        plan.wake(deadline);
    }
    if instance.kept && matches!(member.role, Role::Retired | Role::Overdue { .. } | Role::Lost) {
        plan.holds.push(Hold::Kept { instance: member.id.clone() });
        return None;
    }
    if !instance.kept && is_orphan(fleet, member) && !evidence.lists(member) {
        return orphan(fleet, member, evidence, plan);
    }
    match member.role {
        Role::Retired => {
            let free = evidence.is_free_since(fleet, member, instance.since, plan);
            free.then_some(TerminateReason::Retired)
        }
        Role::Overdue { deadline } => overdue(fleet, member, deadline, evidence, plan),
        Role::Lost => lost(fleet, member, evidence, plan),
        Role::Coming { deadline } => {
            let phase = phase(&instance.state).to_owned();
            plan.holds.push(Hold::Booting { instance: member.id.clone(), phase, until: deadline });
            None
        }
        Role::Idle
        | Role::Busy
        | Role::Finishing
        | Role::Draining
        | Role::Drained
        | Role::Undraining
        | Role::Retiring
        | Role::Leaving => None,
    }
}

/// Whether nothing accounts for an instance and no sidecar speaks for it. Once its agent was up it is not
/// this but lost: it may hold a task.
pub(crate) fn is_orphan(fleet: &Fleet<'_>, member: &Member<'_>) -> bool {
    let instance = member.instance;
    let silent = match member.role {
        Role::Coming { .. } | Role::Overdue { .. } | Role::Lost => instance.signal == Signal::None,
        Role::Idle
        | Role::Busy
        | Role::Finishing
        | Role::Draining
        | Role::Drained
        | Role::Undraining
        | Role::Retiring
        | Role::Retired
        | Role::Leaving => false,
    };
    silent
        && !instance.accounted
        && instance.ready_at.is_none()
        && fleet.policy.sidecar == SidecarMode::Required
}

/// Marked when this run first saw it, looked at again after a while, then removed.
fn orphan<'a>(
    fleet: &Fleet<'a>,
    member: &Member<'a>,
    evidence: &Evidence<'a>,
    plan: &mut Plan,
) -> Option<TerminateReason> {
    let until = member.instance.adopted_at.after(LOOK_AGAIN);
    if fleet.snapshot.now < until {
        plan.holds.push(Hold::Orphan { instance: member.id.clone(), until });
        plan.wake(until);
        return None;
    }
    let free = evidence.is_free_since(fleet, member, until, plan);
    let still_there = read_since(fleet.snapshot, &[Source::Cloud], until, plan);
    (free && still_there).then_some(TerminateReason::Orphan)
}

/// Past its limit it goes. But one whose agent is on ClearML's list was up, whether or not this run saw it:
/// it gets as long as one that fell silent at its limit.
fn overdue<'a>(
    fleet: &Fleet<'a>,
    member: &Member<'a>,
    deadline: Time,
    evidence: &Evidence<'a>,
    plan: &mut Plan,
) -> Option<TerminateReason> {
    let (snapshot, policy) = (fleet.snapshot, fleet.policy);
    let until = if evidence.lists(member) {
        deadline.after(policy.max_idle).after(policy.silent_grace)
    } else {
        deadline
    };
    if snapshot.now < until {
        plan.holds.push(Hold::LostUntil { instance: member.id.clone(), until });
        plan.wake(until);
        return None;
    }
    let free = evidence.is_free_since(fleet, member, until, plan);
    free.then_some(TerminateReason::NeverReady)
}

/// A silent sidecar's gate has closed by itself. Past the idle limit and some grace its instance may go,
/// unless anything shows a task on it, or a task is missing that it may have taken and is about to begin.
fn lost<'a>(
    fleet: &Fleet<'a>,
    member: &Member<'a>,
    evidence: &Evidence<'a>,
    plan: &mut Plan,
) -> Option<TerminateReason> {
    let (snapshot, policy, instance) = (fleet.snapshot, fleet.policy, member.instance);
    let id = member.id;
    if policy.sidecar == SidecarMode::Off {
        plan.holds.push(Hold::OnItsOwn { instance: id.clone() });
        return None;
    }
    let grace =
        if fault!("lost-without-deadline") { Duration::ZERO } else { policy.max_idle + policy.silent_grace };
    let until = instance.since.after(grace);
    if snapshot.now < until {
        plan.holds.push(Hold::LostUntil { instance: id.clone(), until });
        plan.wake(until);
        return None;
    }
    if !evidence.is_free_since(fleet, member, until, plan) {
        return None;
    }
    // One that ClearML does not list any more has not reported for ten minutes either. A task that it may have
    // popped has not begun by then, and is put back as soon as the machine is gone; else each would wait for
    // the other for ever.
    let tasks = snapshot.limbo_of(&instance.queue);
    if tasks > 0 && evidence.lists(member) {
        let queue = instance.queue.clone();
        plan.holds.push(Hold::Limbo { instance: id.clone(), queue, tasks });
        return None;
    }
    Some(TerminateReason::Lost)
}

fn phase(state: &State) -> &str {
    match state {
        State::Requested => "requested",
        State::Pending => "pending",
        State::Booting { phase } => phase,
        State::Idle
        | State::Busy { .. }
        | State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Terminating
        | State::Gone
        | State::Lost { .. } => "",
    }
}
