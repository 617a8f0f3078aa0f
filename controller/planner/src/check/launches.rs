//! Launches and their notes: only with the right to launch, never over a maximum, never twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Sums, Violation, require};
use crate::ids::{ClientToken, IntentId, QueueName, ResourceName, Time};
use crate::plan::{Action, Plan};
use crate::policy::{Offering, Policy};
use crate::snapshot::{Intent, Snapshot, Source, State};

/// A launch, taken out of its action.
struct Launch<'a> {
    intent: &'a IntentId,
    resource: &'a ResourceName,
    queue: &'a QueueName,
    offering: &'a Offering,
    count: u32,
    token: &'a ClientToken,
}

pub(super) fn check(
    policy: &Policy,
    snapshot: &Snapshot,
    sums: &Sums<'_>,
    plan: &Plan,
) -> Result<(), Violation> {
    let mut launches = Vec::new();
    for action in &plan.actions {
        match action {
            Action::Launch { intent, resource, queue, offering, count, token } => {
                launches.push(Launch { intent, resource, queue, offering, count: *count, token });
            }
            Action::Settle { intent } => settled(policy, snapshot, sums, intent)?,
            Action::Send { .. }
            | Action::Terminate { .. }
            | Action::Unregister { .. }
            | Action::Task { .. } => {}
        }
    }
    if launches.is_empty() {
        return Ok(());
    }
    require(policy.shutdown.is_none(), || "it launches while it shuts down".to_owned())?;
    may_launch(snapshot)?;
    each_once(snapshot, &launches)?;
    for launch in &launches {
        match snapshot.intents.get(launch.intent) {
            Some(written) => asked_again(snapshot, launch, written)?,
            None => asked_first(policy, snapshot, sums, launch)?,
        }
    }
    within_maxima(snapshot, sums, &launches)?;
    within_pace(policy, snapshot, &launches)?;
    none_into_a_broken_pool(snapshot, sums, &launches)?;
    within_demand(snapshot, sums, &launches)
}

fn may_launch(snapshot: &Snapshot) -> Result<(), Violation> {
    require(snapshot.lease_held, || "it launches without the lease".to_owned())?;
    let paused = snapshot.operator.paused.is_some();
    require(!paused, || "it launches while the operator has paused launches".to_owned())?;
    let waited = snapshot.now.since(snapshot.started_at) >= Duration::from_secs(60);
    require(waited || !snapshot.journal_is_new, || "it launches without the journal of before".to_owned())?;
    for source in [Source::Queues, Source::Cloud] {
        require(snapshot.is_fresh(source), || format!("it launches by stale {source}"))?;
    }
    Ok(())
}

fn each_once(snapshot: &Snapshot, launches: &[Launch<'_>]) -> Result<(), Violation> {
    let mut intents = BTreeSet::new();
    let mut tokens: BTreeMap<&ClientToken, &IntentId> =
        snapshot.intents.iter().map(|(id, intent)| (&intent.token, id)).collect();
    for launch in launches {
        require(intents.insert(launch.intent), || format!("launch {} is made twice", launch.intent))?;
        let owner = *tokens.entry(launch.token).or_insert(launch.intent);
        require(owner == launch.intent, || format!("launches {owner} and {} share a token", launch.intent))?;
        let fits = (1..=64).contains(&launch.token.as_str().len()) && launch.token.as_str().is_ascii();
        require(fits, || format!("launch {} has a token that EC2 refuses", launch.intent))?;
        require((1..=1000).contains(&launch.count), || {
            format!("launch {} asks for {}", launch.intent, launch.count)
        })?;
    }
    Ok(())
}

/// The very same request, and only while its answer is not known.
fn asked_again(snapshot: &Snapshot, launch: &Launch<'_>, written: &Intent) -> Result<(), Violation> {
    let same = written.token == *launch.token
        && written.count == launch.count
        && written.offering == *launch.offering
        && written.resource == *launch.resource
        && written.queue == *launch.queue;
    require(same, || format!("launch {} is repeated otherwise than it was written", launch.intent))?;
    require(written.answered.is_none(), || format!("launch {} is repeated after its answer", launch.intent))?;
    require(snapshot.now >= written.retry_at, || format!("launch {} is repeated too early", launch.intent))
}

fn asked_first(
    policy: &Policy,
    snapshot: &Snapshot,
    sums: &Sums<'_>,
    launch: &Launch<'_>,
) -> Result<(), Violation> {
    let name = launch.intent;
    let numbered = name.as_str().split_once('-').is_some_and(|(epoch, number)| {
        epoch.parse() == Ok(snapshot.epoch)
            && number.parse().is_ok_and(|number: u64| number >= snapshot.next_intent)
    });
    require(numbered, || format!("launch {name} is not numbered by this run"))?;
    let of_budget = sums.pool(launch.resource).is_some_and(|pool| pool.queue == *launch.queue);
    require(of_budget, || format!("launch {name} is of no pool"))?;
    let resource = policy.resources.get(launch.resource);
    let sold = resource
        .is_some_and(|resource| resource.blocked.is_none() && resource.offerings.contains(launch.offering));
    require(sold, || format!("launch {name} is of a resource that can't be launched so"))?;
    let left_alone =
        snapshot.unavailable.get(launch.offering).is_some_and(|(until, _)| *until > snapshot.now);
    require(!left_alone, || format!("launch {name} asks for what EC2 refused lately"))
}

/// Instances there, instances that open launches may bring, and those asked for now: no more than the maximum.
fn within_maxima(snapshot: &Snapshot, sums: &Sums<'_>, launches: &[Launch<'_>]) -> Result<(), Violation> {
    let mut new: BTreeMap<&ResourceName, u64> = BTreeMap::new();
    for launch in launches {
        let first = !snapshot.intents.contains_key(launch.intent);
        *new.entry(launch.resource).or_default() += if first { u64::from(launch.count) } else { 0 };
    }
    for (resource, new) in new {
        let count = sums.counted(resource) + new;
        let maximum = sums.pool(resource).map_or(0, |pool| u64::from(pool.maximum));
        require(count <= maximum, || format!("{count} instances of {resource}, {maximum} at most"))?;
    }
    Ok(())
}

