//! What an instance costs an hour, and how old that knowledge is.
//!
//! The operator's own price file is believed first; a spot price is EC2's of a few minutes ago; the built-in table
//! comes last, with its date. What nobody knows is `None`, never 0.

mod builtin;
mod spot;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::civil::Date;
use planner::Market;

pub use crate::config::PriceFile;
pub use spot::{Following, SpotPrices};

/// What an instance costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// In dollars.
    pub usd_per_hour: f64,
    /// Of when it is.
    pub as_of: Date,
    /// Who says so.
    pub source: Source,
}

/// Who says what an instance costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `prices_file`.
    File,
    /// EC2's spot price history.
    SpotHistory,
    /// The table in this program.
    BuiltIn,
    /// A spot price is not known: the on-demand price of `prices_file`, which it does not exceed by default.
    FileCeiling,
    /// A spot price is not known: the on-demand price of the table, which it does not exceed by default.
    BuiltInCeiling,
}

/// All that is known of prices. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    file: Option<std::sync::Arc<PriceFile>>,
    spot: SpotPrices,
}

impl Prices {
    /// From the operator's file, if there is one, and spot prices that somebody keeps fresh.
    pub fn new(file: Option<PriceFile>, spot: SpotPrices) -> Self {
        Self { file: file.map(std::sync::Arc::new), spot }
    }

    /// What an instance costs an hour. Of spot prices, which differ from zone to zone, the highest of the region.
    pub fn hourly(&self, instance_type: &str, region: &str, market: Market) -> Option<Price> {
        self.find(instance_type, region, None, market)
    }

    /// The same in a zone, where the spot price of it is known.
    pub fn hourly_in(&self, instance_type: &str, region: &str, zone: &str, market: Market) -> Option<Price> {
        self.find(instance_type, region, Some(zone), market)
    }

    fn find(&self, instance_type: &str, region: &str, zone: Option<&str>, market: Market) -> Option<Price> {
        let file = self.file.as_deref();
        let of_file = |usd_per_hour, source| {
            let file = file?;
            Some(Price { usd_per_hour: usd_per_hour?, as_of: file.as_of, source })
        };
        let entry = file.and_then(|file| file.entry(instance_type, region));
        let on_demand = entry.and_then(|entry| entry.on_demand);
        let built_in = |source| {
            let usd_per_hour = builtin::on_demand(instance_type, region)?;
            Some(Price { usd_per_hour, as_of: builtin::AS_OF, source })
        };
        match market {
            Market::OnDemand => of_file(on_demand, Source::File).or_else(|| built_in(Source::BuiltIn)),
            Market::Spot => of_file(entry.and_then(|entry| entry.spot), Source::File)
                .or_else(|| self.spot.price(instance_type, region, zone))
                .or_else(|| of_file(on_demand, Source::FileCeiling))
                .or_else(|| built_in(Source::BuiltInCeiling)),
        }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { usd_per_hour, as_of, source } = self;
        let bound = match source {
            Source::File | Source::SpotHistory | Source::BuiltIn => "",
            Source::FileCeiling | Source::BuiltInCeiling => "at most ",
        };
        write!(f, "{bound}${usd_per_hour:.4}/h ({source}, {as_of})")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "price file",
            Self::SpotHistory => "spot price",
            Self::BuiltIn => "built-in list price",
            Self::FileCeiling => "on-demand price of the price file",
            Self::BuiltInCeiling => "built-in on-demand list price",
        })
    }
}
