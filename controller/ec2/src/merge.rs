//! `extra_configurations` merged over our own parameters, as a user expects it: what is named replaces, what is not
//! named stays.
//!
//! Both sides are well-formed: the extra was validated before.

use serde_json::{Map, Value};

use crate::launch::Market;

/// Our parameters with the extra ones over them.
pub(crate) fn merge(mut own: Map<String, Value>, extra: &Value, market: Market) -> Map<String, Value> {
    for (name, value) in extra.as_object().into_iter().flatten() {
        match name.as_str() {
            "TagSpecifications" => add_tags(own.entry(name).or_insert(Value::Null), value, market),
            "BlockDeviceMappings" => add_devices(own.entry(name).or_insert(Value::Null), value),
            "InstanceMarketOptions" => merge_market(&mut own, value, market),
            // Name or ARN: the two together are an error.
            "IamInstanceProfile" => drop(own.insert(name.clone(), value.clone())),
            _ => overlay(own.entry(name).or_insert(Value::Null), value),
        }
    }
    if own.contains_key("LaunchTemplate") {
        // The template may protect its instances against being terminated.
        own.insert("DisableApiTermination".to_owned(), Value::Bool(false));
    }
    settle_place(&mut own, extra);
    settle_network(&mut own);
    own
}

/// Mappings are merged, anything else is replaced.
fn overlay(own: &mut Value, extra: &Value) {
    match (own, extra) {
        (Value::Object(own), Value::Object(extra)) => {
            for (name, value) in extra {
                overlay(own.entry(name).or_insert(Value::Null), value);
            }
        }
        (own, extra) => *own = extra.clone(),
    }
}

/// Tags are added to ours, resource type by resource type; a key that both have takes the extra's value.
fn add_tags(own: &mut Value, extra: &Value, market: Market) {
    for specification in items(extra) {
        let resource = &specification["ResourceType"];
        if market == Market::OnDemand && resource == "spot-instances-request" {
            // EC2 refuses tags for what the call does not create.
            continue;
        }
        let Some(ours) = find(own, "ResourceType", resource) else {
            push(own, specification);
            continue;
        };
        for tag in items(&specification["Tags"]) {
            match find(&mut ours["Tags"], "Key", &tag["Key"]) {
                Some(same) => *same = tag.clone(),
                None => push(&mut ours["Tags"], tag),
            }
        }
    }
}

/// A mapping of a device that we map too is merged with ours, unless it says that the device is no volume.
fn add_devices(own: &mut Value, extra: &Value) {
    for mapping in items(extra) {
        match find(own, "DeviceName", &mapping["DeviceName"]) {
            Some(ours) if mapping.get("Ebs").is_some() => overlay(ours, mapping),
            Some(ours) => *ours = mapping.clone(),
            None => push(own, mapping),
        }
    }
}

/// The market is the offering's. Spot options wait for a spot offering; a capacity block is bought on demand.
fn merge_market(own: &mut Map<String, Value>, extra: &Value, market: Market) {
    let name = "InstanceMarketOptions".to_owned();
    match market {
        Market::Spot => overlay(own.entry(name).or_insert(Value::Null), extra),
        Market::OnDemand if extra.get("MarketType").is_some() => {
            own.insert(name, serde_json::json!({"MarketType": extra["MarketType"]}));
        }
        Market::OnDemand => {}
    }
}

/// An extra subnet or zone id takes the place of our zone: EC2 refuses two that differ.
fn settle_place(own: &mut Map<String, Value>, extra: &Value) {
    let by_subnet = extra.get("SubnetId").is_some()
        || extra
            .get("NetworkInterfaces")
            .is_some_and(|list| items(list).any(|one| one.get("SubnetId").is_some()));
    let extra = extra.get("Placement");
    let by_zone_id = extra.is_some_and(|place| place.get("AvailabilityZoneId").is_some());
    let by_zone = extra.is_some_and(|place| place.get("AvailabilityZone").is_some());
    if (by_subnet || by_zone_id)
        && !by_zone
        && let Some(Value::Object(place)) = own.get_mut("Placement")
    {
        place.remove("AvailabilityZone");
        if place.is_empty() {
            own.remove("Placement");
        }
    }
}

/// With network interfaces, EC2 wants subnet and groups within them.
fn settle_network(own: &mut Map<String, Value>) {
    if own.get("NetworkInterfaces").is_none_or(|list| items(list).next().is_none()) {
        return;
    }
    let moved = [("Groups", own.remove("SecurityGroupIds")), ("SubnetId", own.remove("SubnetId"))];
    let Some(Value::Array(interfaces)) = own.get_mut("NetworkInterfaces") else { return };
    for interface in interfaces.iter_mut().filter_map(Value::as_object_mut) {
        if interface.contains_key("NetworkInterfaceId") {
            // An interface that exists has its subnet and its groups.
            continue;
        }
        for (name, value) in &moved {
            if let Some(value) = value {
                interface.entry(*name).or_insert_with(|| value.clone());
            }
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn find<'a>(list: &'a mut Value, name: &str, wanted: &Value) -> Option<&'a mut Value> {
    list.as_array_mut()?.iter_mut().find(|item| item[name] == *wanted)
}

fn push(list: &mut Value, item: &Value) {
    match list {
        Value::Array(items) => items.push(item.clone()),
        _ => *list = Value::Array(vec![item.clone()]),
    }
}
