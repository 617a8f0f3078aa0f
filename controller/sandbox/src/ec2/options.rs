//! What the sandbox's EC2 has and allows. The defaults are an account without limits, in which everything is quick.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::instances::{Image, MachineOptions};

/// Everything that can be said about an EC2 before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Loopback only.
    pub listen: SocketAddr,
    /// The one region.
    pub region: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// The key id that callers must sign with.
    pub access_key_id: String,
    /// The key's secret, for the environment only: signatures are not verified.
    pub secret_access_key: String,
    /// What lies on the AMIs.
    pub images: BTreeMap<String, Image>,
    /// What lies on every AMI that `images` does not name; `None` makes those unknown.
    pub other_images: Option<Image>,
    /// What AMIs are called, and whose they are. One that is not named here is called `sandbox ID`, and is the account's.
    pub amis: BTreeMap<String, Ami>,
    /// SSM parameters, by their paths, with the AMIs that they stand for.
    pub parameters: BTreeMap<String, String>,
    /// What the caller may do, as an IAM policy; `None` allows everything.
    pub policy: Option<serde_json::Value>,
    /// Whether an earlier spot request has made EC2's role for them.
    pub has_spot_role: bool,
    /// Further regions that are listed, with their opt-in states.
    pub other_regions: BTreeMap<String, String>,
    /// Networks of subnets and security groups, by their ids; one not named lies in the default one.
    pub vpcs: BTreeMap<String, String>,
    /// Whether there is a default network.
    pub default_vpc: bool,
    /// Security groups that let nothing out.
    pub closed_groups: BTreeSet<String>,
    /// Names of instance profiles; `None`: whatever is asked for.
    pub profiles: Option<BTreeSet<String>>,
    /// Dollars an hour by type and zone; others have a price of the catalogue.
    pub spot_prices: BTreeMap<(String, String), f64>,
    /// Subnet ids with their zones and free addresses.
    pub subnets: BTreeMap<String, Subnet>,
    /// Security group ids with their names.
    pub security_groups: BTreeMap<String, String>,
    /// Names of key pairs.
    pub key_pairs: BTreeSet<String>,
    /// How many instances a pool can hold at once; a pool not named holds any number.
    pub capacity: BTreeMap<Pool, u32>,
    /// Instance types that zones do not offer, as (type, zone).
    pub unsupported: BTreeSet<(String, String)>,
    /// vCPUs that may run on demand at once.
    pub on_demand_vcpus: Option<u32>,
    /// vCPUs that may run as spot at once.
    pub spot_vcpus: Option<u32>,
    /// Instances of either market that may exist at once: guards the machine that this runs on.
    pub max_instances: u32,
    /// Token buckets of calls, by action. Actions not named are not throttled.
    pub call_rates: BTreeMap<String, Rate>,
    /// Token bucket of launched instances.
    pub launch_rate: Option<Rate>,
    /// How long a new instance is missing from DescribeInstances.
    pub visible_after: Duration,
    /// From `pending` to `running`.
    pub boot_delay: Duration,
    /// From `shutting-down` to `terminated`, on top of what the processes take.
    pub shutdown_delay: Duration,
    /// How long a terminated instance stays listed.
    pub retention: Duration,
    /// How instances become processes.
    pub machines: MachineOptions,
}

impl Default for Options {
    fn default() -> Self {
        let region = "us-east-1";
        let zones: Vec<String> = ["a", "b", "c"].iter().map(|letter| format!("{region}{letter}")).collect();
        let subnets = zones
            .iter()
            .zip(["a", "b", "c"])
            .map(|(zone, letter)| (format!("subnet-0000000000000000{letter}"), Subnet::in_zone(zone)))
            .collect();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            region: region.into(),
            zones,
            access_key_id: "AKIASANDBOXSANDBOX00".into(),
            secret_access_key: "sandbox-secret".into(),
            images: BTreeMap::new(),
            other_images: Some(Image::StandIn),
            amis: BTreeMap::new(),
            parameters: BTreeMap::new(),
            policy: None,
            has_spot_role: false,
            other_regions: BTreeMap::new(),
            vpcs: BTreeMap::new(),
            default_vpc: true,
            closed_groups: BTreeSet::new(),
            profiles: None,
            spot_prices: BTreeMap::new(),
            subnets,
            security_groups: BTreeMap::from([("sg-00000000000000001".into(), "default".into())]),
            key_pairs: BTreeSet::from(["sandbox".into()]),
            capacity: BTreeMap::new(),
            unsupported: BTreeSet::new(),
            on_demand_vcpus: None,
            spot_vcpus: None,
            max_instances: 20_000,
            call_rates: BTreeMap::new(),
            launch_rate: None,
            visible_after: Duration::ZERO,
            boot_delay: Duration::from_millis(50),
            shutdown_delay: Duration::ZERO,
            retention: Duration::from_secs(3600),
            machines: MachineOptions::default(),
        }
    }
}

/// What is known of an AMI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ami {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: AmiOwner,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// `available`, `pending`, `disabled`.
    pub state: String,
    /// ISO 8601.
    pub created: String,
}

impl Ami {
    /// The account's own, for `x86_64`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            owner: AmiOwner::Own,
            architecture: "x86_64".into(),
            state: "available".into(),
            created: "2025-01-01T00:00:00.000Z".into(),
        }
    }
}

/// Whose an AMI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmiOwner {
    /// The account's.
    Own,
    /// Amazon's.
    Amazon,
    /// A seller's at the marketplace.
    Marketplace,
    /// Somebody's who has made it public.
    Stranger,
}

/// A subnet: a zone's, with so many addresses left at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The zone that it lies in.
    pub zone: String,
    /// How many instances it has addresses for.
    pub addresses: u32,
}

impl Subnet {
    /// One of 4,091 addresses.
    pub fn in_zone(zone: &str) -> Self {
        Self { zone: zone.into(), addresses: 4091 }
    }
}

/// What capacity is counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// For example `m5.xlarge`.
    pub instance_type: String,
    /// For example `us-east-1a`.
    pub zone: String,
    /// Spot and on-demand run out apart.
    pub market: Market,
}

/// How an instance is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Market {
    /// Spare capacity that can be taken back.
    Spot,
    /// Until it is terminated.
    OnDemand,
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Market::Spot => "spot",
            Market::OnDemand => "on-demand",
        })
    }
}

/// A token bucket: so many at once, refilled at so many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens in the full bucket.
    pub burst: f64,
    /// Tokens a second.
    pub per_second: f64,
}
