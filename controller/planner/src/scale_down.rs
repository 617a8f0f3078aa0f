//! Removals.
use crate::{Plan, Policy, QueueName, Snapshot};
use std::collections::BTreeMap;
pub(crate) fn plan_removals(_p: &Policy, _s: &Snapshot, _plan: &mut Plan) -> BTreeMap<QueueName, u32> {
    BTreeMap::new()
}
