//! Texts as the types that their keys want: `'True'` of a task, `'15'` of a prompt, a list that stands in a
//! task as JSON or as Python prints it.

use serde_json::{Map, Number, Value};

use super::Document;
use crate::config::yaml::{self, Kind, Node};

const FLAGS: [&str; 7] = [
    "use_credentials_chain",
    "use_iam_instance_profile",
    "is_spot",
    "cpu_only",
    "enable_monitoring",
    "docker_mode",
    "skip_bashrc",
];
const NUMBERS: [&str; 12] = [
    "max_idle_time_min",
    "polling_interval_time_min",
    "max_spin_up_time_min",
    "queue_polling_interval_sec",
    "imds_hop_limit",
    "max_launches_per_minute",
    "ebs_volume_size",
    "max_hourly_cost",
    "max_daily_cost",
    "max_monthly_cost",
    "spot_fallback_after_min",
    "spot_blackout_min",
];
/// Keys whose value is a list or a mapping.
const NESTED: [&str; 6] = [
    "resource_configurations",
    "queues",
    "security_group_ids",
    "extra_configurations",
    "availability_zones",
    "subnet_ids",
];

/// The document with each value in the type of its key, where it can be read so.
pub(super) fn typed(document: Document) -> Document {
    let Document { mut hyper_params, mut configurations } = document;
    take_types(&mut hyper_params);
    take_types(&mut configurations);
    if let Some(Value::Object(resources)) = configurations.get_mut("resource_configurations") {
        for resource in resources.values_mut().filter_map(Value::as_object_mut) {
            take_types(resource);
        }
    }
    if let Some(Value::Object(queues)) = configurations.get_mut("queues") {
        for lines in queues.values_mut() {
            unpack(lines);
            for line in lines.as_array_mut().into_iter().flatten() {
                if let Some([_, maximum]) = line.as_array_mut().map(Vec::as_mut_slice) {
                    take_number(maximum);
                }
            }
        }
    }
    Document { hyper_params, configurations }
}

fn take_types(map: &mut Map<String, Value>) {
    for (key, value) in map {
        if FLAGS.contains(&key.as_str()) {
            take_flag(value);
        } else if NUMBERS.contains(&key.as_str()) {
            take_number(value);
        } else if NESTED.contains(&key.as_str()) {
            unpack(value);
        }
    }
}

fn take_flag(value: &mut Value) {
    if let Some(flag) = as_scalar(value).and_then(|node| node.as_flag()) {
        *value = Value::Bool(flag);
    }
}

fn take_number(value: &mut Value) {
    let Some(number) = as_scalar(value).and_then(|node| node.as_number()) else { return };
    // Whole ones as such: PyYAML's reader tells 4 from 4.0, and so does the script.
    let whole = number.fract() == 0.0 && number.abs() < 1e15;
    let number = if whole { Some((number as i64).into()) } else { Number::from_f64(number) };
    if let Some(number) = number {
        *value = Value::Number(number);
    }
}

fn as_scalar(value: &Value) -> Option<Node> {
    match value {
        Value::String(_) | Value::Number(_) => Some(Node::of_json(value)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `["sg-1"]`, `['sg-1']`, `{'a': True}`: JSON and what Python prints are both YAML's flow style.
fn unpack(value: &mut Value) {
    let Value::String(text) = &*value else { return };
    if !text.trim_start().starts_with(['[', '{']) {
        return;
    }
    let mut sound = true;
    if let Ok(Some(node)) = yaml::parse(text, &mut |_, _, _| sound = false)
        && sound
        && matches!(node.kind, Kind::List(_) | Kind::Map(_))
    {
        *value = literal(&node);
    }
}

fn literal(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar { text, plain: true } if text == "None" => Value::Null,
        Kind::Scalar { .. } => node.to_json(),
        Kind::List(items) => items.iter().map(literal).collect(),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), literal(&entry.value))).collect())
        }
    }
}
