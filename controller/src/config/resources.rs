//! `resource_configurations`: what is launched, and how.

use std::collections::BTreeSet;

use planner::{InstanceType, Market, Placement, ResourceName};
use serde_json::{Map, Value};

use super::section::Section;
use super::yaml::{Entry, Kind, quoted, shown};
use super::{Ebs, ImageRef, Resource, Tag, Volume, tags};

/// Names end up in worker ids, tags and paths.
const NAME_LIMIT: usize = 64;
const VOLUME_KINDS: [&str; 7] = ["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"];
/// The script's, for a device without a size or a type.
const DEFAULT_VOLUME_GIB: u32 = 80;
const DEFAULT_VOLUME_KIND: &str = "gp3";
/// Keys that the schema has and this version does not implement.
const NOT_YET: [&str; 4] =
    ["availability_zones", "subnet_ids", "spot_fallback_after_min", "spot_blackout_min"];

/// What `hyper_params` says for all resources.
pub(super) struct General<'a> {
    pub(super) region: Option<&'a str>,
    pub(super) tags: &'a [Tag],
    pub(super) imds_hop_limit: u8,
}

/// What was read.
#[derive(Default)]
pub(super) struct Read<'a> {
    /// Those without a fault, in the file's order.
    pub(super) resources: Vec<Resource>,
    /// All names, so that a queue may name a resource that has a fault.
    pub(super) names: Vec<String>,
    /// Their sections, to be finished by the caller.
    pub(super) sections: Vec<Section<'a>>,
    /// The keys that a resource may have.
    pub(super) keys: BTreeSet<&'static str>,
}

/// All resources; faults are reported.
pub(super) fn resources<'a>(configurations: &Section<'a>, general: &General<'_>) -> Read<'a> {
    const KEY: &str = "resource_configurations";
    let mut read = Read::default();
    let Some(section) = configurations.section(KEY) else {
        if !configurations.has(KEY) {
            configurations.fault(KEY, "is missing; it names what may be launched");
        }
        return read;
    };
    if section.entries().is_empty() {
        configurations.fault(KEY, "names no resource");
    }
    for entry in section.entries() {
        if let Err(message) = check_name(&entry.key) {
            section.fault_at(entry.at, &shown(&entry.key), message);
        }
        read.names.push(entry.key.clone());
        let Some(own) = section.child(entry) else { continue };
        read.resources.extend(resource(&own, entry, general));
        read.keys = own.known();
        read.sections.push(own);
    }
    read
}

fn resource(section: &Section<'_>, entry: &Entry, general: &General<'_>) -> Option<Resource> {
    let required = |key: &'static str, check: fn(&str) -> Result<(), String>, example: &str| {
        if !section.has(key) {
            section.fault_at(entry.at, key, format!("is missing; write {key}: {example}"));
        }
        section.checked_text(key, check)
    };
    let instance_type = required("instance_type", check_type, "g4dn.4xlarge");
    let ami_id = required("ami_id", |text| ImageRef::parse(text).map(drop), "ami-0123456789abcdef0");
    let market = if section.flag("is_spot") { Market::Spot } else { Market::OnDemand };
    section.not_yet(&NOT_YET);
    let placement = placement(section, general.region);
    let ebs = ebs(section);
    let key_name = section.text("key_name");
    let security_group_ids = security_groups(section);
    let tags = tags::merged(tags::tags(section), general.tags);
    if tags.len() > tags::TAG_LIMIT {
        let all = tags.len();
        section
            .fault("tags", format!("are {all} with those of hyper_params; at most {} fit", tags::TAG_LIMIT));
    }
    let (cpu_only, monitoring) = (section.flag("cpu_only"), section.flag("enable_monitoring"));
    let imds_hop_limit = hop_limit(section).unwrap_or(general.imds_hop_limit);
    let extra = extra(section);
    Some(Resource {
        name: ResourceName::from(entry.key.as_str()),
        instance_type: InstanceType(instance_type?),
        market,
        placement,
        ami_id: ImageRef::parse(&ami_id?).ok()?,
        ebs,
        key_name,
        security_group_ids,
        tags,
        cpu_only,
        monitoring,
        imds_hop_limit,
        extra,
    })
}

/// `imds_hop_limit` of a resource, or of `hyper_params` for all.
pub(super) fn hop_limit(section: &Section<'_>) -> Option<u8> {
    section.whole("imds_hop_limit", 1..=64).and_then(|limit| u8::try_from(limit).ok())
}

/// Whether a prefix or a resource may be called so.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if let Some(bad) = name.chars().find(|c| matches!(c, ':' | '/')) {
        return Err(format!(
            "the name {} holds {}; ':' and '/' are not allowed, as worker ids are \
             PREFIX:RESOURCE:INSTANCE_TYPE:INSTANCE_ID",
            quoted(name),
            quoted(&bad.to_string())
        ));
    }
    if name.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')) || name.trim() != name {
        return Err(format!("the name {} holds control characters or blanks at its ends", quoted(name)));
    }
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(format!("a name has 1 to {NAME_LIMIT} bytes, not {}", name.len()));
    }
    if name.chars().all(|c| c == '.') {
        return Err("a name of dots alone is not allowed".to_owned());
    }
    Ok(())
}

