//! What the operator drains: told to finish, whatever waits and however stale the lists are, then gone by
//! the path of every drain. And what the operator has taken back: its gate is opened again.
//!
//! A busy instance closes its gate behind its task. To wait until it is idle instead would be to wait for
//! ever where tasks wait: the agent asks for the next one before a word can reach it.

use crate::fleet::{Fleet, Member};
use crate::hold::{Awaits, Hold};
use crate::ids::TaskId;
use crate::orders;
use crate::plan::{OrderKind, Plan};
use crate::policy::SidecarMode;
use crate::role::Role;
use crate::scale_down::is_reachable;
use crate::snapshot::{Answer, State};

/// Orders to what the operator drains or has taken back, and why the drained are not gone yet.
pub(crate) fn plan_operator(fleet: &mut Fleet<'_>, plan: &mut Plan) {
    for index in 0..fleet.members.len() {
        let member = &fleet.members[index];
        if member.asked {
            drain(fleet, member, plan);
        } else if is_taken_back(fleet, member) {
            orders::give(fleet, member, OrderKind::Undrain, plan);
            reopen(fleet, index);
        }
    }
}

fn drain(fleet: &Fleet<'_>, member: &Member<'_>, plan: &mut Plan) {
    let awaits = match member.role {
        // It was up once, and boots again as far as anybody can tell.
        Role::Busy if member.instance.is_coming() => Some(Awaits::Boot),
        Role::Idle | Role::Busy if !is_reachable(fleet, member) => Some(unreachable(fleet)),
        Role::Idle => {
            orders::give(fleet, member, OrderKind::Finish, plan);
            None
        }
        Role::Busy | Role::Finishing => {
            if !member.instance.finishing {
                orders::give(fleet, member, OrderKind::Finish, plan);
            }
            Some(Awaits::Task(task_of(&member.instance.state)))
        }
        Role::Draining => {
            orders::give(fleet, member, OrderKind::Drain, plan);
            None
        }
        Role::Drained | Role::Retiring => {
            orders::give(fleet, member, OrderKind::Retire, plan);
            None
        }
        Role::Coming { .. } => Some(Awaits::Boot),
        Role::Lost => Some(unreachable(fleet)),
        // Told to open, it is told to close once it has answered.
        Role::Undraining | Role::Overdue { .. } | Role::Retired | Role::Leaving => None,
    };
    if let (Some(awaits), Some(since)) = (awaits, fleet.snapshot.operator.drains.get(member.id)) {
        plan.holds.push(Hold::OperatorDrain { instance: member.id.clone(), since: *since, awaits });
    }
}

/// It is capacity from now on, and nobody else's to call back.
fn reopen(fleet: &mut Fleet<'_>, index: usize) {
    let member = &mut fleet.members[index];
    member.decided = true;
    let drained = member.role == Role::Drained;
    if let Some(at) = member.pool.filter(|_| drained) {
        let pool = &mut fleet.pools[at];
        pool.drained.retain(|drained| *drained != index);
        pool.undraining += 1;
        pool.staying += 1;
    }
}

fn task_of(state: &State) -> Option<TaskId> {
    if let State::Busy { task } = state { task.clone() } else { None }
}

fn unreachable(fleet: &Fleet<'_>) -> Awaits {
    match fleet.policy.sidecar {
        SidecarMode::Required => Awaits::Sidecar,
        SidecarMode::Off => Awaits::Itself,
    }
}

/// The operator had closed its gate, and does not want it closed any more.
fn is_taken_back(fleet: &Fleet<'_>, member: &Member<'_>) -> bool {
    match member.role {
        Role::Finishing => true,
        Role::Drained => member.instance.last_order.as_ref().is_some_and(|(order, _, answer)| {
            order.epoch == fleet.snapshot.epoch
                && order.kind == OrderKind::Finish
                && matches!(answer, Answer::Awaited | Answer::Done)
        }),
        Role::Coming { .. }
        | Role::Overdue { .. }
        | Role::Idle
        | Role::Busy
        | Role::Draining
        | Role::Undraining
        | Role::Retiring
        | Role::Retired
        | Role::Lost
        | Role::Leaving => false,
    }
}
