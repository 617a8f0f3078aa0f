//! How many vCPUs the budget may come to, against what the account may run.

use std::collections::BTreeMap;

use ec2::Bucket;

use super::Check;
use super::facts::{Facts, Known, Trouble, market};
use crate::config::Config;

/// What the budget asks of one quota.
#[derive(Default)]
struct Need {
    /// If every pool is at its maximum.
    most: u64,
    /// Of the smallest instance, so that one can run at all.
    least: u64,
}

/// One line for each quota that the budget's types count against.
pub(super) fn examine(config: &Config, facts: &Facts) -> Vec<Check> {
    let Ok(types) = &facts.types else {
        // The types' own lines say why they are not known.
        return Vec::new();
    };
    let mut needs: BTreeMap<(Bucket, ec2::Market), Need> = BTreeMap::new();
    for pool in config.pools.iter().filter(|pool| pool.maximum > 0) {
        let Some(resource) = config.resource(&pool.resource) else { continue };
        let market = market(resource.market);
        let bucket = Bucket::of(resource.instance_type.as_str(), market);
        let (Some(bucket), Some(kind)) = (bucket, types.get(resource.instance_type.as_str())) else {
            continue;
        };
        let vcpus = u64::from(kind.vcpus);
        let need = needs.entry((bucket, market)).or_insert(Need { most: 0, least: u64::MAX });
        need.most += vcpus * u64::from(pool.maximum);
        need.least = need.least.min(vcpus);
    }
    needs.iter().filter_map(|(key, need)| Some(line(*key, need, facts.quotas.get(key)?))).collect()
}

fn line((bucket, market): (Bucket, ec2::Market), need: &Need, quota: &Known<u32>) -> Check {
    let Need { most, least } = need;
    let name = format!("aws.quota.{}", word(bucket, market));
    let title = bucket.name(market);
    let quota = match quota {
        Ok(quota) => u64::from(*quota),
        // Worth knowing, and no more: a launch beyond a quota waits, and says so.
        Err(Trouble::Denied(why) | Trouble::Refused(why) | Trouble::Silent(why)) => {
            let detail = format!("{title}: could not be looked at: {why}; the budget may use {most}");
            let remedy =
                "allow statement Setup of `controller iam-policy`, or see the console of Service Quotas";
            return Check::warning(name, detail, remedy);
        }
    };
    let remedy = format!("ask for more of \"{title}\" in the console of Service Quotas, or lower the budget");
    let detail = format!("{title}: {quota} vCPUs, of which the budget may use {most}");
    if quota < *least {
        Check::error(name, format!("{detail}; not even one instance, of {least}, can run"), remedy)
    } else if quota < *most {
        Check::warning(name, format!("{detail}; the rest will wait"), remedy)
    } else {
        Check::ok(name, format!("{detail}; what else runs in the account counts, too"))
    }
}

fn word(bucket: Bucket, market: ec2::Market) -> String {
    let market = match market {
        ec2::Market::Spot => "spot",
        ec2::Market::OnDemand => "on_demand",
    };
    format!("{bucket:?}.{market}").to_lowercase()
}
