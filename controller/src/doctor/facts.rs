//! What EC2 knows, each thing asked once, side by side, within its limit; or why it is not known.

use std::collections::{BTreeMap, BTreeSet};

use ec2::{Account, Bucket, Client, Image, InstanceType, InstanceTypeQuery, Meaning, SecurityGroup, Subnet};
use futures_util::future::{BoxFuture, join_all};
use planner::Market;

use super::{Check, LIMIT};
use crate::config::{Config, ImageRef};

/// Something that EC2 was asked.
pub(super) type Known<T> = Result<T, Trouble>;

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The permission is missing.
    Denied(String),
    /// EC2 refuses the question, which says something of what it is about.
    Refused(String),
    /// No answer, or none that can be used.
    Silent(String),
}

/// All answers.
pub(super) struct Facts {
    pub(super) types: Known<BTreeMap<String, InstanceType>>,
    pub(super) subnets: Known<BTreeMap<String, Subnet>>,
    pub(super) groups: Known<BTreeMap<String, SecurityGroup>>,
    pub(super) keys: Known<BTreeSet<String>>,
    pub(super) account: Known<Account>,
    /// By reference; a parameter is not among them, as EC2 reads it at a launch alone.
    pub(super) images: BTreeMap<String, Known<Option<Image>>>,
    /// vCPUs.
    pub(super) quotas: BTreeMap<(Bucket, ec2::Market), Known<u32>>,
}

impl Facts {
    /// Asks everything that a configuration makes worth asking.
    pub(super) async fn gather(client: &Client, config: &Config) -> Self {
        let names = config.resources.iter().map(|resource| resource.instance_type.to_string()).collect();
        let query = InstanceTypeQuery::Named(names);
        let images = config.resources.iter().map(|resource| &resource.ami_id);
        let (by_reference, lookups): (Vec<String>, Vec<_>) = images
            .filter_map(|image| match image {
                ImageRef::Parameter(_) => None,
                ImageRef::Id(_) | ImageRef::Name(_) => Some((image.to_string(), find(client, image))),
            })
            .unzip();
        let buckets: BTreeSet<(Bucket, ec2::Market)> = config
            .resources
            .iter()
            .filter_map(|resource| {
                let market = market(resource.market);
                Some((Bucket::of(resource.instance_type.as_str(), market)?, market))
            })
            .collect();
        let quotas = buckets.iter().map(|(bucket, market)| asked(client.vcpu_quota(*bucket, *market)));
        let (types, subnets, groups, keys, account, images, limits) = tokio::join!(
            asked(client.instance_types(&query)),
            asked(client.subnets()),
            asked(client.security_groups()),
            asked(client.key_pairs()),
            asked(client.account()),
            join_all(lookups),
            join_all(quotas),
        );
        Self {
            types: types.map(|types| types.into_iter().map(|it| (it.name.clone(), it)).collect()),
            subnets: subnets.map(|subnets| subnets.into_iter().map(|it| (it.id.clone(), it)).collect()),
            groups: groups.map(|groups| groups.into_iter().map(|it| (it.id.clone(), it)).collect()),
            keys: keys.map(|keys| keys.into_iter().collect()),
            account,
            images: by_reference.into_iter().zip(images).collect(),
            quotas: buckets.iter().copied().zip(limits).collect(),
        }
    }
}

/// An answer within the limit. Boxed: the SDK's futures are large, and many of them stand side by side.
pub(super) fn asked<'a, T>(
    question: impl Future<Output = Result<T, ec2::Error>> + Send + 'a,
) -> BoxFuture<'a, Known<T>> {
    let answer = tokio::time::timeout(LIMIT, question);
    Box::pin(async move {
        match answer.await {
            Ok(answer) => answer.map_err(|error| Trouble::of(&error)),
            Err(_) => Err(Trouble::Silent(format!("no answer from EC2 within {} s", LIMIT.as_secs()))),
        }
    })
}

pub(super) fn market(market: Market) -> ec2::Market {
    match market {
        Market::Spot => ec2::Market::Spot,
        Market::OnDemand => ec2::Market::OnDemand,
    }
}

fn find<'a>(client: &'a Client, image: &'a ImageRef) -> BoxFuture<'a, Known<Option<Image>>> {
    asked(async move {
        match image {
            ImageRef::Id(id) => client.image(id).await,
            ImageRef::Name(name) => client.newest_image(name).await,
            ImageRef::Parameter(_) => Ok(None),
        }
    })
}

impl Trouble {
    pub(super) fn of(error: &ec2::Error) -> Self {
        let text = error.to_string();
        match error.meaning {
            Meaning::Denied => Self::Denied(text),
            Meaning::Invalid | Meaning::Gone | Meaning::NoCapacity => Self::Refused(text),
            Meaning::Throttled | Meaning::Other => Self::Silent(text),
        }
    }

    /// A line for something that is worth knowing, and not known: the setup permissions may be left out.
    pub(super) fn told(&self, check: impl Into<String>) -> Check {
        match self {
            Self::Denied(why) => Check::warning(
                check,
                format!("could not be looked at: {why}"),
                "allow statement Setup of `controller iam-policy`, or see for yourself",
            ),
            Self::Refused(why) | Self::Silent(why) => Check::error(
                check,
                format!("could not be looked at: {why}"),
                "is EC2 reachable from here? AWS_ENDPOINT_URL and HTTPS_PROXY are honoured",
            ),
        }
    }
}
