//! What `extra_configurations` may not say, because the controller could not keep its promises then.

use std::collections::BTreeSet;

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use serde_json::{Map, Value};

use crate::fault::{Fault, field};
use crate::read::Read as _;

/// Tags under it are the controller's own.
pub const RESERVED_TAG_PREFIX: &str = "clearml-autoscaler:";

/// Never allowed: the field, and what to do instead.
const OURS: &[(&str, &str)] = &[
    ("ClientToken", "is the controller's own"),
    ("DryRun", "would never launch anything"),
    ("InstanceType", "is set by the resource's instance_type"),
    ("MaxCount", "is decided call by call, within the budget's maximum"),
    ("MinCount", "is decided call by call"),
    ("UserData", "is the controller's own; use extra_vm_bash_script"),
];

/// Allowed with one value only: path, that value, why.
const FIXED: &[(&[&str], &str, &str)] = &[
    (&["DisableApiTermination"], "false", "or the controller could not end its instances"),
    (
        &["InstanceInitiatedShutdownBehavior"],
        "terminate",
        "or instances that shut down would be kept and paid for",
    ),
    (&["InstanceMarketOptions", "MarketType"], "capacity-block", "as is_spot says what is spot"),
    (
        &["InstanceMarketOptions", "SpotOptions", "InstanceInterruptionBehavior"],
        "terminate",
        "or interrupted instances would be kept and paid for",
    ),
    (
        &["InstanceMarketOptions", "SpotOptions", "SpotInstanceType"],
        "one-time",
        "or ec2 would launch again what the controller ended",
    ),
    (&["MetadataOptions", "HttpEndpoint"], "enabled", "as instances learn their id there"),
];

/// What belongs to one instance alone, on top and in a network interface.
const SINGULAR: &[&str] = &["Ipv6Addresses", "PrivateIpAddress"];
const SINGULAR_OF_INTERFACE: &[&str] =
    &["Ipv6Addresses", "NetworkInterfaceId", "PrivateIpAddress", "PrivateIpAddresses"];

/// All faults of an `extra_configurations`: unknown fields (with the nearest known name), wrong types, and what
/// would break the controller's promises; in the order of their paths. Null is no extra at all.
pub fn faults_of_extra(extra: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    if extra.is_null() {
        return faults;
    }
    for (name, why) in OURS {
        if extra.get(name).is_some() {
            faults.push(Fault::new(*name, format!("can't be set here: it {why}")));
        }
    }
    for (path, allowed, why) in FIXED {
        let found = path.iter().try_fold(extra, |value, name| value.get(name));
        let is_allowed =
            |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned) == *allowed;
        if found.is_some_and(|value| !is_allowed(value)) {
            let message = format!("must be {allowed} if it is set, {why}");
            faults.push(Fault::new(path.join("."), message));
        }
    }
    faults.extend(faults_of_tags(extra));
    let _ = RunInstancesInputBuilder::read(extra, "", &mut faults);
    // A value may be both not allowed and of the wrong type: once is enough.
    let mut seen = BTreeSet::new();
    faults.retain(|fault| seen.insert(fault.path.clone()));
    faults.sort_by(|one, other| one.path.cmp(&other.path));
    faults
}

/// What can't be given to more than one instance.
pub(crate) fn only_for_one(parameters: &Map<String, Value>) -> Vec<Fault> {
    let mut found: Vec<String> = SINGULAR
        .iter()
        .filter(|name| parameters.contains_key(**name))
        .map(|name| (*name).to_owned())
        .collect();
    for list in ["NetworkInterfaces", "SecondaryInterfaces"] {
        for (at, interface) in indexed(list, parameters.get(list)) {
            let names = SINGULAR_OF_INTERFACE.iter().filter(|name| interface.get(name).is_some());
            found.extend(names.map(|name| field(&at, name)));
        }
    }
    found
        .into_iter()
        .map(|path| Fault::new(path, "belongs to one instance: set the pool's maximum to 1"))
        .collect()
}

pub(crate) fn is_capacity_block(extra: &Value) -> bool {
    extra.pointer("/InstanceMarketOptions/MarketType").is_some_and(|kind| kind == "capacity-block")
}

fn faults_of_tags(extra: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, specification) in indexed("TagSpecifications", extra.get("TagSpecifications")) {
        if specification.is_object() && specification.get("ResourceType").is_none() {
            faults.push(Fault::new(field(&at, "ResourceType"), "is missing"));
        }
        for (at, tag) in indexed(&field(&at, "Tags"), specification.get("Tags")) {
            let at = field(&at, "Key");
            match tag.get("Key").and_then(Value::as_str) {
                None if tag.is_object() => faults.push(Fault::new(at, "is missing")),
                Some(key) if key.starts_with(RESERVED_TAG_PREFIX) || key.starts_with("aws:") => {
                    let message = format!("can't begin with {RESERVED_TAG_PREFIX} or aws:");
                    faults.push(Fault::new(at, message));
                }
                Some(_) | None => {}
            }
        }
    }
    faults
}

fn indexed<'a>(path: &str, list: Option<&'a Value>) -> Vec<(String, &'a Value)> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
}