/// The operator's limit over any minute, and EC2's bucket of a thousand.
fn within_pace(policy: &Policy, snapshot: &Snapshot, launches: &[Launch<'_>]) -> Result<(), Violation> {
    let first = launches.iter().filter(|launch| !snapshot.intents.contains_key(launch.intent));
    let new: u64 = first.map(|launch| u64::from(launch.count)).sum();
    if new == 0 {
        return Ok(());
    }
    let since = |began: Time| {
        let later = snapshot.launches.iter().filter(move |(at, _)| *at >= began);
        new + later.map(|(_, count)| u64::from(*count)).sum::<u64>()
    };
    let limit = u64::from(policy.launches_per_minute);
    let minute = since(Time(snapshot.now.0.saturating_sub(59_999)));
    require(minute <= limit, || format!("{minute} launches within a minute, {limit} at most"))?;
    for (began, _) in &snapshot.launches {
        let (count, span) = (since(*began), snapshot.now.since(*began));
        let held = 1000 + span.as_secs() * 2 + 1;
        require(count <= held, || format!("{count} launches within {span:?}, EC2's bucket held {held}"))?;
    }
    Ok(())
}

/// A pool that never showed a ready instance, or whose boots fail, tries three at most.
fn none_into_a_broken_pool(
    snapshot: &Snapshot,
    sums: &Sums<'_>,
    launches: &[Launch<'_>],
) -> Result<(), Violation> {
    let mut new: BTreeMap<&ResourceName, u64> = BTreeMap::new();
    for launch in launches.iter().filter(|launch| !snapshot.intents.contains_key(launch.intent)) {
        *new.entry(launch.resource).or_default() += u64::from(launch.count);
    }
    for (resource, new) in new {
        let boots = snapshot.boots.get(resource);
        if boots.is_some_and(|boots| boots.proven && boots.failed == 0) {
            continue;
        }
        let failed = boots.map_or(0, |boots| u64::from(boots.failed));
        let tried = sums.unready(resource) + new;
        let allowed = if failed < 3 { 3 - failed } else { 1 };
        require(tried <= allowed, || format!("{tried} instances of {resource} after {failed} failed boots"))?;
    }
    Ok(())
}

/// A queue never gets more new instances than tasks wait in it.
fn within_demand(snapshot: &Snapshot, sums: &Sums<'_>, launches: &[Launch<'_>]) -> Result<(), Violation> {
    let mut new: BTreeMap<&QueueName, u64> = BTreeMap::new();
    for launch in launches.iter().filter(|launch| !snapshot.intents.contains_key(launch.intent)) {
        *new.entry(launch.queue).or_default() += u64::from(launch.count);
    }
    for (queue, count) in new {
        let waiting = sums.waiting_soon(queue);
        require(count <= waiting, || format!("{count} launches for {waiting} tasks of queue {queue}"))?;
    }
    Ok(())
}

/// A note is closed only if nothing can come of it that is not known.
fn settled(policy: &Policy, snapshot: &Snapshot, sums: &Sums<'_>, id: &IntentId) -> Result<(), Violation> {
    let Some(intent) = snapshot.intents.get(id) else {
        return Err(Violation(format!("launch {id} is settled and not on record")));
    };
    let last_try = intent.created_at.max(intent.retry_at);
    let known = match &intent.answered {
        Some(ids) => ids.iter().all(|id| {
            let shown = snapshot.instances.get(id).is_some_and(|instance| {
                let old = snapshot.now.since(last_try) >= Duration::from_secs(60);
                instance.state != State::Requested && (instance.zone.is_some() || old)
            });
            shown || snapshot.proven_gone.contains(id)
        }),
        None => {
            let listed = snapshot.read_after(Source::Cloud, last_try.after(Duration::from_secs(120)));
            sums.shown(id) >= u64::from(intent.count) || (listed && !is_wanted(policy, sums, intent))
        }
    };
    require(known, || format!("launch {id} is settled and may still bring instances"))
}

/// Whether the budget still has room for what this launch asked for.
fn is_wanted(policy: &Policy, sums: &Sums<'_>, intent: &Intent) -> bool {
    let room = sums.pool(&intent.resource).is_some_and(|pool| {
        pool.queue == intent.queue && sums.counted(&intent.resource) <= u64::from(pool.maximum)
    });
    room && policy.resources.get(&intent.resource).is_some_and(|resource| resource.blocked.is_none())
}
