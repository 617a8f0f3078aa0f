//! Who is told to go, and who of those goes for good.
//!
//! Three grounds to drain: an instance of no pool, a pool over its maximum, and idleness beyond the
//! limit that no waiting task needs. Only the idle are told; the rest finish first. Nothing here
//! rests on stale data: a queue that can't be read drains nothing and retires nothing.

use std::collections::BTreeMap;

use crate::evidence;
use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::ResourceName;
use crate::orders;
use crate::plan::{OrderKind, Plan};
use crate::policy::SidecarMode;
use crate::role::Role;
use crate::snapshot::{Signal, Source};

/// Drains, and the holds of the idle.
pub(crate) fn plan_drains(fleet: &mut Fleet<'_>, plan: &mut Plan) {
    drain_strays(fleet, plan);
    drain_excess(fleet, plan);
    for queue in 0..fleet.queues.len() {
        drain_idle(fleet, queue, plan);
    }
    for member in fleet.members.iter().filter(|member| member.role == Role::Draining && !member.asked) {
        if member.instance.kept {
            plan.holds.push(Hold::Kept { instance: member.id.clone() });
        } else if fleet.demand_is_known(member) {
            orders::give(fleet, member, OrderKind::Drain, plan);
        }
    }
    plan.holds.extend(fleet.refusing.iter().filter_map(|at| orders::refused_drain(&fleet.members[*at])));
}

/// Whether an order can reach it.
pub(crate) fn is_reachable(fleet: &Fleet<'_>, member: &Member<'_>) -> bool {
    fleet.policy.sidecar == SidecarMode::Required && member.instance.signal == Signal::Sidecar
}

/// What the budget no longer has goes as soon as it is idle.
fn drain_strays(fleet: &Fleet<'_>, plan: &mut Plan) {
    let fresh = fleet.snapshot.is_fresh(Source::Queues);
    let mut staying: BTreeMap<&ResourceName, u32> = BTreeMap::new();
    for member in fleet.members.iter().filter(|member| member.pool.is_none() && !member.asked) {
        match member.role {
            Role::Idle if member.instance.kept => {
                plan.holds.push(Hold::Kept { instance: member.id.clone() });
            }
            Role::Idle if is_reachable(fleet, member) && fresh => {
                orders::give(fleet, member, OrderKind::Drain, plan);
            }
            Role::Idle if !is_reachable(fleet, member) => {
                plan.holds.push(Hold::OnItsOwn { instance: member.id.clone() });
            }
            Role::Idle | Role::Busy | Role::Finishing | Role::Coming { .. } | Role::Undraining => {
                *staying.entry(&member.instance.resource).or_default() += 1;
            }
            Role::Overdue { .. }
            | Role::Draining
            | Role::Drained
            | Role::Retiring
            | Role::Retired
            | Role::Lost
            | Role::Leaving => {}
        }
    }
    plan.holds.extend(
        staying
            .into_iter()
            .map(|(resource, excess)| Hold::OverMaximum { resource: resource.clone(), excess }),
    );
}

/// A lowered maximum drains what is idle, the longest idle first, and never a busy one.
fn drain_excess(fleet: &mut Fleet<'_>, plan: &mut Plan) {
    for at in 0..fleet.pools.len() {
        let pool = &fleet.pools[at];
        let sure = fleet.snapshot.is_fresh(Source::Cloud) && fleet.queues[pool.queue].waiting.is_some();
        let mut excess = pool.staying.saturating_sub(pool.pool.maximum);
        if excess == 0 {
            continue;
        }
        if sure {
            let mut idle = pool.idle.clone();
            let may_go = |member: &Member<'_>| is_reachable(fleet, member) && !member.instance.kept;
            idle.retain(|index| may_go(&fleet.members[*index]));
            idle.sort_by_key(|index| (fleet.members[*index].instance.since, *index));
            idle.truncate(excess as usize);
            for index in idle {
                if orders::give(fleet, &fleet.members[index], OrderKind::Drain, plan) {
                    fleet.pools[at].open -= 1;
                    excess -= 1;
                }
                fleet.members[index].decided = true;
            }
        }
        if excess > 0 {
            let pool = &mut fleet.pools[at];
            // Those on their way beyond the maximum are told to go when they arrive: nothing can rely on them.
            if fleet.policy.sidecar == SidecarMode::Required {
                pool.coming = pool.coming.saturating_sub(excess);
            }
            plan.holds.push(Hold::OverMaximum { resource: pool.pool.resource.clone(), excess });
        }
    }
}

