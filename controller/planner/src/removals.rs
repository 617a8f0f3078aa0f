//! Who is ended, and by what right: the retired, those that never became ready, and the lost.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::{InstanceId, Time};
use crate::plan::{Action, Plan, TerminateReason};
use crate::policy::SidecarMode;
use crate::role::Role;
use crate::snapshot::State;

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
            plan.wake(deadline);
            None
        }
        Role::Idle
        | Role::Busy
        | Role::Draining
        | Role::Drained
        | Role::Undraining
        | Role::Retiring
        | Role::Leaving => None,
    }
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
/// unless anything shows a task on it, or a task is missing that it may have taken.
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
    let until = instance.since.after(policy.max_idle).after(policy.silent_grace);
    if snapshot.now < until {
        plan.holds.push(Hold::LostUntil { instance: id.clone(), until });
        plan.wake(until);
        return None;
    }
    if !evidence.is_free_since(fleet, member, until, plan) {
        return None;
    }
    match snapshot.limbo.get(&instance.queue) {
        Some(tasks) if *tasks > 0 => {
            let queue = instance.queue.clone();
            plan.holds.push(Hold::Limbo { instance: id.clone(), queue, tasks: *tasks });
            None
        }
        Some(_) | None => Some(TerminateReason::Lost),
    }
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
