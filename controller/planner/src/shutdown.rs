//! The last passes of a run: what becomes of the fleet when its autoscaler ends.
//!
//! Nothing is launched and nothing called back, so what waits in a queue keeps nobody. An idle instance
//! still goes by the same path as ever: drained, retired, looked at afresh, ended. Only a word of the
//! operator's ends an instance that may hold a task.

use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::InstanceId;
use crate::orders;
use crate::plan::{Action, OrderKind, Plan, TerminateReason};
use crate::policy::ShutdownAction;
use crate::removals;
use crate::role::Role;
use crate::scale_down::is_reachable;
use crate::snapshot::State;

/// Orders and terminations of the last passes, and how many instances are still to go by them.
pub(crate) fn plan_shutdown(fleet: &Fleet<'_>, action: ShutdownAction, plan: &mut Plan) {
    let remaining = match action {
        ShutdownAction::Nothing => 0,
        ShutdownAction::Idle => {
            let told = fleet.members.iter().filter(|member| send_away(fleet, member, plan)).count();
            removals::plan_removals(fleet, plan);
            told
        }
        ShutdownAction::All => end_all(fleet, plan),
    };
    let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
    plan.holds.push(Hold::ShuttingDown { action, remaining });
}

/// The next order on the way out; whether the instance is on that way.
fn send_away(fleet: &Fleet<'_>, member: &Member<'_>, plan: &mut Plan) -> bool {
    if member.instance.kept {
        plan.holds.push(Hold::Kept { instance: member.id.clone() });
        return false;
    }
    let order = match member.role {
        Role::Idle if !is_reachable(fleet, member) => {
            plan.holds.push(Hold::OnItsOwn { instance: member.id.clone() });
            return false;
        }
        // Told to finish, and not heard of since: it may hold nothing, and that is asked for now.
        Role::Finishing if member.instance.state == State::Idle => OrderKind::Drain,
        Role::Idle | Role::Draining => OrderKind::Drain,
        // Its gate may be open again, and a task behind it: what it does next, it reports.
        Role::Undraining => OrderKind::Undrain,
        Role::Drained | Role::Retiring => OrderKind::Retire,
        // Retired, it is ended once it was looked at afresh.
        Role::Retired => return true,
        Role::Busy => {
            plan.holds.extend(orders::refused_drain(member));
            return false;
        }
        // It goes by itself once its task has ended.
        Role::Finishing | Role::Coming { .. } | Role::Overdue { .. } | Role::Lost | Role::Leaving => {
            return false;
        }
    };
    orders::give(fleet, member, order, plan);
    true
}

/// Every machine that is not on its way out already and not spared by name; how many.
fn end_all(fleet: &Fleet<'_>, plan: &mut Plan) -> usize {
    let remaining = fleet.members.iter().filter(|member| member.instance.counts() && !member.instance.kept);
    let instances: Vec<InstanceId> = remaining.map(|member| member.id.clone()).collect();
    let count = instances.len();
    if count > 0 {
        plan.actions.push(Action::Terminate { instances, reason: TerminateReason::Shutdown });
    }
    count
}
