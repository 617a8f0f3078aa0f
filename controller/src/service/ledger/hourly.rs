//! What instances cost an hour, as far as a run knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use planner::{InstanceType, Market};

use crate::config::{Config, Faults};
use crate::prices::{Following, Price, PriceFile, Prices, SpotPrices};

/// Prices of instances.
pub trait Hourly: Send + Sync + 'static {
    /// What one costs, in this zone if that is known; `None` if nobody knows.
    fn price(&self, instance_type: &InstanceType, zone: Option<&str>, market: Market) -> Option<Price>;
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
    fn price(&self, instance_type: &InstanceType, zone: Option<&str>, market: Market) -> Option<Price> {
        let (name, region) = (instance_type.as_str(), self.region.as_str());
        match zone {
            Some(zone) => self.prices.hourly_in(name, region, zone, market),
            None => self.prices.hourly(name, region, market),
        }
    }
}

/// Knows no price.
#[cfg(test)]
pub(crate) struct NoPrices;

#[cfg(test)]
impl Hourly for NoPrices {
    fn price(&self, _instance_type: &InstanceType, _zone: Option<&str>, _market: Market) -> Option<Price> {
        None
    }
}
