//! The schema of `status --json`, and the one place where a pass is turned into it.

use planner::{Hold, Instance, Market, Policy, SidecarMode, Signal, Snapshot, State, TaskId, Time};
use serde::{Deserialize, Serialize};

use crate::publish::Published;

/// What `status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the pass was made, milliseconds since the Unix epoch.
    pub at: Time,
    /// The worker prefix.
    pub prefix: String,
    /// `required` or `off`.
    pub sidecar: SidecarMode,
    /// Whether this run holds the prefix's lease.
    pub lease_held: bool,
    /// The budget's lines in their order.
    pub pools: Vec<PoolStatus>,
    /// The fleet, by pool and age.
    pub instances: Vec<InstanceStatus>,
    /// Why nothing else is done.
    pub holds: Vec<HoldStatus>,
    /// Sources that can't be read, and since when.
    pub stale: Vec<StaleStatus>,
}

/// One line of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// ClearML's queue.
    pub queue: String,
    /// The resource, which names the pool.
    pub resource: String,
    /// Tasks that wait in the queue; `null` if the server does not list it.
    pub waiting: Option<usize>,
    /// At most this many instances.
    pub maximum: u32,
    /// Instances that count against the maximum.
    pub instances: usize,
    /// On their way.
    pub coming: usize,
    /// Holding no task.
    pub idle: usize,
    /// Holding one.
    pub busy: usize,
    /// On their way out: draining, drained, retiring, retired, terminating.
    pub leaving: usize,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// EC2's id.
    pub instance: String,
    /// Its pool.
    pub resource: String,
    /// The queue that it serves.
    pub queue: String,
    /// One of DESIGN's words: requested, pending, booting, idle, busy, draining, drained, retiring, retired,
    /// terminating, gone, lost.
    pub state: String,
    /// The boot phase, the task, or why it is lost.
    pub detail: Option<String>,
    /// The task that it holds.
    pub task: Option<TaskId>,
    /// Since when, milliseconds since the Unix epoch.
    pub since: Time,
    /// What the state rests on: sidecar, clearml or none.
    pub signal: Signal,
    /// EC2's type.
    pub instance_type: String,
    /// Where it is, once known.
    pub zone: Option<String>,
    /// How it is paid.
    pub market: Market,
    /// Its launch, milliseconds since the Unix epoch.
    pub launched_at: Time,
    /// Its ClearML worker.
    pub worker: String,
}

/// A hold: typed, and in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// In words.
    pub text: String,
    /// The same, typed.
    #[serde(flatten)]
    pub hold: Hold,
}

/// A source that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleStatus {
    /// Which.
    pub source: planner::Source,
    /// Since when, milliseconds since the Unix epoch.
    pub since: Time,
}

impl Status {
    /// A pass, as it is shown.
    pub fn of(published: &Published) -> Self {
        let Published { now, policy, snapshot, plan, violation: _, ended: _ } = published;
        let mut instances: Vec<InstanceStatus> = snapshot
            .instances
            .iter()
            .map(|(id, instance)| InstanceStatus::of(id.as_str(), instance))
            .collect();
        instances.sort_by(|a, b| {
            (&a.queue, &a.resource, a.launched_at, &a.instance).cmp(&(
                &b.queue,
                &b.resource,
                b.launched_at,
                &b.instance,
            ))
        });
        Self {
            at: *now,
            prefix: policy.prefix.clone(),
            sidecar: policy.sidecar,
            lease_held: snapshot.lease_held,
            pools: pools(policy, snapshot),
            instances,
            holds: plan
                .holds
                .iter()
                .map(|hold| HoldStatus { text: hold.describe(*now), hold: hold.clone() })
                .collect(),
            stale: snapshot
                .freshness
                .iter()
                .filter_map(|(source, age)| Some(StaleStatus { source: *source, since: age.stale_since? }))
                .collect(),
        }
    }
}

fn pools(policy: &Policy, snapshot: &Snapshot) -> Vec<PoolStatus> {
    let mut counts: std::collections::BTreeMap<&planner::ResourceName, PoolStatus> = policy
        .pools
        .iter()
        .map(|pool| {
            let status = PoolStatus {
                queue: pool.queue.to_string(),
                resource: pool.resource.to_string(),
                waiting: snapshot.queues.get(&pool.queue).map(Vec::len),
                maximum: pool.maximum,
                instances: 0,
                coming: 0,
                idle: 0,
                busy: 0,
                leaving: 0,
            };
            (&pool.resource, status)
        })
        .collect();
    for instance in snapshot.instances.values() {
        let Some(pool) = counts.get_mut(&instance.resource) else { continue };
        pool.instances += usize::from(instance.counts());
        match instance.state {
            State::Requested | State::Pending | State::Booting { .. } => pool.coming += 1,
            State::Idle => pool.idle += 1,
            State::Busy { .. } => pool.busy += 1,
            State::Draining | State::Drained | State::Retiring | State::Retired | State::Terminating => {
                pool.leaving += 1;
            }
            State::Gone | State::Lost { .. } => {}
        }
    }
    policy.pools.iter().filter_map(|pool| counts.remove(&pool.resource)).collect()
}

impl InstanceStatus {
    fn of(id: &str, instance: &Instance) -> Self {
        let (detail, task) = match &instance.state {
            State::Booting { phase } => (Some(phase.clone()), None),
            State::Busy { task } => {
                (instance.finishing.then(|| "takes no other task".to_owned()), task.clone())
            }
            State::Lost { reason } => (Some(lost_words(*reason).to_owned()), None),
            State::Requested
            | State::Pending
            | State::Idle
            | State::Draining
            | State::Drained
            | State::Retiring
            | State::Retired
            | State::Terminating
            | State::Gone => (None, None),
        };
        Self {
            instance: id.to_owned(),
            resource: instance.resource.to_string(),
            queue: instance.queue.to_string(),
            state: instance.state.word().to_owned(),
            detail,
            task,
            since: instance.since,
            signal: instance.signal,
            instance_type: instance.instance_type().to_string(),
            zone: instance.zone.clone(),
            market: instance.offering.market,
            launched_at: instance.launched_at,
            worker: instance.worker.to_string(),
        }
    }
}

/// Why an instance counts as lost, in words.
pub(crate) fn lost_words(reason: planner::LostReason) -> &'static str {
    match reason {
        planner::LostReason::SessionLost => "its session ended",
        planner::LostReason::NeverAttached => "its sidecar never attached to this run",
        planner::LostReason::AgentDead => "its agent died",
    }
}
