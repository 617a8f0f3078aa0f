//! AWS: whose keys, what they may, and whether each resource could be launched.

use std::sync::Arc;

use ec2::{Client, Meaning};
use engine::ports::Launch;
use futures_util::future::join_all;
use planner::{ClientToken, FleetId, IntentId, Market, Offering, SidecarMode};

use super::facts::{Facts, Known, Trouble, asked};
use super::resources::{Bench, line};
use super::{Check, LIMIT, dials_in, quota};
use crate::boot::{self, Bootstrap};
use crate::config::{self, Config, ImageRef, PriceFile, Resource, USER_DATA_LIMIT};
use crate::gateway::Artifacts;
use crate::live::{LiveCloud, UserData};
use crate::prices::{Prices, SpotPrices};
use crate::service::artifacts::{architecture, remedy as sidecar_remedy, sidecar_dir};
use crate::service::boot_scripts::AgentSetups;
use crate::service::fleet::{self, AgentAddresses, Reach};

const CREDENTIALS: &str = "aws.credentials";
const POLICY: &str = "allow what `controller iam-policy` prints";
/// An instance that is nobody's.
const NOBODY: &str = "i-00000000000000000";

/// What AWS is asked about.
pub(super) struct Aws<'a> {
    pub(super) config: Arc<Config>,
    pub(super) mode: SidecarMode,
    pub(super) reach: Option<Reach>,
    pub(super) settings: &'a config::clearml::Settings,
    pub(super) addresses: &'a AgentAddresses,
    pub(super) connection: ec2::Settings,
}

impl Aws<'_> {
    pub(super) async fn examine(self) -> Vec<Check> {
        let connected = tokio::time::timeout(LIMIT, Client::connect(self.connection.clone())).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return self.blind(&error.to_string()),
            Err(_) => return self.blind("no credentials in time"),
        };
        let spot = SpotPrices::default();
        let types = self.config.resources.iter().map(|resource| resource.instance_type.to_string()).collect();
        let artifacts = self.artifacts();
        let (who, permissions, facts, launches, _) = tokio::join!(
            credentials(&client),
            Box::pin(self.permissions(&client)),
            Box::pin(Facts::gather(&client, &self.config)),
            Box::pin(self.launches(&client, artifacts.as_ref().ok())),
            asked(spot.read(&client, &types)),
        );
        let mut checks = vec![who];
        checks.extend(permissions);
        checks.extend(self.profile(&launches));
        checks.extend(quota::examine(&self.config, &facts));
        let file = self.config.prices_file.as_deref().and_then(|path| PriceFile::load(path).ok());
        let prices = Prices::new(file, spot);
        let port = self.reach.as_ref().map(|reach| reach.port(self.config.listen.port()));
        let bench =
            Bench { config: &self.config, facts: &facts, region: client.region(), prices: &prices, port };
        for (resource, launch) in self.config.resources.iter().zip(&launches) {
            checks.extend(bench.examine(resource, &launch.answer));
            checks.push(launch.line(resource));
            checks.push(launch.user_data_line(resource));
            checks.extend(self.sidecar(resource, &artifacts));
        }
        checks
    }

    /// Without a connection every line says so.
    fn blind(&self, why: &str) -> Vec<Check> {
        let remedy =
            "set cloud_credentials_region, and cloud_credentials_key and _secret or use_credentials_chain";
        let mut checks = vec![Check::error(CREDENTIALS, why, remedy)];
        for resource in &self.config.resources {
            let detail = "not looked at: there is no connection to EC2";
            checks.push(Check::error(line(resource, "launch"), detail, "see aws.credentials"));
            checks.extend(self.sidecar(resource, &self.artifacts()));
        }
        checks
    }

    async fn permissions(&self, client: &Client) -> Vec<Check> {
        let ours = asked(client.describe_by_tag(ec2::PREFIX_TAG, &self.config.prefix)).await;
        let instance =
            ours.ok().and_then(|instances| instances.into_iter().next()).map(|instance| instance.id);
        let id = instance.as_deref().unwrap_or(NOBODY);
        let by_name = self.config.resources.iter().any(|it| matches!(it.ami_id, ImageRef::Name(_)));
        let spot = self.config.resources.iter().any(|it| it.market == Market::Spot);
        let (describe, terminate, console, images, prices) = tokio::join!(
            asked(client.may_describe()),
            asked(end_of(client.may_terminate(id))),
            asked(end_of(client.may_read_console(id))),
            async { if by_name { Some(asked(client.may_find_images()).await) } else { None } },
            async { if spot { Some(asked(client.may_read_spot_prices()).await) } else { None } },
        );
        let mut checks = vec![
            permission("describe", "DescribeInstances", &describe),
            of_instance("terminate", "TerminateInstances", &terminate, instance.as_deref()),
            of_instance("console", "GetConsoleOutput", &console, instance.as_deref()),
        ];
        checks.extend(images.map(|answer| permission("images", "DescribeImages", &answer)));
        checks.extend(prices.map(|answer| match answer {
            Err(Trouble::Denied(why)) => Check::warning(
                "aws.permission.spot_prices",
                format!("{why}; what spot costs is not known then"),
                POLICY,
            ),
            answer => permission("spot_prices", "DescribeSpotPriceHistory", &answer),
        }));
        checks
    }

    /// Launches each resource, dry.
    async fn launches(&self, client: &Client, artifacts: Option<&Artifacts>) -> Vec<DryRun> {
        let user_data = match self.user_data(artifacts) {
            Ok(user_data) => user_data,
            Err(why) => {
                let answer = || Err(Trouble::Refused(why.clone()));
                return self
                    .config
                    .resources
                    .iter()
                    .map(|_| DryRun { answer: answer(), size: None })
                    .collect();
            }
        };
        let fleet = FleetId("doctor".to_owned());
        let cloud = LiveCloud::new(client.clone(), Arc::clone(&self.config), fleet, user_data);
        cloud.settle(LIMIT).await;
        join_all(self.config.resources.iter().map(|resource| self.launch(client, &cloud, resource))).await
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
            let setups = AgentSetups::new(Arc::clone(&self.config), self.settings, self.addresses.clone());
            let made = fleet::user_data(&self.config, &Arc::new(setups), None);
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

    fn profile(&self, launches: &[DryRun]) -> Option<Check> {
        const NAME: &str = "aws.profile";
        let profile = match self.config.instance_profile.as_ref()? {
            config::InstanceProfile::Arn(arn) => arn.as_str(),
            config::InstanceProfile::Name(name) => name.as_str(),
        };
        let blamed = |why: &str| {
            let why = why.to_ascii_lowercase();
            why.contains("passrole") || why.contains("instanceprofile") || why.contains("instance profile")
        };
        let refusal = launches.iter().find_map(|launch| match &launch.answer {
            Err(Trouble::Denied(why) | Trouble::Refused(why)) if blamed(why) => Some(why.clone()),
            Ok(()) | Err(Trouble::Denied(_) | Trouble::Refused(_) | Trouble::Silent(_)) => None,
        });
        Some(match refusal {
            Some(why) => Check::error(
                NAME,
                format!("{profile}: {why}"),
                "correct iam_name or iam_arn, and allow iam:PassRole of its role",
            ),
            None if launches.iter().any(|launch| launch.answer.is_ok()) => {
                Check::ok(NAME, format!("{profile} is there and may be passed on (dry run)"))
            }
            None => Check::warning(
                NAME,
                format!("{profile}: no dry run got so far"),
                "see the lines of the launches",
            ),
        })
    }

    fn artifacts(&self) -> Result<Artifacts, String> {
        let dir = sidecar_dir(&self.config).map_err(|error| error.to_string())?;
        Artifacts::load(&dir).map_err(|error| format!("{error}: {}", crate::doctor::cause(&error)))
    }

    fn sidecar(&self, resource: &Resource, artifacts: &Result<Artifacts, String>) -> Option<Check> {
        if !dials_in(self.mode) {
            return None;
        }
        let name = line(resource, "sidecar");
        let arch = architecture(&resource.instance_type);
        let dir = sidecar_dir(&self.config).unwrap_or_default();
        Some(match artifacts {
            Err(why) => Check::error(name, why.clone(), "let the controller read sidecar_dir"),
            Ok(artifacts) if artifacts.hash(arch).is_some() => {
                Check::ok(name, format!("{}/sidecar-{}", dir.display(), arch.name()))
            }
            Ok(_) => {
                let detail = format!("there is no sidecar-{} in {}", arch.name(), dir.display());
                Check::error(name, detail, sidecar_remedy(arch, &dir))
            }
        })
    }
}

