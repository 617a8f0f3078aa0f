//! EC2 behind the engine's port: a launch becomes the exact request, tags become instances again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ec2::{InstanceState, LaunchSpec, Meaning};
use engine::ports::{Cloud, CloudError, CloudInstance, CloudState, Launch, Prepared};
use planner::{FleetId, InstanceId, InstanceType, Market, Offering, Placement, Time};
use rand::Rng as _;

use crate::config::{Config, InstanceProfile, Resource, Volume};

const FLEET: &str = "clearml-autoscaler:fleet";
const PREFIX: &str = "clearml-autoscaler:prefix";
const RESOURCE: &str = "clearml-autoscaler:resource";
const QUEUE: &str = "clearml-autoscaler:queue";
const INTENT: &str = "clearml-autoscaler:intent";
const PLACEMENT: &str = "clearml-autoscaler:placement";
const TASK: &str = "clearml-autoscaler:task";
const NAME: &str = "Name";

/// What an instance of a launch runs first, given the secret that its instances share.
pub type UserData = Box<dyn Fn(&Resource, &Launch, &[u8]) -> Result<String, String> + Send + Sync>;

/// EC2, for one fleet.
pub struct LiveCloud {
    client: ec2::Client,
    config: Arc<Config>,
    fleet: FleetId,
    /// The ClearML task that this run is.
    task: Option<String>,
    user_data: UserData,
}

impl LiveCloud {
    /// A fleet's view of EC2. What a run that is a ClearML task launches is tagged with the task's id.
    pub fn new(
        client: ec2::Client,
        config: Arc<Config>,
        fleet: FleetId,
        task: Option<String>,
        user_data: UserData,
    ) -> Self {
        Self { client, config, fleet, task, user_data }
    }

    fn tags(&self, resource: &Resource, launch: &Launch) -> BTreeMap<String, String> {
        let mut tags =
            BTreeMap::from([(NAME.to_owned(), format!("{}-{}", self.config.prefix, launch.resource))]);
        tags.extend(resource.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())));
        tags.extend(
            [
                (FLEET, self.fleet.to_string()),
                (PREFIX, self.config.prefix.clone()),
                (RESOURCE, launch.resource.to_string()),
                (QUEUE, launch.queue.to_string()),
                (INTENT, launch.intent.to_string()),
                (PLACEMENT, placement_tag(&launch.offering.placement)),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        tags.extend(self.task.iter().map(|task| (TASK.to_owned(), task.clone())));
        tags
    }

    fn spec(&self, launch: &Launch, secret: &[u8]) -> Result<LaunchSpec, String> {
        let resource = self
            .config
            .resource(&launch.resource)
            .ok_or_else(|| format!("the configuration has no resource {}", launch.resource))?;
        let volume = resource.ebs.as_ref().map(|ebs| match &ebs.volume {
            Volume::Snapshot(id) => ec2::Volume {
                device_name: ebs.device_name.clone(),
                size_gib: None,
                volume_type: None,
                snapshot_id: Some(id.clone()),
            },
            Volume::New { size_gib, kind } => ec2::Volume {
                device_name: ebs.device_name.clone(),
                size_gib: Some(*size_gib),
                volume_type: Some(kind.clone()),
                snapshot_id: None,
            },
        });
        Ok(LaunchSpec {
            image_id: Some(resource.ami_id.clone()),
            instance_type: launch.offering.instance_type.to_string(),
            count: launch.count,
            token: launch.token.to_string(),
            placement: match &launch.offering.placement {
                Placement::Any => ec2::Placement::Any,
                Placement::Zone(zone) => ec2::Placement::Zone(zone.clone()),
                Placement::Subnet(subnet) => ec2::Placement::Subnet(subnet.clone()),
            },
            market: match launch.offering.market {
                Market::Spot => ec2::Market::Spot,
                Market::OnDemand => ec2::Market::OnDemand,
            },
            tags: self.tags(resource, launch),
            hop_limit: resource.imds_hop_limit,
            volume,
            monitoring: resource.monitoring,
            key_name: resource.key_name.clone(),
            security_group_ids: resource.security_group_ids.clone(),
            profile: self.config.instance_profile.as_ref().map(|profile| match profile {
                InstanceProfile::Arn(arn) => ec2::Profile::Arn(arn.clone()),
                InstanceProfile::Name(name) => ec2::Profile::Name(name.clone()),
            }),
            user_data: (self.user_data)(resource, launch, secret)?,
            extra: serde_json::Value::Object(resource.extra.clone()),
        })
    }
}

impl Cloud for LiveCloud {
    async fn describe(&self) -> Result<BTreeMap<InstanceId, CloudInstance>, CloudError> {
        let found = self
            .client
            .describe_by_tag(FLEET, self.fleet.as_str())
            .await
            .map_err(|error| by_meaning(&error))?;
        Ok(found.into_iter().filter_map(of_ours).collect())
    }

