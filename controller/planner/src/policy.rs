//! What the operator allows: pools with their maxima, limits and times. Validated before it gets here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{FleetId, InstanceType, QueueName, ResourceName};
use crate::task::Requeue;

/// The whole policy of one autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Our tag's value.
    pub fleet: FleetId,
    /// `workers_prefix`: the first part of every worker id of ours.
    pub prefix: String,
    /// The budget, queue by queue in the file's order, each queue's pools in the order of its list.
    pub pools: Vec<Pool>,
    /// What the pools are made of.
    pub resources: BTreeMap<ResourceName, Resource>,
    /// An instance may be idle for this long before it goes (`max_idle_time_min`).
    pub max_idle: Duration,
    /// An instance that is not ready this long after its launch is replaced (`max_spin_up_time_min`).
    pub max_spin_up: Duration,
    /// How instances tell whether they are busy.
    pub sidecar: SidecarMode,
    /// How much longer than the idle limit a silent sidecar is left alone before its instance may go.
    pub silent_grace: Duration,
    /// How long an order may stay unanswered before it is sent again.
    pub order_patience: Duration,
    /// At most so many instances are launched within any 60 seconds, over all pools.
    pub launches_per_minute: u32,
    /// The run is about to end, and this is to become of the fleet. Nothing is launched any more.
    #[serde(default)]
    pub shutdown: Option<ShutdownAction>,
    /// What becomes of tasks that lost their machine (`requeue_interrupted_tasks`, `reset_requeued_tasks`).
    #[serde(default)]
    pub requeue: Requeue,
}

/// What becomes of the fleet when its autoscaler ends (`shutdown_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownAction {
    /// It is left as it is: busy instances finish, and each goes by itself once it has been idle for its limit.
    #[serde(rename = "none")]
    #[default]
    Nothing,
    /// Idle instances go at once, whatever waits; busy ones finish and go by themselves.
    Idle,
    /// All go at once, with the tasks that they hold.
    All,
}

/// One line of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Whose waiting tasks it serves.
    pub queue: QueueName,
    /// What it launches; also the pool's name, as a resource stands in one queue only.
    pub resource: ResourceName,
    /// At most this many instances at once, those being launched included.
    pub maximum: u32,
}

/// What the planner needs to know of a resource; the rest of its launch parameters stays with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// In the order of preference.
    pub offerings: Vec<Offering>,
    /// Why nothing of it can be launched now, in words that name the remedy (a sidecar binary that is missing, say).
    pub blocked: Option<String>,
}

/// Something EC2 sells: a type, a place, a market.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offering {
    /// `g4dn.xlarge`.
    pub instance_type: InstanceType,
    /// Where.
    pub placement: Placement,
    /// How it is paid.
    pub market: Market,
}

/// Where an instance is put.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// AWS chooses.
    Any,
    /// An availability zone by name.
    Zone(String),
    /// A subnet by id; its zone follows.
    Subnet(String),
}

/// How an instance is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// At the spot price; AWS may take it back.
    Spot,
    /// At the list price.
    OnDemand,
}

/// How instances tell whether they are busy. `auto` is resolved before the policy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SidecarMode {
    /// A sidecar reports; nothing of ours is terminated on lesser evidence.
    Required,
    /// No way in: instances judge themselves and power themselves off.
    Off,
}

impl fmt::Display for Offering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.market, self.instance_type)?;
        match &self.placement {
            Placement::Any => Ok(()),
            Placement::Zone(zone) => write!(f, " in {zone}"),
            Placement::Subnet(subnet) => write!(f, " in {subnet}"),
        }
    }
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        })
    }
}

impl ShutdownAction {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Idle => "idle",
            Self::All => "all",
        }
    }
}

impl fmt::Display for ShutdownAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no shutdown action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be none, idle or all, not {0:?}")]
pub struct NoShutdownAction(pub String);

impl FromStr for ShutdownAction {
    type Err = NoShutdownAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_lowercase().as_str() {
            "none" => Ok(Self::Nothing),
            "idle" => Ok(Self::Idle),
            "all" => Ok(Self::All),
            _ => Err(NoShutdownAction(text.to_owned())),
        }
    }
}

impl Policy {
    /// The pool of this resource, if the budget names it.
    pub fn pool(&self, resource: &ResourceName) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.resource == *resource)
    }

    /// The budget's queues in its order, each once.
    pub fn queues(&self) -> Vec<&QueueName> {
        let mut seen = BTreeSet::new();
        self.pools.iter().map(|pool| &pool.queue).filter(|queue| seen.insert(*queue)).collect()
    }
}
