//! EC2 behind the engine's port: a launch becomes the exact request, tags become instances again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ec2::{InstanceState, LaunchSpec, Meaning};
use engine::ports::{Cloud, CloudError, CloudInstance, CloudState, Gone, Launch, Prepared};
use planner::{FleetId, InstanceId, InstanceType, Market, Offering, Placement, Policy, Time};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::images::Images;
use crate::config::{Config, ImageRef, InstanceProfile, Resource, Volume};

const FLEET: &str = "clearml-autoscaler:fleet";
const PREFIX: &str = ec2::PREFIX_TAG;
const RESOURCE: &str = "clearml-autoscaler:resource";
const QUEUE: &str = "clearml-autoscaler:queue";
const INTENT: &str = "clearml-autoscaler:intent";
/// An operator's: spares an instance whatever happens, unless its value says no.
const KEEP: &str = "clearml-autoscaler:keep";
const PLACEMENT: &str = "clearml-autoscaler:placement";
const TASK: &str = "clearml-autoscaler:task";
const NAME: &str = "Name";
/// `Server.SpotInstanceTermination`, `Server.SpotInstanceShutdown`: AWS took it back.
const SPOT_REASON: &str = "Server.SpotInstance";

/// What an instance of a launch runs first, given the secret that its instances share.
pub type UserData = Box<dyn Fn(&Resource, &Launch, &[u8]) -> Result<String, String> + Send + Sync>;

/// What launches are made of: one configuration, and what follows from it.
pub struct Recipe {
    /// The resources.
    pub config: Arc<Config>,
    /// What the planner decides by.
    pub policy: Arc<Policy>,
    /// What instances run first.
    pub user_data: UserData,
}

impl Recipe {
    /// Whether a plan by this configuration could have this launch.
    fn offers(&self, launch: &Launch) -> bool {
        let Policy { pools, resources, .. } = &*self.policy;
        let pool = pools.iter().any(|pool| pool.queue == launch.queue && pool.resource == launch.resource);
        let resource = resources.get(&launch.resource);
        pool && resource.is_some_and(|resource| resource.offerings.contains(&launch.offering))
    }
}

/// EC2, for one fleet.
pub struct LiveCloud {
    client: ec2::Client,
    fleet: FleetId,
    /// The ClearML task that this run is.
    task: Option<String>,
    recipe: watch::Receiver<Arc<Recipe>>,
    images: Images,
}

impl LiveCloud {
    /// A fleet's view of EC2. Each launch is made by the recipe of its moment, and by that alone. Begins to
    /// look up the images that the first recipe names; another's are looked up when a launch asks for them.
    /// What a run that is a ClearML task launches is tagged with the task's id.
    pub fn new(
        client: ec2::Client,
        fleet: FleetId,
        task: Option<String>,
        recipe: watch::Receiver<Arc<Recipe>>,
    ) -> Self {
        let config = Arc::clone(&recipe.borrow().config);
        let names = config.resources.iter().filter_map(|resource| match &resource.ami_id {
            ImageRef::Name(name) => Some(name.clone()),
            ImageRef::Id(_) | ImageRef::Parameter(_) => None,
        });
        let images = Images::follow(client.clone(), names);
        Self { client, fleet, task, recipe, images }
    }

    /// Resolves when the images' names have been looked up once, or after a while.
    pub async fn settle(&self, patience: Duration) {
        self.images.settle(patience).await;
    }

    fn tags(&self, config: &Config, resource: &Resource, launch: &Launch) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([(NAME.to_owned(), format!("{}-{}", config.prefix, launch.resource))]);
        tags.extend(resource.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())));
        tags.extend(
            [
                (FLEET, self.fleet.to_string()),
                (PREFIX, config.prefix.clone()),
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

    /// The exact request that a launch leads to. No I/O.
    pub(crate) fn spec(&self, launch: &Launch, secret: &[u8]) -> Result<LaunchSpec, String> {
        let recipe = self.recipe.borrow().clone();
        let config = &recipe.config;
        // Planned by a configuration that has just been replaced: the next pass plans by the new one.
        let resource =
            config.resource(&launch.resource).filter(|_| recipe.offers(launch)).ok_or_else(|| {
                format!(
                    "the configuration has no {} as {} for queue {}",
                    launch.offering, launch.resource, launch.queue
                )
            })?;
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
            image_id: Some(match &resource.ami_id {
                ImageRef::Name(name) => self.images.id(name)?,
                image @ (ImageRef::Id(_) | ImageRef::Parameter(_)) => image.to_string(),
            }),
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
            tags: self.tags(config, resource, launch),
            hop_limit: resource.imds_hop_limit,
            volume,
            monitoring: resource.monitoring,
            key_name: resource.key_name.clone(),
            security_group_ids: resource.security_group_ids.clone(),
            profile: config.instance_profile.as_ref().map(|profile| match profile {
                InstanceProfile::Arn(arn) => ec2::Profile::Arn(arn.clone()),
                InstanceProfile::Name(name) => ec2::Profile::Name(name.clone()),
            }),
            user_data: (recipe.user_data)(resource, launch, secret)?,
            extra: serde_json::Value::Object(resource.extra.clone()),
        })
    }
}

