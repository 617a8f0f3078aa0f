//! One pass, in the order in which it decides: what may be done at all, who is told to go, what is
//! still wanted and where it comes from, who goes for good, and what the departed leave behind.

use std::time::Duration;

use crate::fleet::Fleet;
use crate::hold::Hold;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::snapshot::{Pause, Snapshot, Source};
use crate::{ghosts, intents, operator, removals, scale_down, scale_up, shutdown, tasks};

/// Without the journal of before, nothing is launched for this long: what an earlier run launched has
/// shown itself by then.
const NEW_JOURNAL: Duration = Duration::from_secs(60);

/// The sources that must have been read once before anything is done.
const ADOPTION: [Source; 3] = [Source::Queues, Source::Workers, Source::Cloud];

/// What to do about this snapshot. The same snapshot always gives the same plan.
pub fn plan(policy: &Policy, snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let missing: Vec<Source> =
        ADOPTION.into_iter().filter(|source| !snapshot.freshness.contains_key(source)).collect();
    if !missing.is_empty() && !fault!("adoption-skipped") {
        plan.refresh.extend(&missing);
        plan.holds.push(Hold::Adopting { missing });
        return plan;
    }
    let may_launch = limits_of_the_run(snapshot, &mut plan);
    // Nearly every instance is held for some reason.
    plan.holds.reserve(snapshot.instances.len());
    let mut fleet = Fleet::of(policy, snapshot);
    intents::count_in_flight(&mut fleet, &mut plan);

    if let Some(action) = policy.shutdown {
        shutdown::plan_shutdown(&fleet, action, &mut plan);
    } else {
        operator::plan_operator(&mut fleet, &mut plan);
        scale_down::plan_drains(&mut fleet, &mut plan);
        scale_up::plan_capacity(&mut fleet, may_launch, &mut plan);
        intents::plan_intents(&fleet, may_launch, &mut plan);
        scale_down::plan_retirements(&fleet, &mut plan);
        removals::plan_removals(&fleet, &mut plan);
    }
    ghosts::plan_ghosts(&fleet, &mut plan);
    tasks::plan_tasks(&fleet, &mut plan);
    plan
}

/// Holds that concern the whole run; whether it may launch.
fn limits_of_the_run(snapshot: &Snapshot, plan: &mut Plan) -> bool {
    let mut may_launch = true;
    if !snapshot.lease_held && !fault!("lease-ignored") {
        plan.holds.push(Hold::LeaseLost);
        may_launch = false;
    }
    if let Some(Pause { since, reason }) = &snapshot.operator.paused {
        plan.holds.push(Hold::Paused { since: *since, reason: reason.clone() });
        may_launch = false;
    }
    let until = snapshot.started_at.after(NEW_JOURNAL);
    if snapshot.journal_is_new && snapshot.now < until && !fault!("new-journal-ignored") {
        plan.holds.push(Hold::NewJournal { until });
        plan.wake(until);
        may_launch = false;
    }
    for source in ADOPTION {
        if let Some(since) = snapshot.freshness.get(&source).and_then(|age| age.stale_since) {
            plan.holds.push(Hold::Stale { source, since });
        }
    }
    may_launch && snapshot.is_fresh(Source::Queues) && snapshot.is_fresh(Source::Cloud)
}
