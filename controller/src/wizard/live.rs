//! The wizard's choices from AWS itself. Each look-up has ten seconds; once AWS could not be reached, it is not
//! asked again.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ec2::{Client, Error, Gpus, ImageQuery, InstanceType, InstanceTypeQuery, Keys, Meaning, OptIn, Settings};
use tokio::runtime::Handle;

use super::choices::{Choice, Choices, Image, TypeFacts, Verdict};
use crate::config::{Document, ImageRef};
use crate::prices::Prices;

const PATIENCE: Duration = Duration::from_secs(10);
/// What AWS answers where the credentials themselves are at fault, not what they may do.
const NOT_TAKEN: [&str; 8] = [
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
const FIRST_REGION: &str = "us-east-1";
/// AWS's own images to begin with; the account's come before them.
const BASE_IMAGES: &str = "Deep Learning Base * GPU AMI (Ubuntu *";
const MOST_OWN_IMAGES: usize = 8;
const MOST_BASE_IMAGES: usize = 4;

/// What AWS says for one set of credentials in one region. Look-ups block, and must not come from within the runtime.
pub struct AwsChoices {
    runtime: Handle,
    settings: Settings,
    client: Option<Client>,
    /// Shared by all of a wizard's connections.
    unreachable: Rc<Cell<bool>>,
    trouble: Option<String>,
    types: Option<Vec<InstanceType>>,
}

impl AwsChoices {
    /// Asks nothing yet. `unreachable` is set, and heeded, once AWS could not be reached.
    pub fn new(runtime: Handle, settings: Settings, unreachable: Rc<Cell<bool>>) -> Self {
        Self { runtime, settings, client: None, unreachable, trouble: None, types: None }
    }

    /// For the credentials and the region of a configuration; `env` looks up environment variables.
    pub fn of(
        document: &Document,
        runtime: Handle,
        unreachable: Rc<Cell<bool>>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let text = |key: &str| {
            let text = document.hyper_params.get(key).and_then(serde_json::Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let keys = text("cloud_credentials_key").zip(text("cloud_credentials_secret"));
        let keys = keys.map(|(key, secret)| Keys {
            key,
            secret: secret.into(),
            token: text("cloud_credentials_token").map(Into::into),
        });
        // Before a region is chosen, one is needed to ask for the regions.
        let region = text("cloud_credentials_region").or_else(|| env("AWS_REGION"));
        let region = Some(region.unwrap_or_else(|| FIRST_REGION.to_owned()));
        Self::new(runtime, Settings { region, endpoint: None, keys }, unreachable)
    }

    /// The answer to one look-up, within the time; `None` if it is not known.
    fn ask<T, F>(&mut self, look_up: impl FnOnce(Client) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.try_ask(look_up)? {
            Ok(answer) => Some(answer),
            Err(error) if not_taken(&error) => None,
            Err(error) => {
                let operation = error.operation;
                self.trouble = Some(match error.meaning {
                    Meaning::Denied => {
                        format!("These credentials may not {operation}, so there is no choice here.")
                    }
                    Meaning::NoCapacity
                    | Meaning::Throttled
                    | Meaning::Gone
                    | Meaning::Invalid
                    | Meaning::Other => format!("There is no choice here: {error}."),
                });
                None
            }
        }
    }

    /// `None` if AWS can't be reached.
    fn try_ask<T, F>(&mut self, look_up: impl FnOnce(Client) -> F) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.unreachable.get() {
            return None;
        }
        let known = self.client.clone();
        let settings = self.settings.clone();
        let work = async {
            let client = match known {
                Some(client) => client,
                None => Client::connect(settings).await?,
            };
            Ok((client.clone(), look_up(client).await))
        };
        let outcome = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        let why = match outcome {
            Ok(Ok((client, Err(error)))) if error.meaning == Meaning::Other && error.code.is_none() => {
                self.client = Some(client);
                error.to_string()
            }
            Ok(Ok((client, answer))) => {
                self.client = Some(client);
                return Some(answer);
            }
            Ok(Err(error)) => return Some(Err(error)),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        self.unreachable.set(true);
        self.trouble = Some(format!("AWS can't be asked for choices ({why}); type what you want."));
        None
    }

    fn types(&mut self) -> Option<&[InstanceType]> {
        if self.types.is_none() {
            self.types =
                self.ask(|client| async move { client.instance_types(&InstanceTypeQuery::All).await });
        }
        self.types.as_deref()
    }
}

impl Choices for AwsChoices {
    fn credentials(&mut self) -> Verdict {
        match self.try_ask(|client| async move { client.zones().await }) {
            None => Verdict::Unknown,
            Some(Err(error)) if not_taken(&error) => Verdict::Refused(error.to_string()),
            Some(Ok(_) | Err(_)) => Verdict::Accepted,
        }
    }

    fn regions(&mut self) -> Option<Vec<Choice>> {
        let regions = self.ask(|client| async move { client.regions().await })?;
        let usable = regions.into_iter().filter(|region| region.opt_in != OptIn::NotOptedIn);
        Some(usable.map(|region| Choice::plain(region.name)).collect())
    }

    fn zones(&mut self, instance_type: Option<&str>) -> Option<Vec<Choice>> {
        let zones = self.ask(|client| async move { client.zones().await })?;
        let with_type = match (instance_type, self.types()) {
            (Some(name), Some(types)) => types.iter().find(|known| known.name == name),
            (Some(_) | None, _) => None,
        };
        let usable = zones.into_iter().filter(|zone| {
            let has_type =
                with_type.is_none_or(|known| known.zones.is_empty() || known.zones.contains(&zone.name));
            zone.available && zone.opt_in != OptIn::NotOptedIn && has_type
        });
        Some(usable.map(|zone| Choice { value: zone.name, note: zone.id.unwrap_or_default() }).collect())
    }

    fn instance_types(&mut self) -> Option<Vec<Choice>> {
        let mut types = self.types()?.to_vec();
        types.sort_by_key(|kind| {
            let gpus = kind.gpus.as_ref().map(|gpus| gpus.count);
            (gpus.is_none(), !kind.current, gpus, kind.vcpus, kind.name.clone())
        });
        let region = self.client.as_ref().map(|client| client.region().to_owned()).unwrap_or_default();
        let choice =
            |kind: &InstanceType| Choice { value: kind.name.clone(), note: described(kind, &region) };
        Some(types.iter().map(choice).collect())
    }

    fn type_facts(&mut self, instance_type: &str) -> Option<TypeFacts> {
        let kind = self.types()?.iter().find(|known| known.name == instance_type)?;
        let gpu = kind.gpus.as_ref().is_some_and(|gpus| gpus.manufacturer.eq_ignore_ascii_case("nvidia"));
        Some(TypeFacts { gpu, arm: !kind.architectures.contains(&ec2::Architecture::X86_64) })
    }

    fn images(&mut self) -> Option<Vec<Choice>> {
        let own = ImageQuery { owners: vec!["self".to_owned()], ..ImageQuery::default() };
        let base = ImageQuery {
            owners: vec!["amazon".to_owned()],
            name: Some(BASE_IMAGES.to_owned()),
            ..ImageQuery::default()
        };
        let (own, base) =
            self.ask(|client| async move { tokio::try_join!(client.images(&own), client.images(&base)) })?;
        let newest = |images: Vec<ec2::Image>, most: usize| {
            images.into_iter().rev().filter(|image| image.available && !image.is_windows).take(most)
        };
        let images = newest(own, MOST_OWN_IMAGES).chain(newest(base, MOST_BASE_IMAGES));
        Some(images.map(|image| Choice { value: image.id, note: image.name }).collect())
    }

    fn image(&mut self, image: &str) -> Option<Option<Image>> {
        let found = match ImageRef::parse(image).ok()? {
            ImageRef::Id(id) => self.ask(|client| async move { client.image(&id).await })?,
            ImageRef::Name(name) => self.ask(|client| async move { client.newest_image(&name).await })?,
            // EC2 itself reads it, at the launch.
            ImageRef::Parameter(_) => return None,
        };
        Some(found.map(|found| Image { id: found.id, name: found.name, root_device: found.root_device }))
    }

    fn key_pairs(&mut self) -> Option<Vec<Choice>> {
        let names = self.ask(|client| async move { client.key_pairs().await })?;
        Some(names.into_iter().map(Choice::plain).collect())
    }

    fn security_groups(&mut self) -> Option<Vec<Choice>> {
        let groups = self.ask(|client| async move { client.security_groups().await })?;
        let note = |group: &ec2::SecurityGroup| match &group.vpc {
            Some(vpc) => format!("{} in {vpc}", group.name),
            None => group.name.clone(),
        };
        Some(groups.into_iter().map(|group| Choice { note: note(&group), value: group.id }).collect())
    }

    fn subnets(&mut self, zone: Option<&str>) -> Option<Vec<Choice>> {
        let subnets = self.ask(|client| async move { client.subnets().await })?;
        let here = subnets.into_iter().filter(|subnet| zone.is_none_or(|zone| subnet.zone == zone));
        let note = |subnet: &ec2::Subnet| {
            let name = subnet.name.as_ref().map_or_else(String::new, |name| format!("{name}, "));
            let default = if subnet.is_default { ", the zone's default" } else { "" };
            format!("{name}{} in {}{default}", subnet.cidr, subnet.zone)
        };
        Some(here.map(|subnet| Choice { note: note(&subnet), value: subnet.id }).collect())
    }

    fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}

fn not_taken(error: &Error) -> bool {
    match error.code.as_deref() {
        Some(code) => NOT_TAKEN.contains(&code),
        // Before anything was asked: there are none.
        None => error.meaning == Meaning::Denied,
    }
}

fn described(kind: &InstanceType, region: &str) -> String {
    const MIB_PER_GIB: f64 = 1024.0;
    let gpus = kind.gpus.as_ref().map(|Gpus { count, name, manufacturer, memory_mib: _ }| {
        format!("{count} x {manufacturer} {name}, ")
    });
    let memory = f64::from(u32::try_from(kind.memory_mib).unwrap_or(u32::MAX)) / MIB_PER_GIB;
    let price = Prices::default().hourly(&kind.name, region, planner::Market::OnDemand);
    let price = price.map(|price| format!(", ${:.2}/h ({})", price.usd_per_hour, price.as_of));
    format!("{}{} vCPU, {memory} GiB{}", gpus.unwrap_or_default(), kind.vcpus, price.unwrap_or_default())
}
