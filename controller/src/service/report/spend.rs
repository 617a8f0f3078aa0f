//! What the fleet costs: by the hour now, and in total since this run began. What is not known is counted,
//! and never taken for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Published;
use planner::{InstanceType, Market, Time};

use crate::config::{Config, Faults};
use crate::prices::{Following, PriceFile, Prices, SpotPrices};

/// Prices of instances.
pub trait Hourly: Send + Sync + 'static {
    /// US dollars an hour; `None` if it is not known.
    fn hourly(&self, instance_type: &InstanceType, market: Market) -> Option<f64>;
}

/// What is known of the prices of a run's region.
#[derive(Clone)]
pub struct RegionalPrices {
    prices: Prices,
    region: String,
    /// Spot prices are kept fresh for as long as anybody asks for them.
    _following: Option<Arc<Following>>,
}

impl RegionalPrices {
    /// By `prices_file`, and by EC2's spot prices where the configuration buys spot instances.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub(in crate::service) fn follow(ec2: &ec2::Client, config: &Config) -> Result<Self, Faults> {
        let file = config.prices_file.as_deref().map(PriceFile::load).transpose()?;
        let spot = SpotPrices::default();
        let bought = config.resources.iter().filter(|resource| resource.market == Market::Spot);
        let types: BTreeSet<String> = bought.map(|resource| resource.instance_type.to_string()).collect();
        let following = (!types.is_empty()).then(|| Arc::new(spot.follow(ec2.clone(), types)));
        Ok(Self { prices: Prices::new(file, spot), region: ec2.region().to_owned(), _following: following })
    }
}

impl Hourly for RegionalPrices {
    fn hourly(&self, instance_type: &InstanceType, market: Market) -> Option<f64> {
        let price = self.prices.hourly(instance_type.as_str(), &self.region, market)?;
        Some(price.usd_per_hour)
    }
}

/// Knows no price.
#[cfg(test)]
pub(super) struct NoPrices;

#[cfg(test)]
impl Hourly for NoPrices {
    fn hourly(&self, _instance_type: &InstanceType, _market: Market) -> Option<f64> {
        None
    }
}

/// What the fleet costs by the hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// US dollars an hour of the instances whose price is known.
    pub(super) known: f64,
    /// Instances whose price is known.
    pub(super) priced: u32,
    /// Instances whose price is not.
    pub(super) unpriced: u32,
}

/// Adds up what was spent.
#[derive(Debug, Default)]
pub(super) struct Meter {
    rate: Rate,
    read_at: Option<Time>,
    total: f64,
    /// Some price was not known at some time: the total is more than it says.
    pub(super) is_partial: bool,
    priced_ever: bool,
}

impl Meter {
    /// Takes a pass in.
    pub(super) fn observe(&mut self, published: &Published, prices: &dyn Hourly) {
        let now = published.snapshot.now;
        if let Some(before) = self.read_at {
            self.total += self.rate.known * now.since(before).as_secs_f64() / 3600.0;
        }
        self.read_at = Some(now);
        self.rate = rate(published, prices);
        self.is_partial |= self.rate.unpriced > 0;
        self.priced_ever |= self.rate.priced > 0;
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// US dollars since this run began; `None` as long as no price was ever known and instances ran.
    pub(super) fn total(&self) -> Option<f64> {
        (self.priced_ever || !self.is_partial).then_some(self.total)
    }
}

fn rate(published: &Published, prices: &dyn Hourly) -> Rate {
    let mut counts: BTreeMap<(&InstanceType, Market), u32> = BTreeMap::new();
    for instance in published.snapshot.instances.values().filter(|instance| instance.counts()) {
        *counts.entry((instance.instance_type(), instance.offering.market)).or_default() += 1;
    }
    let mut rate = Rate::default();
    for ((instance_type, market), count) in counts {
        match price(prices, instance_type, market) {
            Some(price) => {
                rate.known += price * f64::from(count);
                rate.priced += count;
            }
            None => rate.unpriced += count,
        }
    }
    rate
}

/// A price that is no price is not known.
pub(super) fn price(prices: &dyn Hourly, instance_type: &InstanceType, market: Market) -> Option<f64> {
    prices.hourly(instance_type, market).filter(|price| price.is_finite() && *price >= 0.0)
}
