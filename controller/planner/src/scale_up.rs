//! Capacity for what waits: first the drained are called back, then pools launch in the order of the
//! queue's list, each up to its maximum, each by the first of its offerings that EC2 has not refused lately.

use std::cmp::Reverse;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::boots::Boots;
use crate::fleet::Fleet;
use crate::hold::Hold;
use crate::ids::{ClientToken, IntentId};
use crate::orders;
use crate::pace::Pace;
use crate::plan::{Action, OrderKind, Plan};
use crate::policy::{Offering, Policy, SidecarMode};

/// Sidecars of instances that an earlier run launched get this long after the start to attach.
const ATTACH: Duration = Duration::from_secs(15);

/// Undrains and launches, queue by queue.
pub(crate) fn plan_capacity(fleet: &mut Fleet<'_>, may_launch: bool, plan: &mut Plan) {
    let mut unattached = 0;
    let mut launches = 0;
    let mut pace = Pace::of(fleet.snapshot.now, fleet.policy.launches_per_minute, &fleet.snapshot.launches);
    let attached_by = fleet.snapshot.started_at.after(ATTACH);
    for queue in 0..fleet.queues.len() {
        let view = &fleet.queues[queue];
        let awaited = fleet.policy.sidecar == SidecarMode::Required
            && fleet.snapshot.now < attached_by
            && view.unattached > 0;
        if awaited {
            unattached += view.unattached;
        }
        let Some(waiting) = view.waiting else { continue };
        let missing = waiting.saturating_sub(capacity(fleet, queue));
        let missing = undrain(fleet, queue, missing, plan);
        if missing > 0 && may_launch && !awaited {
            launch(fleet, queue, missing, &mut launches, &mut pace, plan);
        }
    }
    if unattached > 0 {
        plan.holds.push(Hold::AwaitingSessions { instances: unattached, until: attached_by });
        plan.wake(attached_by);
    }
}

/// How many tasks the queue's instances can take now or soon.
fn capacity(fleet: &Fleet<'_>, queue: usize) -> u32 {
    let view = &fleet.queues[queue];
    let of_pool = |at: &usize| {
        let pool = &fleet.pools[*at];
        pool.open.saturating_add(pool.coming).saturating_add(pool.undraining).saturating_add(pool.expected)
    };
    view.pools.iter().map(of_pool).fold(view.stray_capacity, u32::saturating_add)
}

/// Calls back as many of the drained as are missing, the newest first; how many are missing still.
fn undrain(fleet: &mut Fleet<'_>, queue: usize, mut missing: u32, plan: &mut Plan) -> u32 {
    if missing == 0 {
        return 0;
    }
    let mut drained: Vec<usize> = Vec::new();
    for at in &fleet.queues[queue].pools {
        drained.extend(&fleet.pools[*at].drained);
    }
    drained.sort_by_key(|index| (Reverse(fleet.members[*index].instance.launched_at), *index));
    for index in drained {
        if missing == 0 {
            break;
        }
        let Some(at) = fleet.members[index].pool else { continue };
        if fleet.pools[at].staying.saturating_add(fleet.pools[at].in_flight) >= fleet.pools[at].pool.maximum {
            continue;
        }
        if orders::give(fleet, &fleet.members[index], OrderKind::Undrain, plan) {
            fleet.pools[at].staying += 1;
            missing -= 1;
        }
        fleet.members[index].decided = true;
    }
    missing
}

fn launch(
    fleet: &mut Fleet<'_>,
    queue: usize,
    mut missing: u32,
    launches: &mut u64,
    pace: &mut Pace,
    plan: &mut Plan,
) {
    let mut maximum: u32 = 0;
    let mut full = true;
    for place in 0..fleet.queues[queue].pools.len() {
        let at = fleet.queues[queue].pools[place];
        let pool = &mut fleet.pools[at];
        maximum = maximum.saturating_add(pool.pool.maximum);
        let taken = if fault!("maximum-ignored") { 0 } else { pool.counted.saturating_add(pool.in_flight) };
        let room = pool.pool.maximum.saturating_sub(taken);
        if room == 0 || missing == 0 {
            full &= room == 0;
            continue;
        }
        let Some(offering) = offering(fleet, at, plan) else {
            full = false;
            continue;
        };
        let wanted = room.min(missing);
        let (tried, left) = may_try(fleet, at, wanted, plan);
        let count = pace.take(tried, plan);
        full &= wanted == room && tried == wanted && count == tried;
        missing -= wanted - left;
        if count == 0 {
            continue;
        }
        let pool = fleet.pools[at].pool;
        let intent = IntentId(format!("{}-{}", fleet.snapshot.epoch, fleet.snapshot.next_intent + *launches));
        *launches += 1;
        let token = token(fleet.policy, &intent, offering);
        plan.actions.push(Action::Launch {
            intent,
            resource: pool.resource.clone(),
            queue: pool.queue.clone(),
            offering: offering.clone(),
            count,
            token,
        });
    }
    if missing > 0 && full {
        let queue = fleet.queues[queue].name.into();
        plan.holds.push(Hold::MaximumReached { queue, waiting: missing, maximum });
    }
}

/// How many of the wanted a pool may try, by how its last boots ended; and how many of the others are left to
/// the next pool. What a pool will do as soon as its first instance is ready is not left to another.
fn may_try(fleet: &Fleet<'_>, at: usize, wanted: u32, plan: &mut Plan) -> (u32, u32) {
    let (pool, now) = (&fleet.pools[at], fleet.snapshot.now);
    let unknown = Boots::default();
    let boots = fleet.snapshot.boots.get(&pool.pool.resource).unwrap_or(&unknown);
    let Some(limit) = boots.limit(now) else { return (wanted, 0) };
    let tried = wanted.min(limit.saturating_sub(pool.unready.saturating_add(pool.in_flight)));
    if tried < wanted {
        let hold = boots.hold(&pool.pool.resource, now);
        if let Hold::PoolPaused { until, .. } = &hold {
            plan.wake(*until);
        }
        plan.holds.push(hold);
    }
    (tried, if boots.is_broken() { wanted - tried } else { 0 })
}

/// The first of the pool's offerings that is not to be left alone.
fn offering<'a>(fleet: &Fleet<'a>, at: usize, plan: &mut Plan) -> Option<&'a Offering> {
    let (pool, snapshot) = (&fleet.pools[at], fleet.snapshot);
    let Some(resource) = pool.resource else {
        let reason = "resource_configurations does not define it".to_owned();
        plan.holds.push(Hold::ResourceBlocked { resource: pool.pool.resource.clone(), reason });
        return None;
    };
    if let Some(reason) = &resource.blocked {
        let resource = pool.pool.resource.clone();
        plan.holds.push(Hold::ResourceBlocked { resource, reason: reason.clone() });
        return None;
    }
    for offering in &resource.offerings {
        match snapshot.unavailable.get(offering) {
            Some((until, reason)) if *until > snapshot.now => {
                let (offering, reason) = (offering.clone(), reason.clone());
                plan.holds.push(Hold::Unavailable { offering, until: *until, reason });
                plan.wake(*until);
            }
            Some(_) | None => return Some(offering),
        }
    }
    None
}

/// The same intent and offering always give the same token, no other ever does.
fn token(policy: &Policy, intent: &IntentId, offering: &Offering) -> ClientToken {
    let digest = Sha256::digest(format!("{}|{intent}|{offering}", policy.fleet));
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let text = nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect();
    ClientToken(text)
}