fn placement(section: &Section<'_>, region: Option<&str>) -> Placement {
    let zone = section.checked_text("availability_zone", |zone| check_zone(zone, region));
    let subnet = section.checked_text("subnet_id", |subnet| check_id(subnet, "subnet-"));
    match (subnet, zone) {
        (Some(subnet), zone) => {
            if zone.is_some() {
                section.warn("availability_zone", "ignored, as subnet_id is set and has its own zone");
            }
            Placement::Subnet(subnet)
        }
        (None, Some(zone)) => Placement::Zone(zone),
        (None, None) => Placement::Any,
    }
}

fn ebs(section: &Section<'_>) -> Option<Ebs> {
    let size = section.whole("ebs_volume_size", 1..=65_536);
    let kind = section.checked_text("ebs_volume_type", |kind| {
        if VOLUME_KINDS.contains(&kind) {
            return Ok(());
        }
        Err(format!("must be one of {}, not {}", VOLUME_KINDS.join(", "), quoted(kind)))
    });
    let snapshot = section.checked_text("ebs_snapshot_id", |id| check_id(id, "snap-"));
    let Some(device_name) = section.text("ebs_device_name") else {
        for key in ["ebs_volume_size", "ebs_volume_type", "ebs_snapshot_id"] {
            if !section.has("ebs_device_name") && section.has(key) {
                section.fault(key, "has no effect without ebs_device_name; set that, /dev/sda1 for instance");
            }
        }
        return None;
    };
    let volume = match snapshot {
        Some(snapshot) => {
            if size.is_some() || kind.is_some() {
                let ignored = "ignored: ebs_volume_size and ebs_volume_type have no effect beside it";
                section.warn("ebs_snapshot_id", ignored);
            }
            Volume::Snapshot(snapshot)
        }
        None => Volume::New {
            size_gib: size.unwrap_or(DEFAULT_VOLUME_GIB),
            kind: kind.unwrap_or_else(|| DEFAULT_VOLUME_KIND.to_owned()),
        },
    };
    Some(Ebs { device_name, volume })
}

/// A list, or one text with commas.
fn security_groups(section: &Section<'_>) -> Vec<String> {
    const KEY: &str = "security_group_ids";
    let Some(node) = section.node(KEY) else { return Vec::new() };
    let texts: Option<Vec<&str>> = match &node.kind {
        Kind::List(items) => {
            items.iter().filter(|item| !item.is_absent()).map(super::yaml::Node::as_text).collect()
        }
        Kind::Scalar { text, .. } => Some(text.split(',').collect()),
        Kind::Map(_) => None,
    };
    let Some(texts) = texts else {
        section.fault(KEY, "must be a list of security group ids, or text such as 'sg-1, sg-2'");
        return Vec::new();
    };
    let mut groups: Vec<String> = Vec::new();
    for group in texts.into_iter().map(str::trim).filter(|group| !group.is_empty()) {
        match check_id(group, "sg-") {
            Ok(()) if groups.iter().any(|other| other == group) => {}
            Ok(()) => groups.push(group.to_owned()),
            Err(message) => section.fault(KEY, message),
        }
    }
    groups
}

fn extra(section: &Section<'_>) -> Map<String, Value> {
    const KEY: &str = "extra_configurations";
    let Some(node) = section.node(KEY) else { return Map::new() };
    let Value::Object(extra) = node.to_json() else {
        section.fault(KEY, format!("must be a mapping of RunInstances fields, not {}", node.shape()));
        return Map::new();
    };
    let extra = Value::Object(extra);
    for fault in ec2::validate_extra(&extra) {
        let separator = if fault.path.is_empty() || fault.path.starts_with('[') { "" } else { "." };
        section.fault_at(node.at, &format!("{KEY}{separator}{}", fault.path), fault.message);
    }
    match extra {
        Value::Object(extra) => extra,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn check_type(name: &str) -> Result<(), String> {
    let clean = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'));
    match name.split_once('.') {
        Some((family, size)) if clean && !family.is_empty() && !size.is_empty() => Ok(()),
        Some(_) | None => Err(format!("must be an instance type such as g4dn.4xlarge, not {}", quoted(name))),
    }
}

fn check_zone(zone: &str, region: Option<&str>) -> Result<(), String> {
    let clean = zone.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !clean || !zone.contains('-') || !zone.ends_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("must be an availability zone such as us-east-1b, not {}", quoted(zone)));
    }
    match region {
        Some(region) if !zone.starts_with(region) => {
            Err(format!("{} is not in cloud_credentials_region {}", quoted(zone), quoted(region)))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_id(id: &str, prefix: &str) -> Result<(), String> {
    let rest = id.strip_prefix(prefix);
    if rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric())) {
        return Ok(());
    }
    Err(format!("must be an id that begins with {prefix}, not {}", quoted(id)))
}
