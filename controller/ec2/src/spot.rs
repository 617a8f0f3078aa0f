//! What spot instances cost now.

use std::collections::BTreeSet;
use std::time::SystemTime;

use aws_sdk_ec2::types;
use aws_smithy_types::DateTime;

use crate::client::Client;
use crate::error::Error;
use crate::listing::whole;

const HISTORY: &str = "describe spot price history";

/// Linux without a licence of its own. In networks and outside of them it went by two names once.
const LINUX: [&str; 2] = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"];

/// The price of a type in a zone.
#[derive(Clone, Debug, PartialEq)]
pub struct SpotPrice {
    /// `g4dn.xlarge`.
    pub instance_type: String,
    /// `us-east-1b`.
    pub zone: String,
    /// In dollars.
    pub usd_per_hour: f64,
    /// Milliseconds since the Unix epoch: since when.
    pub since_ms: i64,
}

impl Client {
    /// The prices that hold now, of Linux, of each of these types in each zone of the region that sells it.
    ///
    /// # Errors
    /// By meaning.
    pub async fn spot_prices(&self, types: &BTreeSet<String>) -> Result<Vec<SpotPrice>, Error> {
        if types.is_empty() {
            // EC2 would tell of all types.
            return Ok(Vec::new());
        }
        let names = types.iter().map(|name| types::InstanceType::from(name.as_str())).collect();
        let call = self
            .sdk
            .describe_spot_price_history()
            .set_instance_types(Some(names))
            .set_product_descriptions(Some(LINUX.map(str::to_owned).to_vec()))
            // From now on: EC2 then tells each price that holds, and none that held before.
            .start_time(DateTime::from(SystemTime::now()));
        let pages = call.into_paginator().items().send();
        let history = whole(HISTORY, pages.collect::<Result<Vec<_>, _>>()).await?;
        let mut prices: Vec<SpotPrice> = history.iter().filter_map(price).collect();
        prices.sort_by(|one, other| {
            (&one.instance_type, &one.zone, other.since_ms).cmp(&(
                &other.instance_type,
                &other.zone,
                one.since_ms,
            ))
        });
        prices.dedup_by(|later, first| {
            (&later.instance_type, &later.zone) == (&first.instance_type, &first.zone)
        });
        Ok(prices)
    }
}

fn price(entry: &types::SpotPrice) -> Option<SpotPrice> {
    Some(SpotPrice {
        instance_type: entry.instance_type()?.as_str().to_owned(),
        zone: entry.availability_zone()?.to_owned(),
        usd_per_hour: entry
            .spot_price()?
            .parse()
            .ok()
            .filter(|price: &f64| price.is_finite() && *price >= 0.0)?,
        since_ms: entry.timestamp()?.to_millis().ok()?,
    })
}
