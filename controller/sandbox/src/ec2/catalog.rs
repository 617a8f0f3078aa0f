//! What can be known about an instance type by its name, and the account's fixed furniture.

pub(crate) const OWNER: &str = "123456789012";
pub(crate) const VPC: &str = "vpc-00000000000000001";
pub(crate) const ROOT_DEVICE: &str = "/dev/sda1";

/// What a region is listed to have; any other well-formed name is a type, too.
pub(crate) const TYPES: &[&str] = &[
    "c5.2xlarge",
    "c5.4xlarge",
    "c5.large",
    "c5.xlarge",
    "c7g.xlarge",
    "g4dn.12xlarge",
    "g4dn.16xlarge",
    "g4dn.2xlarge",
    "g4dn.4xlarge",
    "g4dn.8xlarge",
    "g4dn.xlarge",
    "g5.12xlarge",
    "g5.2xlarge",
    "g5.48xlarge",
    "g5.xlarge",
    "g5g.xlarge",
    "g6.2xlarge",
    "g6.xlarge",
    "m5.2xlarge",
    "m5.4xlarge",
    "m5.large",
    "m5.xlarge",
    "m6g.large",
    "p3.16xlarge",
    "p3.2xlarge",
    "p3.8xlarge",
    "p4d.24xlarge",
    "p5.48xlarge",
    "r5.xlarge",
    "t3.large",
    "t3.medium",
    "t3.micro",
    "t4g.small",
];

/// Dollars an hour, in this market's own way of counting.
pub(crate) fn spot_price(instance_type: &str) -> f64 {
    let gpus = gpus(instance_type).map_or(0, |(number, _, _)| number);
    f64::from(vcpus(instance_type).unwrap_or(1)) * 0.0125 + f64::from(gpus) * 0.1
}

/// The vCPUs of a type such as `m5.4xlarge`; `None` if that is no type's name.
pub(crate) fn vcpus(instance_type: &str) -> Option<u32> {
    let (family, size) = instance_type.split_once('.')?;
    let well_formed = family.starts_with(|first: char| first.is_ascii_lowercase())
        && family.contains(|c: char| c.is_ascii_digit())
        && family.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !well_formed {
        return None;
    }
    match size {
        "nano" | "micro" | "small" | "medium" => Some(if family.starts_with('t') { 2 } else { 1 }),
        "large" => Some(2),
        "xlarge" => Some(4),
        "metal" => Some(96),
        other => {
            let factor =
                other.strip_suffix("xlarge")?.parse::<u32>().ok().filter(|n| (2..=224).contains(n))?;
            Some(factor * 4)
        }
    }
}

/// Memory in MiB, by the family's usual share a vCPU.
pub(crate) fn memory_mib(instance_type: &str) -> u32 {
    let gib_per_vcpu = match instance_type.chars().next() {
        Some('c') => 2,
        Some('r' | 'x' | 'z') => 8,
        Some(_) | None => 4,
    };
    vcpus(instance_type).unwrap_or(1) * gib_per_vcpu * 1024
}

/// `arm64` for Graviton, whose families carry a `g` after their generation.
pub(crate) fn architecture(instance_type: &str) -> &'static str {
    let family = instance_type.split('.').next().unwrap_or_default();
    let graviton = family
        .find(|c: char| c.is_ascii_digit())
        .and_then(|at| family.get(at..))
        .is_some_and(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('g'));
    if graviton { "arm64" } else { "x86_64" }
}

/// GPUs: how many, their name and memory in MiB.
pub(crate) fn gpus(instance_type: &str) -> Option<(u32, &'static str, u32)> {
    let (family, _) = instance_type.split_once('.')?;
    let vcpus = vcpus(instance_type)?;
    match family {
        "p3" => Some(((vcpus / 8).max(1), "V100", 16_384)),
        "p4d" => Some((8, "A100", 40_960)),
        "p5" => Some((8, "H100", 81_920)),
        "g4dn" => Some((
            if vcpus >= 96 {
                8
            } else if vcpus == 48 {
                4
            } else {
                1
            },
            "T4",
            16_384,
        )),
        "g5" => Some((
            if vcpus >= 192 {
                8
            } else if vcpus >= 96 || vcpus == 48 {
                4
            } else {
                1
            },
            "A10G",
            24_576,
        )),
        "g6" => Some((
            if vcpus >= 192 {
                8
            } else if vcpus >= 96 || vcpus == 48 {
                4
            } else {
                1
            },
            "L4",
            24_576,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_understood_by_their_names() {
        assert_eq!(vcpus("m5.large"), Some(2));
        assert_eq!(vcpus("m5.4xlarge"), Some(16));
        assert_eq!(vcpus("t3.micro"), Some(2));
        for bad in ["m5", "nonsense.large", "m5.huge", "M5.large", "m5.0xlarge", ""] {
            assert_eq!(vcpus(bad), None, "{bad}");
        }
        assert_eq!(architecture("m6g.large"), "arm64");
        assert_eq!(architecture("g5.xlarge"), "x86_64");
        assert_eq!(architecture("c7gn.medium"), "arm64");
        assert_eq!(gpus("p3.8xlarge").map(|gpu| gpu.0), Some(4));
        assert_eq!(gpus("m5.large"), None);
    }
}
