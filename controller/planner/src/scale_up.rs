//! Launches.
use crate::{Plan, Policy, QueueName, Snapshot};
use std::collections::BTreeMap;
pub(crate) fn plan_launches(_p: &Policy, _s: &Snapshot, _d: &BTreeMap<QueueName, u32>, _plan: &mut Plan) {}
