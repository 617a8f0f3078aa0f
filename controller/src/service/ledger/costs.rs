//! The schema of `costs --json`, and how the ledger's stretches add up to it.

use std::collections::{BTreeMap, BTreeSet};

use planner::{Market, Time};
use serde::{Deserialize, Serialize};

use crate::journal::{EndedBy, PricePaid, Spent, Stretch};

/// The answer to `costs`: what the fleet cost within a time, as far as prices are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// From then, milliseconds since the Unix epoch.
    pub since: Time,
    /// Until then.
    pub until: Time,
    /// US dollars of what has a price.
    pub usd: f64,
    /// Hours of instances whose price is known.
    pub priced_hours: f64,
    /// Hours of instances whose price is not known: these cost something, too.
    pub unpriced_hours: f64,
    /// US dollars an hour of what runs now and has a price.
    pub usd_per_hour_now: f64,
    /// By queue, resource, type and market.
    pub lines: Vec<CostLine>,
}

/// What the instances of one kind cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostLine {
    /// The queue that they served.
    pub queue: String,
    /// Their resource.
    pub resource: String,
    /// EC2's type.
    pub instance_type: String,
    /// How they are paid.
    pub market: Market,
    /// How many there were.
    pub instances: u64,
    /// How many run now.
    pub running: u64,
    /// Instances of which nobody knows when they ended; they count until they were last seen.
    pub vanished: u64,
    /// US dollars of what has a price.
    pub usd: f64,
    /// Hours of instances whose price is known.
    pub priced_hours: f64,
    /// Hours of instances whose price is not known.
    pub unpriced_hours: f64,
    /// The prices that it was reckoned with, lowest first.
    pub prices: Vec<PricePaid>,
}

impl Costs {
    /// Adds up what of these stretches lies between.
    pub fn of(stretches: &[Stretch], since: Time, until: Time) -> Self {
        let mut lines: BTreeMap<_, (CostLine, BTreeSet<&str>)> = BTreeMap::new();
        let mut costs = Self { since, until, ..Self::default() };
        for stretch in stretches {
            let from = stretch.from.max(since);
            let to = stretch.end.map_or(until, |(at, _)| at.min(until));
            if to < from {
                continue;
            }
            let key = (&stretch.queue, &stretch.resource, &stretch.instance_type, stretch.market);
            let (line, instances) = lines.entry(key).or_insert_with(|| (line(stretch), BTreeSet::new()));
            instances.insert(stretch.instance.as_str());
            let price = stretch.price.as_ref();
            let Spent { usd, unpriced_ms } = Spent::of(to.since(from), price.map(|price| price.usd_per_hour));
            let unpriced = unpriced_ms as f64 / 3_600_000.0;
            let priced = if price.is_some() { to.since(from).as_secs_f64() / 3600.0 } else { 0.0 };
            line.usd += usd;
            line.priced_hours += priced;
            line.unpriced_hours += unpriced;
            match stretch.end {
                None => {
                    line.running += 1;
                    costs.usd_per_hour_now += price.map_or(0.0, |price| price.usd_per_hour);
                }
                Some((_, EndedBy::LastSeen)) => line.vanished += 1,
                Some((_, EndedBy::Ec2 | EndedBy::Seen | EndedBy::Price)) => {}
            }
            if let Some(price) = price
                && !line.prices.contains(price)
            {
                line.prices.push(price.clone());
            }
        }
        for (mut line, instances) in lines.into_values() {
            line.instances = instances.len() as u64;
            line.prices.sort_by(|one, other| one.usd_per_hour.total_cmp(&other.usd_per_hour));
            costs.usd += line.usd;
            costs.priced_hours += line.priced_hours;
            costs.unpriced_hours += line.unpriced_hours;
            costs.lines.push(line);
        }
        costs
    }
}

fn line(stretch: &Stretch) -> CostLine {
    CostLine {
        queue: stretch.queue.to_string(),
        resource: stretch.resource.to_string(),
        instance_type: stretch.instance_type.to_string(),
        market: stretch.market,
        instances: 0,
        running: 0,
        vanished: 0,
        usd: 0.0,
        priced_hours: 0.0,
        unpriced_hours: 0.0,
        prices: Vec::new(),
    }
}