/// As many idle instances as tasks wait are kept, those with an operator's tag before all others; the rest
/// goes at its limit, later pools first, then the longest idle.
fn drain_idle(fleet: &mut Fleet<'_>, queue: usize, plan: &mut Plan) {
    let snapshot = fleet.snapshot;
    let waiting = fleet.queues[queue].waiting;
    if snapshot.is_fresh(Source::Queues) && !fleet.queues[queue].listed {
        plan.holds.push(Hold::QueueUnknown { queue: fleet.queues[queue].name.into() });
    }
    let mut idle = Vec::new();
    for (position, at) in fleet.queues[queue].pools.iter().enumerate() {
        let undecided = fleet.pools[*at].idle.iter().filter(|index| !fleet.members[**index].decided);
        idle.extend(undecided.map(|index| {
            let instance = fleet.members[*index].instance;
            (instance.kept, usize::MAX - position, instance.since, *index)
        }));
    }
    idle.sort_unstable();
    let kept = waiting.unwrap_or(u32::MAX) as usize;
    let may_go = idle.len().saturating_sub(kept);
    for (place, (is_spared, _, since, index)) in idle.into_iter().enumerate() {
        let until = since.after(fleet.policy.max_idle);
        let member = &fleet.members[index];
        if snapshot.now < until {
            plan.holds.push(Hold::IdleUntil { instance: member.id.clone(), until });
            if place < may_go && is_reachable(fleet, member) {
                plan.wake(until);
            }
        } else if !is_reachable(fleet, member) {
            plan.holds.push(Hold::OnItsOwn { instance: member.id.clone() });
        } else if place < may_go && is_spared {
            plan.holds.push(Hold::Kept { instance: member.id.clone() });
        } else if place < may_go {
            if orders::give(fleet, member, OrderKind::Drain, plan) {
                let at = member.pool;
                if let Some(at) = at {
                    fleet.pools[at].open -= 1;
                }
            }
        } else if waiting.is_some() {
            plan.holds.push(Hold::KeptForWaiting { instance: member.id.clone() });
        }
    }
}

/// The drained that nothing wants back are retired, once the queue has been read after their gate closed:
/// a task that came in between has called them back by then.
pub(crate) fn plan_retirements(fleet: &Fleet<'_>, plan: &mut Plan) {
    for member in &fleet.members {
        match member.role {
            Role::Undraining => {
                orders::give(fleet, member, OrderKind::Undrain, plan);
            }
            Role::Drained if member.instance.kept && !member.decided => {
                orders::give(fleet, member, OrderKind::Undrain, plan);
            }
            // The operator has the last word on these.
            Role::Drained | Role::Retiring if member.asked => {}
            Role::Retiring if fleet.demand_is_known(member) => {
                orders::give(fleet, member, OrderKind::Retire, plan);
            }
            Role::Drained if !member.decided && fleet.demand_is_known(member) => {
                if evidence::read_since(fleet.snapshot, &[Source::Queues], member.instance.since, plan) {
                    orders::give(fleet, member, OrderKind::Retire, plan);
                } else {
                    plan.holds.push(Hold::FreshLook { instance: member.id.clone() });
                }
            }
            Role::Drained
            | Role::Retiring
            | Role::Coming { .. }
            | Role::Overdue { .. }
            | Role::Idle
            | Role::Busy
            | Role::Finishing
            | Role::Draining
            | Role::Retired
            | Role::Lost
            | Role::Leaving => {}
        }
    }
}
