//! `prices_file`: what instances cost, in the operator's own words.
//!
//! YAML or JSON: `TYPE: USD` an hour on demand, or `TYPE: {on_demand: USD, spot: USD}`; under a region's name the same
//! for that region alone, which wins; `as_of: 2026-01-31` says of when it all is, else the file's own date does.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::faults::{Faults, Findings};
use super::section::described;
use super::values::read_file;
use super::yaml::{self, Entry, Kind, Node, shown};

/// Dollars an hour. A price of 0 would mean that nothing is known.
const PRICE: RangeInclusive<f64> = 0.000_001..=10_000.0;

/// A price file.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceFile {
    /// Of when its prices are.
    pub as_of: Date,
    /// By region and type; an empty region is any.
    prices: BTreeMap<(String, String), PriceEntry>,
}

/// What a price file says of a type, in dollars an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PriceEntry {
    /// At the list price.
    pub on_demand: Option<f64>,
    /// As spot.
    pub spot: Option<f64>,
}

impl PriceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let text = read_file(path)?;
        let findings = Findings::new(path);
        let root = match yaml::parse(&text, &mut |at, key, message| findings.fault(at, key, message)) {
            Ok(Some(Node { kind: Kind::Map(entries), .. })) => entries,
            Ok(_) => {
                return Err(Faults::whole_file(
                    path,
                    "must be a mapping of instance types to dollars an hour",
                ));
            }
            Err(malformed) => return Err(Faults::one(path, malformed.at, malformed.message)),
        };
        let mut file = Self { as_of: date_of(path), prices: BTreeMap::new() };
        for entry in &root {
            file.take(entry, &findings);
        }
        findings.settle()?;
        Ok(file)
    }

    /// What it says of a type in a region.
    pub fn entry(&self, instance_type: &str, region: &str) -> Option<&PriceEntry> {
        let at = |region: &str| self.prices.get(&(region.to_owned(), instance_type.to_owned()));
        at(region).or_else(|| at(""))
    }

    fn take(&mut self, entry: &Entry, findings: &Findings) {
        let key = shown(&entry.key);
        if entry.key == "as_of" {
            match entry.value.as_text().and_then(|text| text.trim().parse().ok()) {
                Some(date) => self.as_of = date,
                None => {
                    let message =
                        format!("must be a date such as 2026-01-31, not {}", described(&entry.value));
                    findings.fault(entry.value.at, &key, message);
                }
            }
            return;
        }
        match &entry.value.kind {
            Kind::Map(types) if !is_type(&entry.key) => {
                for inner in types {
                    self.price(&entry.key, inner, &format!("{key}.{}", shown(&inner.key)), findings);
                }
            }
            Kind::Map(_) | Kind::Scalar { .. } | Kind::List(_) => self.price("", entry, &key, findings),
        }
    }

    fn price(&mut self, region: &str, entry: &Entry, path: &str, findings: &Findings) {
        if !is_type(&entry.key) {
            findings.fault(
                entry.at,
                path,
                "must be an instance type such as g4dn.xlarge, or a region with types below it",
            );
            return;
        }
        let number = |node: &Node, path: &str| {
            let price = node.as_number().filter(|price| PRICE.contains(price));
            if price.is_none() {
                let wanted = "must be dollars an hour, above 0";
                findings.fault(node.at, path, format!("{wanted}, not {}", described(node)));
            }
            price
        };
        let mut price = PriceEntry::default();
        match &entry.value.kind {
            Kind::Map(parts) => {
                for part in parts {
                    let path = format!("{path}.{}", shown(&part.key));
                    match part.key.as_str() {
                        "on_demand" => price.on_demand = number(&part.value, &path),
                        "spot" => price.spot = number(&part.value, &path),
                        _ => findings.fault(part.at, &path, "unknown key; known here: on_demand, spot"),
                    }
                }
            }
            Kind::Scalar { .. } | Kind::List(_) => price.on_demand = number(&entry.value, path),
        }
        self.prices.insert((region.to_owned(), entry.key.clone()), price);
    }
}

/// Regions have no dot, types always one.
fn is_type(key: &str) -> bool {
    key.split_once('.').is_some_and(|(family, size)| !family.is_empty() && !size.is_empty())
}

fn date_of(path: &Path) -> Date {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let modified = modified.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(Timestamp::now);
    TimeZone::UTC.to_datetime(modified).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<PriceFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.yaml");
        std::fs::write(&path, text).unwrap();
        PriceFile::load(&path)
            .map_err(|faults| faults.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn json_is_read_as_yaml_is_and_a_region_wins() {
        let file =
            load(r#"{"g4dn.xlarge": 0.5, "us-west-2": {"g4dn.xlarge": {"on_demand": 0.6, "spot": 0.2}}}"#)
                .unwrap();
        assert_eq!(
            file.entry("g4dn.xlarge", "us-east-1"),
            Some(&PriceEntry { on_demand: Some(0.5), spot: None })
        );
        assert_eq!(
            file.entry("g4dn.xlarge", "us-west-2"),
            Some(&PriceEntry { on_demand: Some(0.6), spot: Some(0.2) })
        );
        assert_eq!(file.entry("p3.2xlarge", "us-west-2"), None);
        assert_eq!(file.as_of, TimeZone::UTC.to_datetime(Timestamp::now()).date(), "the file is of today");
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let told =
            load("as_of: soon\ng4dn.xlarge: 0\nus-east-1:\n  p3: 3\n  p3.2xlarge: {spott: 1}\n").unwrap_err();
        assert_eq!(
            told,
            "FILE:1:8: as_of: must be a date such as 2026-01-31, not 'soon'\n\
             FILE:2:14: 'g4dn.xlarge': must be dollars an hour, above 0, not '0'\n\
             FILE:4:3: us-east-1.p3: must be an instance type such as g4dn.xlarge, or a region with types below it\n\
             FILE:5:16: us-east-1.'p3.2xlarge'.spott: unknown key; known here: on_demand, spot"
        );
        assert_eq!(
            load("- 1\n").unwrap_err(),
            "FILE: must be a mapping of instance types to dollars an hour"
        );
    }
}
