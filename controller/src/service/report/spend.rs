//! What the fleet costs: by the hour now, and in total since its ledger began. What is not known is counted,
//! and never taken for nothing.

use std::collections::BTreeMap;

use engine::Published;
use planner::{InstanceType, Market, Time};

use crate::service::ledger::Book;
pub(super) use crate::service::ledger::Hourly;

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

/// Reads the rate, and the ledger's total.
#[derive(Debug, Default)]
pub(super) struct Meter {
    rate: Rate,
    book: Book,
    read_at: Time,
    priced_ever: bool,
}

impl Meter {
    /// Goes on from what the ledger has.
    pub(super) fn new(book: Book) -> Self {
        Self { priced_ever: book.spent(Time::default()).usd > 0.0, book, ..Self::default() }
    }

    /// Takes a pass in.
    pub(super) fn observe(&mut self, published: &Published, prices: &dyn Hourly) {
        self.read_at = published.snapshot.now;
        // The ledger itself writes them.
        drop(self.book.observe(published, prices));
        self.rate = rate(published, prices);
        self.priced_ever |= self.rate.priced > 0;
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Some price was not known at some time: the total is more than it says.
    pub(super) fn is_partial(&self) -> bool {
        self.book.spent(self.read_at).unpriced_ms > 0 || self.rate.unpriced > 0
    }

    /// US dollars since the ledger began; `None` as long as no price was ever known and instances ran.
    pub(super) fn total(&self) -> Option<f64> {
        (self.priced_ever || !self.is_partial()).then(|| self.book.spent(self.read_at).usd)
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
    let price = prices.price(instance_type, None, market)?.usd_per_hour;
    Some(price).filter(|price| price.is_finite() && *price >= 0.0)
}
