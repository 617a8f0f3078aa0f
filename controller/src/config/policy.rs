//! From the configuration to what the planner decides by.

use std::time::Duration;

use planner::{FleetId, Offering, Policy, ResourceName, SidecarMode};

use super::faults::{Fault, Faults, located};
use super::yaml::shown;
use super::{Config, Resource, SidecarSetting};

/// EC2 takes no more user data, in bytes before base64.
pub const USER_DATA_LIMIT: usize = 16 * 1024;
/// How much longer than the idle limit a silent sidecar is left alone.
const SILENT_GRACE: Duration = Duration::from_secs(10 * 60);
/// How long an order may stay unanswered before it is sent again.
const ORDER_PATIENCE: Duration = Duration::from_secs(15);

impl Config {
    /// The policy of this file. `blocked` says why a resource cannot be launched now, if so.
    pub fn policy(
        &self,
        fleet: FleetId,
        sidecar: SidecarMode,
        blocked: impl Fn(&ResourceName) -> Option<String>,
    ) -> Policy {
        let resources = self.resources.iter().map(|resource| {
            let planned =
                planner::Resource { offerings: vec![offering(resource)], blocked: blocked(&resource.name) };
            (resource.name.clone(), planned)
        });
        Policy {
            fleet,
            prefix: self.prefix.clone(),
            pools: self.pools.clone(),
            resources: resources.collect(),
            max_idle: self.max_idle,
            max_spin_up: self.max_spin_up,
            sidecar,
            silent_grace: SILENT_GRACE,
            order_patience: ORDER_PATIENCE,
            launches_per_minute: self.launches_per_minute,
            shutdown: None,
            requeue: self.requeue,
        }
    }

    /// What `sidecar` means here, and what to warn of: `auto` is required where instances can reach the
    /// controller by an `advertise_address` or from within EC2, else off.
    pub fn sidecar_mode(&self, runs_on_ec2: bool) -> (SidecarMode, Option<&'static str>) {
        match self.sidecar {
            SidecarSetting::Required => (SidecarMode::Required, None),
            SidecarSetting::Off => (SidecarMode::Off, None),
            SidecarSetting::Auto if self.advertise.is_some() || runs_on_ec2 => (SidecarMode::Required, None),
            SidecarSetting::Auto => (
                SidecarMode::Off,
                Some(
                    "sidecar is off: this machine is not in EC2 and advertise_address is not set, so \
                     instances have no way in; they judge for themselves when they are idle and power off",
                ),
            ),
        }
    }

    /// Whether EC2 takes the user data of every resource; `size` gives its length in bytes.
    ///
    /// # Errors
    /// One fault for each resource whose user data is too long.
    pub fn check_user_data(&self, size: impl Fn(&Resource) -> usize) -> Result<(), Faults> {
        let faults = self.resources.iter().filter_map(|resource| {
            let size = size(resource);
            (size > USER_DATA_LIMIT).then(|| Fault {
                file: self.file.clone(),
                at: None,
                key: located(
                    &self.file,
                    &format!("configurations.resource_configurations.{}", shown(&resource.name.0)),
                ),
                message: format!("its user data is {size} bytes long; EC2 takes at most {USER_DATA_LIMIT}"),
            })
        });
        Faults::of(faults.collect()).map_or(Ok(()), Err)
    }
}

fn offering(resource: &Resource) -> Offering {
    Offering {
        instance_type: resource.instance_type.clone(),
        placement: resource.placement.clone(),
        market: resource.market,
    }
}
