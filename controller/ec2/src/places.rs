//! Where instances can be: regions, and the zones of the one in use.

use aws_sdk_ec2::types;

use crate::client::Client;
use crate::error::{Error, of_sdk};

const REGIONS: &str = "describe regions";
const ZONES: &str = "describe availability zones";

/// A region of the account's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// `us-east-1`.
    pub name: String,
    /// Whether the account can use it.
    pub opt_in: OptIn,
}

/// Whether an account uses a region or a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptIn {
    /// Every account can.
    NotRequired,
    /// This account can, since it asked to.
    OptedIn,
    /// Not before somebody enables it in the account's settings.
    NotOptedIn,
}

/// A zone of the region in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// `us-east-1b`. Which data centre that is differs from account to account.
    pub name: String,
    /// `use1-az2`: the same for everybody.
    pub id: Option<String>,
    /// Whether instances can be launched in it now.
    pub available: bool,
    /// A local or wavelength zone, which has few instance types and needs a subnet made for it.
    pub is_local: bool,
    /// Whether the account can use it.
    pub opt_in: OptIn,
}

impl Client {
    /// Every region, those included that the account has not enabled; by name.
    ///
    /// # Errors
    /// By meaning.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        let reply = self.sdk.describe_regions().all_regions(true).send().await;
        let reply = reply.map_err(|error| of_sdk(REGIONS, &error))?;
        let known = reply.regions().iter().filter_map(|region| {
            Some(Region { name: region.region_name()?.to_owned(), opt_in: opt_in(region.opt_in_status()) })
        });
        let mut regions: Vec<Region> = known.collect();
        regions.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(regions)
    }

    /// The zones of this region that the account can use, by name.
    ///
    /// # Errors
    /// By meaning.
    pub async fn zones(&self) -> Result<Vec<Zone>, Error> {
        let reply = self.sdk.describe_availability_zones().send().await;
        let reply = reply.map_err(|error| of_sdk(ZONES, &error))?;
        let mut zones: Vec<Zone> = reply.availability_zones().iter().filter_map(zone).collect();
        zones.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(zones)
    }
}

fn zone(zone: &types::AvailabilityZone) -> Option<Zone> {
    Some(Zone {
        name: zone.zone_name()?.to_owned(),
        id: zone.zone_id().map(str::to_owned),
        available: zone.state().is_none_or(|state| *state == types::AvailabilityZoneState::Available),
        is_local: zone.zone_type().is_some_and(|kind| kind != "availability-zone"),
        opt_in: opt_in(zone.opt_in_status().map(types::AvailabilityZoneOptInStatus::as_str)),
    })
}

fn opt_in(status: Option<&str>) -> OptIn {
    match status {
        Some("opted-in") => OptIn::OptedIn,
        Some("not-opted-in") => OptIn::NotOptedIn,
        Some(_) | None => OptIn::NotRequired,
    }
}
