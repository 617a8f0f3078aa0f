//! The invariants, re-read from a finished plan.
//!
//! Written apart from the planning and sharing nothing with it but the types, so that a fault there
//! is not repeated here. A plan that fails is not applied at all: doing nothing is always safe.

mod launches;
mod orders;
mod removals;
mod sums;
mod tasks;

use std::collections::BTreeMap;

use self::sums::Sums;
use crate::ids::InstanceId;
use crate::plan::{Action, Order, OrderKind, Plan};
use crate::policy::Policy;
use crate::snapshot::{Instance, Snapshot, Source};

/// A plan that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Whether the plan keeps the invariants.
///
/// # Errors
/// The first violation.
pub fn check(policy: &Policy, snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    if fault!("check-ignored") {
        return Ok(());
    }
    let adopted = [Source::Queues, Source::Workers, Source::Cloud]
        .iter()
        .all(|source| snapshot.freshness.contains_key(source));
    require(adopted || plan.actions.is_empty(), || "it acts before every source was read".to_owned())?;
    require(plan.wake_at.is_none_or(|at| at > snapshot.now), || "it wakes in the past".to_owned())?;
    if plan.actions.is_empty() {
        return Ok(());
    }
    one_act_for_each(plan)?;
    let sums = Sums::of(policy, snapshot);
    launches::check(policy, snapshot, &sums, plan)?;
    orders::check(policy, snapshot, &sums, plan)?;
    removals::check(policy, snapshot, plan)?;
    tasks::check(policy, snapshot, plan)
}

fn require(holds: bool, fault: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(fault())) }
}

/// No instance is told two things at once, or told and ended.
fn one_act_for_each(plan: &Plan) -> Result<(), Violation> {
    let mut told: BTreeMap<&InstanceId, &Action> = BTreeMap::new();
    for action in &plan.actions {
        let named: &[InstanceId] = match action {
            Action::Send { instance, .. } => std::slice::from_ref(instance),
            Action::Terminate { instances, .. } => instances,
            Action::Launch { .. }
            | Action::Settle { .. }
            | Action::Unregister { .. }
            | Action::Task { .. } => &[],
        };
        for instance in named {
            let before = told.insert(instance, action);
            require(before.is_none(), || format!("{instance} is told two things"))?;
        }
    }
    Ok(())
}

/// Orders of one kind with the instances that they go to. An instance that nobody knows is left out:
/// the check of the orders themselves names it.
fn sent<'a>(
    snapshot: &'a Snapshot,
    plan: &'a Plan,
) -> impl Iterator<Item = (&'a InstanceId, &'a Instance, &'a Order)> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Send { instance, order } => {
            snapshot.instances.get(instance).map(|known| (instance, known, order))
        }
        Action::Launch { .. }
        | Action::Settle { .. }
        | Action::Terminate { .. }
        | Action::Unregister { .. }
        | Action::Task { .. } => None,
    })
}

/// The kinds of order that close a gate, and so rest on knowing what waits, unless the operator wants them.
fn closes(kind: OrderKind) -> bool {
    match kind {
        OrderKind::Drain | OrderKind::Finish | OrderKind::Retire => true,
        OrderKind::Undrain => false,
    }
}