    async fn gone(&self, ids: &BTreeSet<InstanceId>) -> Result<BTreeSet<InstanceId>, CloudError> {
        let asked = ids.iter().map(|id| id.0.clone()).collect();
        let described = self.client.describe_ids(&asked).await.map_err(|error| by_meaning(&error))?;
        let ended = described.found.into_iter().filter(|instance| match instance.state {
            InstanceState::Terminated | InstanceState::Stopped => true,
            InstanceState::Pending
            | InstanceState::Running
            | InstanceState::ShuttingDown
            | InstanceState::Stopping => false,
        });
        Ok(ended.map(|instance| instance.id).chain(described.missing).map(InstanceId).collect())
    }

    fn prepare(&self, launch: &Launch) -> Result<Prepared, CloudError> {
        let mut secret = vec![0; 32];
        rand::rng().fill_bytes(&mut secret);
        let spec = self.spec(launch, &secret).map_err(CloudError::Invalid)?;
        spec.check().map_err(|error| by_meaning(&error))?;
        let request = serde_json::to_string(&spec).map_err(|error| CloudError::Invalid(error.to_string()))?;
        Ok(Prepared { request, secret })
    }

    async fn launch(&self, request: &Prepared) -> Result<BTreeSet<InstanceId>, CloudError> {
        let spec: LaunchSpec = serde_json::from_str(&request.request)
            .map_err(|error| CloudError::Invalid(format!("read the journalled request: {error}")))?;
        let ids = self.client.run_instances(&spec).await.map_err(|error| by_meaning(&error))?;
        Ok(ids.into_iter().map(InstanceId).collect())
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        let ids = ids.iter().map(|id| id.0.clone()).collect();
        self.client.terminate(&ids).await.map_err(|error| by_meaning(&error))
    }
}

fn by_meaning(error: &ec2::Error) -> CloudError {
    let text = error.to_string();
    match error.meaning {
        Meaning::NoCapacity => CloudError::NoCapacity(text),
        Meaning::Throttled => CloudError::Throttled(text),
        Meaning::Gone => CloudError::Gone(text),
        Meaning::Denied => CloudError::Denied(text),
        Meaning::Invalid => CloudError::Invalid(text),
        Meaning::Other => CloudError::Other(text),
    }
}

/// An instance with our tags. One that lacks the resource's tag was not launched by this program.
fn of_ours(instance: ec2::Instance) -> Option<(InstanceId, CloudInstance)> {
    let tag = |key: &str| instance.tags.get(key).cloned();
    let cloud = CloudInstance {
        resource: tag(RESOURCE)?.into(),
        queue: tag(QUEUE)?.into(),
        intent: tag(INTENT).map(Into::into),
        offering: Offering {
            instance_type: InstanceType(instance.instance_type.clone()),
            placement: tag(PLACEMENT).and_then(|tag| placement_of(&tag)).unwrap_or(Placement::Any),
            market: match instance.market {
                ec2::Market::Spot => Market::Spot,
                ec2::Market::OnDemand => Market::OnDemand,
            },
        },
        zone: instance.zone.clone(),
        state: match instance.state {
            InstanceState::Pending => CloudState::Pending,
            InstanceState::Running => CloudState::Running,
            InstanceState::ShuttingDown => CloudState::ShuttingDown,
            InstanceState::Terminated => CloudState::Terminated,
            InstanceState::Stopping => CloudState::Stopping,
            InstanceState::Stopped => CloudState::Stopped,
        },
        launched_at: Time(instance.launched_at_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)),
    };
    Some((InstanceId(instance.id), cloud))
}

fn placement_tag(placement: &Placement) -> String {
    match placement {
        Placement::Any => "any".to_owned(),
        Placement::Zone(zone) => format!("zone:{zone}"),
        Placement::Subnet(subnet) => format!("subnet:{subnet}"),
    }
}

fn placement_of(tag: &str) -> Option<Placement> {
    match tag.split_once(':') {
        None if tag == "any" => Some(Placement::Any),
        Some(("zone", zone)) => Some(Placement::Zone(zone.to_owned())),
        Some(("subnet", subnet)) => Some(Placement::Subnet(subnet.to_owned())),
        None | Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_survives_its_tag() {
        for placement in [
            Placement::Any,
            Placement::Zone("us-east-1b".to_owned()),
            Placement::Subnet("subnet-1".to_owned()),
        ] {
            assert_eq!(placement_of(&placement_tag(&placement)), Some(placement));
        }
        assert_eq!(placement_of("elsewhere"), None);
    }
}
