//! A launch of each resource, dry: with the very request that a run would send, user data included.

use std::sync::Arc;

use ec2::Client;
use engine::ports::Launch;
use futures_util::future::join_all;
use planner::{ClientToken, FleetId, IntentId, Offering};
use tokio::sync::watch;

use super::aws::{Aws, POLICY};
use super::facts::{Known, Trouble, asked};
use super::resources::line;
use super::{Check, LIMIT, dials_in};
use crate::boot::{self, Bootstrap};
use crate::config::{Resource, USER_DATA_LIMIT};
use crate::gateway::Artifacts;
use crate::live::{LiveCloud, Recipe, UserData};
use crate::service::boot_scripts::{AgentSetups, Setups};
use crate::service::fleet;

/// What EC2 says of launching a resource.
pub(super) struct DryRun {
    pub(super) answer: Known<()>,
    /// Of the user data, in bytes.
    size: Option<usize>,
}

impl DryRun {
    pub(super) fn line(&self, resource: &Resource) -> Check {
        let name = line(resource, "launch");
        match &self.answer {
            Ok(()) => Check::ok(
                name,
                "EC2 would launch and tag it (dry run); capacity is seen only when it is asked for",
            ),
            Err(Trouble::Denied(why)) => Check::error(name, why.clone(), POLICY),
            Err(Trouble::Refused(why)) => Check::error(name, why.clone(), "correct the resource"),
            Err(Trouble::Silent(why)) => Check::error(name, why.clone(), "is EC2 reachable from here?"),
        }
    }

    pub(super) fn user_data_line(&self, resource: &Resource) -> Check {
        let name = line(resource, "user_data");
        match self.size {
            Some(size) => Check::ok(name, format!("{size} of {USER_DATA_LIMIT} bytes")),
            None => match &self.answer {
                Err(Trouble::Refused(why)) => Check::error(name, why.clone(), "see the line of the launch"),
                Ok(()) | Err(Trouble::Denied(_) | Trouble::Silent(_)) => {
                    Check::warning(name, "not made", "see the line of the launch")
                }
            },
        }
    }
}

impl Aws<'_> {
    /// Launches each resource, dry.
    pub(super) async fn launches(&self, client: &Client, artifacts: Option<&Artifacts>) -> Vec<DryRun> {
        let user_data = match self.user_data(artifacts) {
            Ok(user_data) => user_data,
            Err(why) => {
                let answer = || Err(Trouble::Refused(why.clone()));
                return self.resources().map(|_| DryRun { answer: answer(), size: None }).collect();
            }
        };
        let fleet = FleetId("doctor".to_owned());
        let config = Arc::clone(&self.config);
        let policy = Arc::new(config.policy(fleet.clone(), self.mode, |_| None));
        let recipe = watch::channel(Arc::new(Recipe { config, policy, user_data })).1;
        let cloud = LiveCloud::new(client.clone(), fleet, None, recipe);
        cloud.settle(LIMIT).await;
        join_all(self.resources().map(|resource| self.launch(client, &cloud, resource))).await
    }

    async fn launch(&self, client: &Client, cloud: &LiveCloud, resource: &Resource) -> DryRun {
        let pool = self.config.pools.iter().find(|pool| pool.resource == resource.name);
        let launch = Launch {
            intent: IntentId::from("0-0"),
            resource: resource.name.clone(),
            queue: pool.map_or_else(|| "none".into(), |pool| pool.queue.clone()),
            offering: Offering {
                instance_type: resource.instance_type.clone(),
                placement: resource.placement.clone(),
                market: resource.market,
            },
            count: 1,
            token: ClientToken(format!("doctor-{}", uuid::Uuid::new_v4().simple())),
        };
        match cloud.spec(&launch, &[0; 32]) {
            Ok(spec) => {
                DryRun { answer: asked(client.may_launch(&spec)).await, size: Some(spec.user_data.len()) }
            }
            Err(why) => DryRun { answer: Err(Trouble::Refused(why)), size: None },
        }
    }

    /// What instances would run first, as long as it will be.
    fn user_data(&self, artifacts: Option<&Artifacts>) -> Result<UserData, String> {
        if !dials_in(self.mode) {
            let setups = Arc::new(AgentSetups::new(Arc::clone(&self.config), self.settings, None));
            let launches = Arc::new(Setups::new(Arc::clone(&setups)));
            let made = fleet::user_data(&self.config, &setups, &launches, None);
            return made.map_err(|error| error.to_string());
        }
        let url = self.reach.as_ref().map(|reach| reach.url(self.config.listen.port())).unwrap_or_default();
        let sidecars = artifacts.map(Artifacts::hashes).unwrap_or_default();
        let max_spin_up = self.config.max_spin_up;
        // A pin is as long as any other.
        let pin = format!("sha256//{}", "A".repeat(44));
        Ok(Box::new(move |_resource, launch, secret| {
            let bootstrap = Bootstrap {
                controller: &url,
                pin: &pin,
                launch_secret: secret,
                intent: &launch.intent,
                sidecars: &sidecars,
                max_spin_up,
            };
            boot::user_data(&bootstrap).map_err(|error| error.to_string())
        }))
    }
}
