//! Orders: numbered upwards, to those who can hear them, and closing a gate only by right.

use std::collections::BTreeMap;

use super::sums::is_staying;
use super::{Sums, Violation, closes, require, sent};
use crate::ids::{InstanceId, QueueName, ResourceName};
use crate::plan::{Action, Order, OrderKind, Plan};
use crate::policy::{Policy, ShutdownAction, SidecarMode};
use crate::snapshot::{Answer, Instance, Signal, Snapshot, Source, State};

pub(super) fn check(
    policy: &Policy,
    snapshot: &Snapshot,
    sums: &Sums<'_>,
    plan: &Plan,
) -> Result<(), Violation> {
    for action in &plan.actions {
        if let Action::Send { instance, .. } = action {
            let known = snapshot.instances.contains_key(instance);
            require(known, || format!("an order to {instance}, which is not on record"))?;
        }
    }
    for (id, instance, order) in sent(snapshot, plan) {
        let heard = policy.sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
        require(heard, || format!("an order to {id}, which has no session"))?;
        let spared = instance.kept && closes(order.kind) && instance.state != State::Retiring;
        require(!spared, || format!("{id} is told to {}, and an operator's tag spares it", order.kind))?;
        numbered(snapshot, id, instance, order)?;
        fitting(snapshot, id, instance, order)?;
        let asked = snapshot.is_drained_by_operator(id, instance);
        require(asked || order.kind != OrderKind::Finish, || {
            format!("{id} is told to finish, and nobody said so")
        })?;
        let by_demand = policy.shutdown.is_none() && !asked;
        if closes(order.kind) && by_demand {
            let fresh = snapshot.is_fresh(Source::Queues);
            require(fresh, || format!("{id} is told to {} by stale queues", order.kind))?;
            let rests_on_the_queue = sums.is_of_the_budget(instance);
            let known = snapshot.queues.contains_key(&instance.queue);
            require(known || !rests_on_the_queue, || {
                format!("{id} is told to {}, and nobody knows what waits for it", order.kind)
            })?;
        }
        if order.kind == OrderKind::Retire && instance.state == State::Drained && by_demand {
            let looked = snapshot.read_after(Source::Queues, instance.since);
            require(looked, || format!("{id} is retired without a look at its queue after its gate closed"))?;
        }
    }
    match policy.shutdown {
        None => drains_by_right(policy, snapshot, sums, plan),
        // The idle go, whatever waits.
        Some(ShutdownAction::Idle) => Ok(()),
        Some(action @ (ShutdownAction::Nothing | ShutdownAction::All)) => {
            let told = sent(snapshot, plan).next().map(|(id, ..)| id);
            told.map_or(Ok(()), |id| Err(Violation(format!("{id} is told something at shutdown {action}"))))
        }
    }
}

/// Newer than the last order, or that very order while it is unanswered.
fn numbered(
    snapshot: &Snapshot,
    id: &InstanceId,
    instance: &Instance,
    order: &Order,
) -> Result<(), Violation> {
    require(order.epoch == snapshot.epoch, || format!("an order to {id} of another run"))?;
    let Some((last, _, answer)) = &instance.last_order else { return Ok(()) };
    let repeated = order == last && *answer == Answer::Awaited;
    let newer = (order.epoch, order.generation) > (last.epoch, last.generation);
    require(repeated || newer, || format!("an order to {id} that it will refuse as old"))
}

/// The order fits what the instance is.
fn fitting(
    snapshot: &Snapshot,
    id: &InstanceId,
    instance: &Instance,
    order: &Order,
) -> Result<(), Violation> {
    let fits = match order.kind {
        OrderKind::Drain => matches!(instance.state, State::Idle | State::Draining),
        OrderKind::Finish => matches!(instance.state, State::Idle | State::Busy { .. } | State::Draining),
        OrderKind::Undrain => instance.state == State::Drained || instance.is_finishing(snapshot.epoch),
        OrderKind::Retire => matches!(instance.state, State::Drained | State::Retiring),
    };
    require(fits, || format!("{id} is {:?} and told to {}", instance.state, order.kind))
}

/// Beyond what a lowered maximum drains, only those past the limit go, and as many idle ones stay as tasks wait.
fn drains_by_right(
    policy: &Policy,
    snapshot: &Snapshot,
    sums: &Sums<'_>,
    plan: &Plan,
) -> Result<(), Violation> {
    let mut early: BTreeMap<&ResourceName, u64> = BTreeMap::new();
    let mut drained: BTreeMap<&QueueName, BTreeMap<&ResourceName, u64>> = BTreeMap::new();
    // What the same plan opens again stays, too.
    let mut reopened: BTreeMap<&ResourceName, u64> = BTreeMap::new();
    for (id, instance, order) in sent(snapshot, plan) {
        let opens = order.kind == OrderKind::Undrain && !is_staying(snapshot, instance);
        *reopened.entry(&instance.resource).or_default() += u64::from(opens);
        let counted = order.kind == OrderKind::Drain
            && instance.state == State::Idle
            && !snapshot.is_drained_by_operator(id, instance);
        if !counted || !sums.is_of_the_budget(instance) {
            continue;
        }
        *drained.entry(&instance.queue).or_default().entry(&instance.resource).or_default() += 1;
        if snapshot.now.since(instance.since) < policy.max_idle {
            *early.entry(&instance.resource).or_default() += 1;
        }
    }
    let excess_of =
        |resource: &ResourceName| sums.excess(resource, reopened.get(resource).copied().unwrap_or(0));
    for (resource, count) in early {
        let excess = excess_of(resource);
        require(count <= excess, || {
            format!(
                "{count} idle instances of {resource} are drained before their limit, {excess} too many are there"
            )
        })?;
        require(snapshot.is_fresh(Source::Cloud), || {
            format!("{resource} is drained to its maximum by stale EC2 instances")
        })?;
    }
    let idle_by_queue = sums.idle_by_queue();
    for (queue, by_resource) in drained {
        let told: u64 = by_resource.values().sum();
        let by_idleness: u64 =
            by_resource.iter().map(|(resource, count)| count.saturating_sub(excess_of(resource))).sum();
        let idle = idle_by_queue.get(queue).copied().unwrap_or(0);
        let waiting = sums.waiting(queue);
        require(by_idleness == 0 || idle - told >= waiting, || {
            format!("queue {queue}: {waiting} tasks wait and {} of {idle} idle instances stay", idle - told)
        })?;
    }
    Ok(())
}