/// What EC2 says of launching a resource.
struct DryRun {
    answer: Known<()>,
    /// Of the user data, in bytes.
    size: Option<usize>,
}

impl DryRun {
    fn line(&self, resource: &Resource) -> Check {
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

    fn user_data_line(&self, resource: &Resource) -> Check {
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

async fn credentials(client: &Client) -> Check {
    match asked(client.caller()).await {
        Ok(caller) => Check::ok(CREDENTIALS, format!("{} in {}", caller.arn, client.region())),
        Err(Trouble::Denied(why)) => Check::error(
            CREDENTIALS,
            why,
            "correct the keys, or the profile or role that the standard chain finds",
        ),
        Err(Trouble::Refused(why) | Trouble::Silent(why)) => {
            let detail = format!("whose they are could not be asked: {why}");
            Check::error(
                CREDENTIALS,
                detail,
                "is AWS reachable from here? AWS_ENDPOINT_URL and HTTPS_PROXY are honoured",
            )
        }
    }
}

/// For a permit an instance that is gone is as good as a yes.
async fn end_of(permit: impl Future<Output = Result<(), ec2::Error>>) -> Result<(), ec2::Error> {
    match permit.await {
        Err(error) if error.meaning == Meaning::Gone => Ok(()),
        answer => answer,
    }
}

fn permission(word: &str, action: &str, answer: &Known<()>) -> Check {
    let name = format!("aws.permission.{word}");
    match answer {
        Ok(()) => Check::ok(name, format!("ec2:{action} is allowed")),
        Err(Trouble::Denied(why)) => Check::error(name, why.clone(), POLICY),
        Err(Trouble::Refused(why) | Trouble::Silent(why)) => {
            Check::error(name, format!("could not be asked: {why}"), "is EC2 reachable from here?")
        }
    }
}

/// Without an instance of ours, a no may just be that of a policy which is bound to our tag.
fn of_instance(word: &str, action: &str, answer: &Known<()>, instance: Option<&str>) -> Check {
    match (answer, instance) {
        (Err(Trouble::Denied(_)), None) => Check::warning(
            format!("aws.permission.{word}"),
            format!(
                "ec2:{action} can't be tried: this fleet has no instance, and on one that does not exist it is denied"
            ),
            format!(
                "fine if the policy allows ec2:{action} on what carries the tag {}, as `controller iam-policy` has it",
                ec2::PREFIX_TAG
            ),
        ),
        (Ok(()) | Err(_), Some(_) | None) => permission(word, action, answer),
    }
}
