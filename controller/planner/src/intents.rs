//! Launches that are written down and not settled: what they may yet bring, asking again, and closing them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence;
use crate::fleet::Fleet;
use crate::ghosts::VISIBLE_AFTER;
use crate::hold::Hold;
use crate::ids::IntentId;
use crate::plan::{Action, Plan};
use crate::snapshot::{Instance, Intent, Source, State};

/// An unanswered launch that is not to be asked for again is given up this long after its last try:
/// whatever came of it carries the fleet's tag and is on EC2's list by then.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// Counts what open launches may bring beyond the instances that are known.
pub(crate) fn count_in_flight(fleet: &mut Fleet<'_>, plan: &mut Plan) {
    if fleet.snapshot.intents.is_empty() {
        return;
    }
    let seen = seen_by_intent(fleet);
    for (id, intent) in &fleet.snapshot.intents {
        let Some(at) = fleet.pool_of(&intent.resource) else { continue };
        let missing = if fault!("pending-not-counted") { 0 } else { missing(fleet, id, intent, &seen) };
        // As with an instance that never becomes ready: what may come some day is not waited for.
        let asked_at = if intent.answered.is_some() { last_try(fleet, intent) } else { intent.created_at };
        let max_spin_up = fleet.policy.max_spin_up;
        let now = fleet.snapshot.now;
        let pool = &mut fleet.pools[at];
        pool.in_flight = pool.in_flight.saturating_add(missing);
        let relied_on_until = asked_at.after(max_spin_up);
        if missing > 0 && now < relied_on_until && pool.pool.queue == intent.queue {
            plan.wake(relied_on_until);
            pool.expected = pool.expected.saturating_add(missing);
        }
    }
}

/// Asks again where no answer came, and closes what is over.
pub(crate) fn plan_intents(fleet: &Fleet<'_>, may_launch: bool, plan: &mut Plan) {
    if fleet.snapshot.intents.is_empty() {
        return;
    }
    let seen = seen_by_intent(fleet);
    for (id, intent) in &fleet.snapshot.intents {
        let over = match &intent.answered {
            Some(_) => is_seen_through(fleet, intent, plan),
            None => missing(fleet, id, intent, &seen) == 0 || unanswered(fleet, id, intent, may_launch, plan),
        };
        let until = relied_on_until(fleet, intent);
        if over {
            plan.actions.push(Action::Settle { intent: id.clone() });
        } else if fleet.snapshot.now < until {
            plan.wake(until);
        }
    }
}

/// Instances of each open launch, gone ones included.
fn seen_by_intent<'a>(fleet: &Fleet<'a>) -> BTreeMap<&'a IntentId, u32> {
    let open = &fleet.snapshot.intents;
    let mut seen = BTreeMap::new();
    for intent in fleet.members.iter().filter_map(|member| member.instance.intent.as_ref()) {
        if open.contains_key(intent) {
            *seen.entry(intent).or_default() += 1;
        }
    }
    seen
}

/// How many instances may come of it that are not known yet.
fn missing(fleet: &Fleet<'_>, id: &IntentId, intent: &Intent, seen: &BTreeMap<&IntentId, u32>) -> u32 {
    let snapshot = fleet.snapshot;
    match &intent.answered {
        None => intent.count.saturating_sub(seen.get(id).copied().unwrap_or_default()),
        Some(ids) => {
            let unseen = ids
                .iter()
                .filter(|id| !snapshot.instances.contains_key(*id) && !snapshot.proven_gone.contains(*id));
            u32::try_from(unseen.count()).unwrap_or(u32::MAX)
        }
    }
}

/// What may come of it counts as capacity until then.
fn relied_on_until(fleet: &Fleet<'_>, intent: &Intent) -> crate::Time {
    last_try(fleet, intent).after(fleet.policy.max_spin_up)
}

/// When it was asked for last, as far as this run can tell: an earlier run may have had another clock.
fn last_try(fleet: &Fleet<'_>, intent: &Intent) -> crate::Time {
    intent.created_at.max(intent.retry_at).max(fleet.snapshot.started_at)
}

/// Whether every instance of the answer is on EC2's list or proven gone. A sidecar may speak for an
/// instance that EC2 does not list yet: a run that began now would know of it by the note alone.
fn is_seen_through(fleet: &Fleet<'_>, intent: &Intent, plan: &mut Plan) -> bool {
    let snapshot = fleet.snapshot;
    let visible_at = last_try(fleet, intent).after(VISIBLE_AFTER);
    let mut over = true;
    for id in intent.answered.iter().flatten() {
        let known = snapshot.instances.get(id);
        let is_listed = |known: &Instance| {
            known.state != State::Requested && (known.zone.is_some() || snapshot.now >= visible_at)
        };
        if snapshot.proven_gone.contains(id) || known.is_some_and(is_listed) {
            continue;
        }
        over = false;
        if snapshot.now < visible_at {
            plan.wake(visible_at);
        } else if known.is_none() {
            plan.look_up.insert(id.clone());
        }
    }
    over
}

/// Asks again when it is time. What must not be asked for again, for the budget has changed, is given
/// up in the end: whether it is.
fn unanswered(fleet: &Fleet<'_>, id: &IntentId, intent: &Intent, may_launch: bool, plan: &mut Plan) -> bool {
    let snapshot = fleet.snapshot;
    let pool = fleet.pool_of(&intent.resource).map(|at| &fleet.pools[at]);
    let wanted = pool.is_some_and(|pool| {
        pool.pool.queue == intent.queue
            && pool.counted.saturating_add(pool.in_flight) <= pool.pool.maximum
            && pool.resource.is_some_and(|resource| resource.blocked.is_none())
    });
    if !wanted {
        let until = last_try(fleet, intent).after(GIVEN_UP_AFTER);
        if evidence::read_since(snapshot, &[Source::Cloud], until, plan) {
            return true;
        }
        plan.holds.push(Hold::LaunchGivenUp { intent: id.clone(), count: intent.count, until });
        return false;
    }
    if may_launch && snapshot.now >= intent.retry_at {
        plan.actions.push(Action::Launch {
            intent: id.clone(),
            resource: intent.resource.clone(),
            queue: intent.queue.clone(),
            offering: intent.offering.clone(),
            count: intent.count,
            token: intent.token.clone(),
        });
        return false;
    } else if snapshot.now < intent.retry_at {
        plan.wake(intent.retry_at);
    }
    plan.holds.push(Hold::LaunchUnanswered {
        intent: id.clone(),
        count: intent.count,
        retry_at: intent.retry_at,
    });
    false
}
