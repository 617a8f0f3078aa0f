//! On-demand Linux prices as they once were: a last resort, with its date.
//!
//! From `pricing.json` of apache-libcloud 3.9 (PyPI), which is of 2025-03-02. Of a type that the file tells at several
//! prices for us-east-1, us-east-2 and us-west-2, which cost the same, the lowest is taken: the others are those of
//! dedicated tenancy. CPU families cost the same for each vCPU whatever the size, so one line stands for a family.

use jiff::civil::{Date, date};

/// When the prices were read.
pub(super) const AS_OF: Date = date(2025, 3, 2);

/// Where they hold.
const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];

/// Dollars an hour of a `large`, by family.
const FAMILIES: &[(&str, f64)] = &[
    ("c5", 0.085),
    ("c6g", 0.068),
    ("c6i", 0.085),
    ("c7i", 0.08925),
    ("m5", 0.096),
    ("m6g", 0.077),
    ("m6i", 0.096),
    ("m7i", 0.1008),
    ("r5", 0.126),
    ("r6g", 0.1008),
    ("r6i", 0.126),
    ("t2", 0.0928),
    ("t3", 0.0832),
    ("t3a", 0.0752),
    ("t4g", 0.0672),
];

/// Dollars an hour of types with accelerators, which follow no rule. Of g4dn.8xlarge, g5.12xlarge and g6e.24xlarge the
/// source has the dedicated price alone, 6 or 10 percent more than the shared one.
const TYPES: &[(&str, f64)] = &[
    ("g4dn.xlarge", 0.526),
    ("g4dn.2xlarge", 0.752),
    ("g4dn.4xlarge", 1.204),
    ("g4dn.8xlarge", 2.307),
    ("g4dn.12xlarge", 3.912),
    ("g4dn.16xlarge", 4.352),
    ("g5.xlarge", 1.006),
    ("g5.2xlarge", 1.212),
    ("g5.4xlarge", 1.624),
    ("g5.8xlarge", 2.448),
    ("g5.12xlarge", 6.2392),
    ("g5.16xlarge", 4.096),
    ("g5.24xlarge", 8.144),
    ("g5.48xlarge", 16.288),
    ("g5g.xlarge", 0.42),
    ("g5g.2xlarge", 0.556),
    ("g5g.4xlarge", 0.828),
    ("g5g.8xlarge", 1.372),
    ("g5g.16xlarge", 2.744),
    ("g6.xlarge", 0.8048),
    ("g6.2xlarge", 0.9776),
    ("g6.4xlarge", 1.3232),
    ("g6.8xlarge", 2.0144),
    ("g6.12xlarge", 4.6016),
    ("g6.16xlarge", 3.3968),
    ("g6.24xlarge", 6.6752),
    ("g6.48xlarge", 13.3504),
    ("g6e.xlarge", 1.861),
    ("g6e.2xlarge", 2.24208),
    ("g6e.4xlarge", 3.00424),
    ("g6e.8xlarge", 4.52856),
    ("g6e.12xlarge", 10.49264),
    ("g6e.16xlarge", 7.57719),
    ("g6e.24xlarge", 15.06559),
    ("gr6.4xlarge", 1.5392),
    ("gr6.8xlarge", 2.4464),
    ("inf2.xlarge", 0.7582),
    ("inf2.8xlarge", 1.96786),
    ("inf2.24xlarge", 6.49063),
    ("inf2.48xlarge", 12.98127),
    ("p3.2xlarge", 3.06),
    ("p3.8xlarge", 12.24),
    ("p3.16xlarge", 24.48),
    ("p3dn.24xlarge", 31.212),
    ("p4d.24xlarge", 32.7726),
    ("p4de.24xlarge", 40.96575),
    ("p5.48xlarge", 98.32),
    ("trn1.2xlarge", 1.34375),
    ("trn1.32xlarge", 21.5),
    ("trn1n.32xlarge", 24.78),
];

/// Dollars an hour on demand, if the table knows the type and the region.
pub(super) fn on_demand(instance_type: &str, region: &str) -> Option<f64> {
    if !REGIONS.contains(&region) {
        return None;
    }
    let listed = TYPES.iter().find(|(name, _)| *name == instance_type);
    listed.map(|(_, price)| *price).or_else(|| {
        let (family, size) = instance_type.split_once('.')?;
        let (_, large) = FAMILIES.iter().find(|(name, _)| *name == family)?;
        Some(large * larges(size)?)
    })
}

/// How many times as much as a `large` a size has.
fn larges(size: &str) -> Option<f64> {
    match size {
        "nano" => Some(0.0625),
        "micro" => Some(0.125),
        "small" => Some(0.25),
        "medium" => Some(0.5),
        "large" => Some(1.0),
        "xlarge" => Some(2.0),
        other => {
            let times: u8 =
                other.strip_suffix("xlarge")?.parse().ok().filter(|times| (2..=48).contains(times))?;
            Some(f64::from(times) * 2.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_their_sizes_and_gpus_their_own_prices() {
        let near = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-9);
        for (name, wanted) in [
            ("g4dn.xlarge", 0.526),
            ("c5.9xlarge", 1.53),
            ("m5.24xlarge", 4.608),
            ("t3.nano", 0.0052),
            ("t3.medium", 0.0416),
            ("r6g.16xlarge", 3.2256),
        ] {
            assert!(near(on_demand(name, "us-east-1"), wanted), "{name}");
        }
        for name in ["m5.metal", "g4dn.metal", "x9.large", "m5", "m5.0xlarge"] {
            assert_eq!(on_demand(name, "us-east-1"), None, "{name}");
        }
        assert_eq!(on_demand("m5.large", "sa-east-1"), None, "prices differ by region");
    }
}
