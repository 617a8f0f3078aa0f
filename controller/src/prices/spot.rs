//! Spot prices, read from EC2 every few minutes and kept for a day at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::task::JoinHandle;

use super::{Price, Source};

/// Prices change every few minutes at most; as much again is added by chance, so that fleets do not ask in step.
const REFRESH: Duration = Duration::from_secs(600);
/// After a read that failed.
const RETRY: Duration = Duration::from_secs(60);
/// An older price is not told any more.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// One read.
const LIMIT: Duration = Duration::from_secs(60);
/// Types that are followed; more stand in no configuration.
const MOST_TYPES: usize = 500;

/// Spot prices as they were last read. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct SpotPrices {
    known: Arc<RwLock<BTreeMap<String, Zones>>>,
}

/// Of one type: dollars an hour by zone, and when they were read.
type Zones = BTreeMap<String, (f64, Timestamp)>;

/// Keeps spot prices fresh for as long as it lives.
#[derive(Debug)]
pub struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SpotPrices {
    /// Reads the prices of these types once.
    ///
    /// # Errors
    /// By meaning; what was known before stays.
    pub async fn read(&self, ec2: &ec2::Client, types: &BTreeSet<String>) -> Result<(), ec2::Error> {
        let types: BTreeSet<String> = types.iter().take(MOST_TYPES).cloned().collect();
        let prices = ec2.spot_prices(&types).await?;
        let now = Timestamp::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for price in prices {
            known.entry(price.instance_type).or_default().insert(price.zone, (price.usd_per_hour, now));
        }
        Ok(())
    }

    /// Reads them again and again. A read that fails is told at level debug: prices are worth having, no more.
    pub fn follow(&self, ec2: ec2::Client, types: BTreeSet<String>) -> Following {
        let prices = self.clone();
        Following(tokio::spawn(async move {
            loop {
                let outcome = tokio::time::timeout(LIMIT, prices.read(&ec2, &types)).await;
                let pause = match outcome {
                    Ok(Ok(())) => REFRESH,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "spot prices are not known");
                        RETRY
                    }
                    Err(_) => {
                        tracing::debug!("spot prices are not known: no answer in time");
                        RETRY
                    }
                };
                tokio::time::sleep(pause.mul_f64(1.0 + rand::random::<f64>())).await;
            }
        }))
    }

    /// In a zone, or the highest of the region's.
    pub(super) fn price(&self, instance_type: &str, region: &str, zone: Option<&str>) -> Option<Price> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = Timestamp::now() - KEPT;
        let zones = known.get(instance_type)?.iter().filter(|(name, (_, read_at))| {
            *read_at > oldest && name.starts_with(region) && zone.is_none_or(|zone| zone == name.as_str())
        });
        let (usd_per_hour, read_at) =
            zones.map(|(_, price)| *price).max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        let as_of = TimeZone::UTC.to_datetime(read_at).date();
        Some(Price { usd_per_hour, as_of, source: Source::SpotHistory })
    }
}
