//! The configuration as far as it is answered, and what the configuration's reader says of each answer.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::Document;

pub(super) const RESOURCES: &str = "resource_configurations";
pub(super) const QUEUES: &str = "queues";
/// The name under which a resource is checked before it has one.
const PROBE: &str = "probe";
const FLAGS: [&str; 3] = ["is_spot", "cpu_only", "enable_monitoring"];

/// The fields of a resource.
pub(super) type Fields = Map<String, Value>;

/// The configuration so far.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) document: Document,
}

impl Draft {
    pub(super) fn new(document: Document) -> Self {
        Self { document }
    }

    /// A scalar of `hyper_params`, unless it is absent or empty.
    pub(super) fn hyper(&self, key: &str) -> Option<String> {
        self.document.hyper_params.get(key).and_then(text)
    }

    pub(super) fn set_hyper(&mut self, key: &str, value: Value) {
        set(&mut self.document.hyper_params, key, value);
    }

    /// A scalar of `configurations`.
    pub(super) fn setting(&self, key: &str) -> Option<String> {
        self.document.configurations.get(key).and_then(text)
    }

    pub(super) fn set_setting(&mut self, key: &str, value: Value) {
        set(&mut self.document.configurations, key, value);
    }

    pub(super) fn region(&self) -> Option<String> {
        self.hyper("cloud_credentials_region")
    }

    /// The resources, in order.
    pub(super) fn resources(&self) -> Vec<(String, Fields)> {
        let Some(Value::Object(resources)) = self.document.configurations.get(RESOURCES) else {
            return Vec::new();
        };
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        resources.iter().map(|(name, value)| (name.clone(), fields(value))).collect()
    }

    pub(super) fn set_resources(&mut self, resources: Vec<(String, Fields)>) {
        let resources: Fields =
            resources.into_iter().map(|(name, fields)| (name, Value::Object(fields))).collect();
        self.document.configurations.insert(RESOURCES.to_owned(), Value::Object(resources));
    }

    /// The same, with all of the script's keys: it takes none of them for granted.
    pub(super) fn completed(mut self) -> Document {
        let Document { hyper_params, configurations } = &mut self.document;
        for (key, value) in [
            ("cloud_provider", json!("")),
            ("cloud_credentials_key", json!("")),
            ("cloud_credentials_secret", json!("")),
            ("cloud_credentials_token", json!("")),
            ("cloud_credentials_region", json!("")),
            ("use_credentials_chain", json!(false)),
            ("use_iam_instance_profile", json!(false)),
            ("iam_arn", json!("")),
            ("iam_name", json!("")),
            ("git_user", json!("")),
            ("git_pass", json!("")),
            ("default_docker_image", json!("")),
            ("max_idle_time_min", json!(15)),
            ("polling_interval_time_min", json!(5)),
            ("max_spin_up_time_min", json!(30)),
            ("workers_prefix", json!("dynamic_worker")),
            ("tags", json!("")),
        ] {
            hyper_params.entry(key).or_insert(value);
        }
        for key in ["extra_vm_bash_script", "extra_clearml_conf"] {
            configurations.entry(key).or_insert(json!(""));
        }
        self.document
    }

    /// What is wrong with a value of `hyper_params`.
    pub(super) fn check_hyper(&self, key: &str, value: &Value) -> Result<(), String> {
        let mut trial = self.document.clone();
        set(&mut trial.hyper_params, key, value.clone());
        fault_at(&trial, |path| path == format!("hyper_params.{key}"))
    }

    /// What is wrong with a field of a resource that has these fields beside it.
    pub(super) fn check_field(&self, fields: &Fields, key: &str, value: &Value) -> Result<(), String> {
        let mut fields = fields.clone();
        set(&mut fields, key, value.clone());
        let path = format!("configurations.{RESOURCES}.{PROBE}.{key}");
        fault_at(&self.probe(PROBE, fields, "queue", &json!(1)), |found| {
            found.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// What is wrong with a resource's name.
    pub(super) fn check_resource_name(&self, name: &str) -> Result<(), String> {
        let probe = self.probe(name, sound_fields(), "queue", &json!(1));
        fault_at(&probe, |path| path.starts_with(&format!("configurations.{RESOURCES}")))
    }

    /// What is wrong with a queue's name or a maximum.
    pub(super) fn check_budget(&self, queue: &str, maximum: &Value) -> Result<(), String> {
        let probe = self.probe(PROBE, sound_fields(), queue, maximum);
        fault_at(&probe, |path| path.starts_with(&format!("configurations.{QUEUES}")))
    }

    /// A document of one resource in one queue, in our region.
    fn probe(&self, name: &str, fields: Fields, queue: &str, maximum: &Value) -> Document {
        let mut hyper_params = Map::new();
        if let Some(region) = self.region() {
            hyper_params.insert("cloud_credentials_region".to_owned(), Value::String(region));
        }
        let mut resources = Map::new();
        resources.insert(name.to_owned(), Value::Object(fields));
        let mut queues = Map::new();
        queues.insert(queue.to_owned(), json!([[name, maximum]]));
        let mut configurations = Map::new();
        configurations.insert(RESOURCES.to_owned(), Value::Object(resources));
        configurations.insert(QUEUES.to_owned(), Value::Object(queues));
        Document { hyper_params, configurations }
    }
}

fn sound_fields() -> Fields {
    let mut fields = Map::new();
    fields.insert("instance_type".to_owned(), json!("g4dn.xlarge"));
    fields.insert("ami_id".to_owned(), json!("ami-0123456789abcdef0"));
    fields
}

/// The reader's first word against what stands at a path.
fn fault_at(document: &Document, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let Err(faults) = document.check(Path::new("answer"), &|_| None) else { return Ok(()) };
    let first = faults.iter().find(|fault| wanted(&fault.key)).map(|fault| fault.message.clone());
    first.map_or(Ok(()), Err)
}

/// Sets a key; an empty text takes it away.
pub(super) fn set(map: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if empty {
        map.remove(key);
    } else {
        map.insert(key.to_owned(), value);
    }
}

/// A scalar as it is shown and typed; lists with commas.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null | Value::Object(_) => return None,
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(text).collect::<Vec<_>>().join(", "),
    };
    (!text.is_empty()).then_some(text)
}

/// What was typed, as a number if it is one; the reader refuses what is not.
pub(super) fn number(typed: &str) -> Value {
    if let Ok(whole) = typed.parse::<i64>() {
        return json!(whole);
    }
    match typed.parse::<f64>() {
        Ok(fraction) if fraction.is_finite() => json!(fraction),
        Ok(_) | Err(_) => json!(typed),
    }
}

/// What was typed for a field of a resource, in the form that the script writes.
pub(super) fn field_value(key: &str, typed: &str) -> Value {
    match key {
        "ebs_volume_size" | "imds_hop_limit" => number(typed),
        "security_group_ids" => {
            typed.split(',').map(str::trim).filter(|group| !group.is_empty()).map(Value::from).collect()
        }
        flag if FLAGS.contains(&flag) => match typed.to_lowercase().as_str() {
            "true" | "yes" | "y" => Value::Bool(true),
            "false" | "no" | "n" => Value::Bool(false),
            _ => json!(typed),
        },
        _ => json!(typed),
    }
}
