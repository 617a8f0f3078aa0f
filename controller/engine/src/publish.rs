//! What a pass leaves for others to see: `status`, `plan` and whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use planner::{InstanceId, Plan, Policy, Snapshot, Time, Violation};

use crate::ports::CloudInstance;

/// One pass: what it knew, what it decided.
#[derive(Clone, Debug)]
pub struct Published {
    /// When it was made.
    pub now: Time,
    /// By which policy.
    pub policy: Arc<Policy>,
    /// From what.
    pub snapshot: Snapshot,
    /// What was decided.
    pub plan: Plan,
    /// Why the plan was not applied, if it broke an invariant.
    pub violation: Option<Violation>,
    /// What EC2's last list shows as ended, machines that this run never knew included.
    pub ended: Arc<BTreeMap<InstanceId, CloudInstance>>,
}

impl Published {
    /// Before the first pass.
    pub(crate) fn before(policy: Arc<Policy>, now: Time) -> Self {
        Self {
            now,
            policy,
            snapshot: Snapshot { now, started_at: now, ..Snapshot::default() },
            plan: Plan::default(),
            violation: None,
            ended: Arc::default(),
        }
    }
}
