//! The invariants, re-read from a finished plan.
use crate::{Plan, Policy, Snapshot};
/// A plan that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);
/// Whether the plan keeps the invariants.
///
/// # Errors
/// The first violation.
pub fn check(_policy: &Policy, _snapshot: &Snapshot, _plan: &Plan) -> Result<(), Violation> {
    Ok(())
}
