//! DescribeInstanceTypes, DescribeInstanceTypeOfferings, DescribeSpotPriceHistory.

use jiff::Timestamp;

use super::catalog;
use super::describe::like;
use super::error::ApiError;
use super::instance::millis;
use super::params::Params;
use super::world::{Done, World};
use super::xml::Xml;

/// Entries on a page when the caller does not say.
const PAGE: usize = 100;

impl World {
    pub(crate) fn describe_instance_types(&self, params: &Params) -> Result<Done, ApiError> {
        let named = params.list("InstanceType");
        if let Some(bad) = named.iter().find(|kind| catalog::vcpus(kind).is_none()) {
            let message = format!("The following supplied instance types do not exist: [{bad}]");
            return Err(ApiError::bad("InvalidInstanceType", message));
        }
        let types = if named.is_empty() { wanted(params)? } else { named };
        paged(params, "instanceTypeSet", &types, |xml, kind| write_type(xml, kind))
    }

    pub(crate) fn describe_instance_type_offerings(&self, params: &Params) -> Result<Done, ApiError> {
        let by_zone = match params.get("LocationType") {
            None | Some("region") => false,
            Some("availability-zone") => true,
            Some(other) => return Err(ApiError::value(format!("Invalid value '{other}' for LocationType"))),
        };
        let region = [self.options.region.clone()];
        let places: &[String] = if by_zone { &self.options.zones } else { &region };
        let types = wanted(params)?;
        let offerings: Vec<(&str, &String)> = types
            .iter()
            .flat_map(|kind| places.iter().map(move |place| (*kind, place)))
            .filter(|(kind, place)| {
                !self.options.unsupported.contains(&((*kind).to_owned(), (*place).clone()))
            })
            .collect();
        paged(params, "instanceTypeOfferingSet", &offerings, |xml, (kind, place)| {
            xml.leaf("instanceType", kind).leaf("location", place);
            xml.leaf("locationType", if by_zone { "availability-zone" } else { "region" });
        })
    }

    /// The prices that hold now: this market has no history.
    pub(crate) fn describe_spot_price_history(&self, params: &Params) -> Result<Done, ApiError> {
        let named = params.list("InstanceType");
        let types = if named.is_empty() { catalog::TYPES.to_vec() } else { named };
        let products = params.list("ProductDescription");
        let zones = self.options.zones.iter();
        let sold: Vec<(&str, &String)> = zones
            .flat_map(|zone| types.iter().map(move |kind| (*kind, zone)))
            .filter(|_| products.is_empty() || products.contains(&"Linux/UNIX"))
            .filter(|(kind, zone)| {
                let pair = ((*kind).to_owned(), (*zone).clone());
                catalog::vcpus(kind).is_some() && !self.options.unsupported.contains(&pair)
            })
            .collect();
        let now = millis(Timestamp::now());
        paged(params, "spotPriceHistorySet", &sold, |xml, (kind, zone)| {
            let price = self.options.spot_prices.get(&((*kind).to_owned(), (*zone).clone())).copied();
            xml.leaf("instanceType", kind).leaf("productDescription", "Linux/UNIX");
            xml.leaf("spotPrice", format!("{:.6}", price.unwrap_or_else(|| catalog::spot_price(kind))));
            xml.leaf("timestamp", &now).leaf("availabilityZone", zone);
        })
    }
}

/// By the filter `instance-type`; without one, all that the catalogue lists.
fn wanted(params: &Params) -> Result<Vec<&str>, ApiError> {
    let mut patterns = None;
    for index in params.indices("Filter") {
        match params.need(&format!("Filter.{index}.Name"))? {
            "instance-type" => patterns = Some(params.list(&format!("Filter.{index}.Value"))),
            other => return Err(ApiError::value(format!("The filter '{other}' is invalid"))),
        }
    }
    let Some(patterns) = patterns else { return Ok(catalog::TYPES.to_vec()) };
    let listed = catalog::TYPES
        .iter()
        .copied()
        .filter(|kind| patterns.iter().any(|pattern| like(pattern.as_bytes(), kind.as_bytes())));
    // A well-formed name is a type here, listed or not.
    let named = patterns.iter().copied().filter(|name| catalog::vcpus(name).is_some());
    let mut types: Vec<&str> = listed.chain(named).collect();
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

/// One page of a list; the token is the number of what was told.
fn paged<T>(
    params: &Params,
    name: &str,
    items: &[T],
    write: impl FnMut(&mut Xml, &T),
) -> Result<Done, ApiError> {
    let size = params.parsed::<usize>("MaxResults")?.unwrap_or(PAGE);
    let token = params.get("NextToken").filter(|token| !token.is_empty());
    let invalid = |token: &str| ApiError::bad("InvalidNextToken", format!("The token '{token}' is invalid."));
    let start = token.map_or(Ok(0), |token| token.parse::<usize>().map_err(|_| invalid(token)))?;
    let end = (start + size).min(items.len());
    let page = items.get(start..end).unwrap_or_default();
    let mut xml = Xml::default();
    xml.list(name, page, write);
    if end < items.len() {
        xml.leaf("nextToken", end);
    }
    Ok(Done { xml, instances: Vec::new() })
}

fn write_type(xml: &mut Xml, kind: &str) {
    xml.leaf("instanceType", kind).leaf("currentGeneration", true);
    xml.node("vCpuInfo", |xml| {
        xml.leaf("defaultVCpus", catalog::vcpus(kind).unwrap_or(1));
    });
    xml.node("memoryInfo", |xml| {
        xml.leaf("sizeInMiB", catalog::memory_mib(kind));
    });
    xml.node("processorInfo", |xml| {
        xml.node("supportedArchitectures", |xml| {
            xml.leaf("item", catalog::architecture(kind));
        });
    });
    xml.node("supportedUsageClasses", |xml| {
        xml.leaf("item", "on-demand").leaf("item", "spot");
    });
    if let Some((number, name, memory)) = catalog::gpus(kind) {
        xml.node("gpuInfo", |xml| {
            xml.list("gpus", [name], |xml, name| {
                xml.leaf("name", name).leaf("manufacturer", "NVIDIA").leaf("count", number);
                xml.node("memoryInfo", |xml| {
                    xml.leaf("sizeInMiB", memory);
                });
            });
            xml.leaf("totalGpuMemoryInMiB", memory * number);
        });
    }
}