impl Cloud for LiveCloud {
    async fn describe(&self) -> Result<BTreeMap<InstanceId, CloudInstance>, CloudError> {
        let (client, fleet) = (self.client.clone(), self.fleet.clone());
        let found = apart(async move { client.describe_by_tag(FLEET, fleet.as_str()).await }).await?;
        Ok(found.into_iter().filter_map(of_ours).collect())
    }

    async fn gone(&self, ids: &BTreeSet<InstanceId>) -> Result<BTreeMap<InstanceId, Gone>, CloudError> {
        let asked = ids.iter().map(|id| id.0.clone()).collect();
        let client = self.client.clone();
        let described = apart(async move { client.describe_ids(&asked).await }).await?;
        let ended = described.found.into_iter().filter(|instance| match instance.state {
            InstanceState::Terminated | InstanceState::Stopped => true,
            InstanceState::Pending
            | InstanceState::Running
            | InstanceState::ShuttingDown
            | InstanceState::Stopping => false,
        });
        let known = ended.map(|instance| {
            let reason = instance.state_reason.as_ref().map_or("", |reason| reason.code.as_str());
            let gone = Gone {
                ours: instance.tags.get(FLEET).is_some_and(|fleet| fleet == self.fleet.as_str()),
                by_spot: reason.starts_with(SPOT_REASON),
            };
            (InstanceId(instance.id), gone)
        });
        let missing = described.missing.into_iter().map(|id| (InstanceId(id), Gone::default()));
        Ok(known.chain(missing).collect())
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

/// Makes the call on a task of its own: reading an answer of a thousand instances takes tens of
/// milliseconds, and the loop is one future. Dropping this ends the call.
async fn apart<T: Send + 'static>(
    call: impl Future<Output = Result<T, ec2::Error>> + Send + 'static,
) -> Result<T, CloudError> {
    let mut calls = JoinSet::new();
    calls.spawn(call);
    match calls.join_next().await {
        Some(Ok(answer)) => answer.map_err(|error| by_meaning(&error)),
        Some(Err(error)) => Err(CloudError::Other(format!("the call ended early: {error}"))),
        None => Err(CloudError::Other("the call was not begun".to_owned())),
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
        kept: tag(KEEP).is_some_and(|value| !matches!(value.trim(), "false" | "no" | "off" | "0")),
        launched_at: Time(instance.launched_at_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)),
        ended_at: instance.ended_at_ms.and_then(|ms| u64::try_from(ms).ok()).map(Time),
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
    use std::path::Path;

    use planner::{ClientToken, IntentId, SidecarMode};
    use sandbox::ec2::{Ami, Ec2, Options};

    use super::*;
    use crate::config::Document;

    fn recipe(resource: &str, zone: &str) -> Recipe {
        let text = format!(
            "configurations: {{resource_configurations: {{{resource}: {{instance_type: g4dn.xlarge, ami_id: ami-1, \
             availability_zone: {zone}}}}}, queues: {{gpu: [[{resource}, 1]]}}}}"
        );
        let document = Document::from_yaml(Path::new("file"), &text).unwrap();
        let config = Arc::new(document.check(Path::new("file"), &|_| None).unwrap());
        let policy = Arc::new(config.policy(FleetId::from("f"), SidecarMode::Required, |_| None));
        Recipe { config, policy, user_data: Box::new(|_, _, _| Ok(String::new())) }
    }

    #[test]
    fn a_launch_that_another_configuration_planned_is_not_made() {
        let launch = Launch {
            intent: "1-1".into(),
            resource: "t4".into(),
            queue: "gpu".into(),
            offering: recipe("t4", "us-east-1a").policy.resources["t4"].offerings[0].clone(),
            count: 1,
            token: ClientToken::from("token"),
        };
        assert!(recipe("t4", "us-east-1a").offers(&launch));
        assert!(!recipe("t4", "us-east-1b").offers(&launch), "another place");
        assert!(!recipe("v100", "us-east-1a").offers(&launch), "another resource");
        let elsewhere = Launch { queue: "cpu".into(), ..launch };
        assert!(!recipe("t4", "us-east-1a").offers(&elsewhere), "another queue");
    }

    const TEXT: &str = "configurations: {resource_configurations: {gpu: {instance_type: g4dn.xlarge, ami_id: deep}}, \
                        queues: {default: [[gpu, 1]]}}";

    async fn cloud(sandbox: &Ec2) -> LiveCloud {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aws_autoscaler.yaml");
        std::fs::write(&file, TEXT).unwrap();
        let config = Arc::new(crate::config::load(&file, &|_| None).unwrap());
        let environment: BTreeMap<String, String> = sandbox.environment().into_iter().collect();
        let keys = ec2::Keys {
            key: environment["AWS_ACCESS_KEY_ID"].clone(),
            secret: environment["AWS_SECRET_ACCESS_KEY"].clone().into(),
            token: None,
        };
        let region = Some("us-east-1".to_owned());
        let settings = ec2::Settings { region, endpoint: Some(sandbox.url()), keys: Some(keys) };
        let client = ec2::Client::connect(settings).await.unwrap();
        let fleet = FleetId("f".to_owned());
        let policy = Arc::new(config.policy(fleet.clone(), SidecarMode::Required, |_| None));
        let recipe = Recipe { config, policy, user_data: Box::new(|_, _, _| Ok(String::new())) };
        let cloud = LiveCloud::new(client, fleet, None, watch::channel(Arc::new(recipe)).1);
        cloud.settle(Duration::from_secs(30)).await;
        cloud
    }

    fn launch(token: &str) -> Launch {
        let offering = Offering {
            instance_type: "g4dn.xlarge".into(),
            placement: Placement::Any,
            market: Market::OnDemand,
        };
        let token = ClientToken::from(token);
        Launch {
            intent: IntentId::from("1-1"),
            resource: "gpu".into(),
            queue: "default".into(),
            offering,
            count: 1,
            token,
        }
    }

    #[tokio::test]
    async fn a_launch_by_name_asks_for_the_same_image_again_whatever_the_name_stands_for_by_then() {
        let mut options = Options { other_images: None, ..Options::default() };
        options.amis.insert("ami-00000000000000001".into(), Ami::named("deep"));
        let sandbox = Ec2::start(options).await.unwrap();
        let before = cloud(&sandbox).await;
        let prepared = before.prepare(&launch("t-1")).unwrap();
        let first = before.launch(&prepared).await.unwrap();
        sandbox.configure(|options| {
            let newer = Ami { created: "2026-06-01T00:00:00.000Z".into(), ..Ami::named("deep") };
            options.amis.insert("ami-00000000000000002".into(), newer);
        });
        let after = cloud(&sandbox).await;
        assert_eq!(after.launch(&prepared).await.unwrap(), first, "the journalled request is the same one");
        after.launch(&after.prepare(&launch("t-2")).unwrap()).await.unwrap();
        let asked: Vec<String> =
            sandbox.calls_of("RunInstances").iter().map(|call| call.params["ImageId"].clone()).collect();
        assert_eq!(asked, ["ami-00000000000000001", "ami-00000000000000001", "ami-00000000000000002"]);
        assert_eq!(sandbox.counts().launched, 2);
    }

    #[tokio::test]
    async fn a_name_that_stands_for_nothing_is_told_before_anything_is_written_down() {
        let sandbox = Ec2::start(Options { other_images: None, ..Options::default() }).await.unwrap();
        let error = cloud(&sandbox).await.prepare(&launch("t-1")).unwrap_err();
        assert!(matches!(&error, CloudError::Invalid(text) if text.contains("'deep'")), "{error}");
        assert!(sandbox.calls_of("RunInstances").is_empty());
    }

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
