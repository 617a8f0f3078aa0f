//! What two configurations set differently, without a secret: what is for nobody's eyes is compared by a
//! keyed digest, so that a change of it shows and it does not.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::document::{self, Document};
use super::yaml::shown;

/// What holds where a key is not set, so that spelling it out is no difference.
fn default_of(key: &str) -> Option<Value> {
    Some(match key {
        "workers_prefix" => json!("dynamic_worker"),
        "max_idle_time_min" => json!(15),
        "max_spin_up_time_min" => json!(30),
        "polling_interval_time_min" | "queue_polling_interval_sec" => json!(5),
        "listen" => json!("0.0.0.0:8790"),
        "sidecar" => json!("auto"),
        "imds_hop_limit" => json!(2),
        "max_launches_per_minute" => json!(600),
        "shutdown_action" => json!("none"),
        "requeue_interrupted_tasks" => json!("spot"),
        "cloud_provider" => json!("AWS"),
        "use_credentials_chain"
        | "use_iam_instance_profile"
        | "is_spot"
        | "cpu_only"
        | "enable_monitoring"
        | "reset_requeued_tasks" => {
            json!(false)
        }
        _ => return None,
    })
}

/// A configuration key by key, fit to be shown and sent: secrets and scripts are digests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed(BTreeMap<String, Leaf>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Leaf {
    Value(Value),
    /// HMAC-SHA-256 in hexadecimal, by a key that whoever asks has chosen.
    Digest(String),
}

/// A key that two configurations set differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its path, `hyper_params.max_idle_time_min`.
    pub key: String,
    /// What held, or holds.
    pub before: Shown,
    /// What is to hold.
    pub after: Shown,
}

/// A key's value, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Absent, or what holds anyway.
    NotSet,
    /// There is something, not to be shown.
    Hidden,
    /// This.
    Value(Value),
}

impl Sealed {
    /// The document's keys; `key` makes the digests, and is best forgotten after the comparison.
    pub fn of(document: &Document, key: &[u8]) -> Self {
        let mut leaves = BTreeMap::new();
        let sections = [
            ("hyper_params", &document.hyper_params, &document::SECRETS[..]),
            ("configurations", &document.configurations, &document::SCRIPTS[..]),
        ];
        for (section, map, hidden) in sections {
            for (name, value) in map {
                let path = format!("{section}.{}", shown(name));
                if hidden.contains(&name.as_str()) {
                    if !document::is_absent(value) {
                        leaves.insert(path, Leaf::Digest(digest(key, value)));
                    }
                } else {
                    flatten(name, path, value, &mut leaves);
                }
            }
        }
        Self(leaves)
    }

    /// What `after` sets otherwise, by key.
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(after.0.keys()).collect();
        let changed = keys.into_iter().filter(|key| self.0.get(*key) != after.0.get(*key));
        changed
            .map(|key| Change {
                key: key.clone(),
                before: Shown::of(self.0.get(key)),
                after: Shown::of(after.0.get(key)),
            })
            .collect()
    }
}

impl Shown {
    fn of(leaf: Option<&Leaf>) -> Self {
        match leaf {
            None => Self::NotSet,
            Some(Leaf::Digest(_)) => Self::Hidden,
            Some(Leaf::Value(value)) => Self::Value(value.clone()),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet => f.write_str("not set"),
            Self::Hidden => f.write_str("(hidden)"),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Shown::Hidden, Shown::Hidden) => write!(f, "{}: changed, not shown", self.key),
            (before, after) => write!(f, "{}: {before} -> {after}", self.key),
        }
    }
}

/// Mappings key by key; lists are taken whole, as their order means something.
fn flatten(name: &str, path: String, value: &Value, leaves: &mut BTreeMap<String, Leaf>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                flatten(name, format!("{path}.{}", shown(name)), value, leaves);
            }
        }
        value if document::is_absent(value) || default_of(name).as_ref() == Some(value) => {}
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            leaves.insert(path, Leaf::Value(value.clone()));
        }
    }
}

fn digest(key: &[u8], value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // A key of any length will do for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn document(text: &str) -> Document {
        Document::from_yaml(Path::new("file"), text).unwrap()
    }

    fn lines(before: &str, after: &str) -> Vec<String> {
        let (before, after) = (Sealed::of(&document(before), b"k"), Sealed::of(&document(after), b"k"));
        before.changes(&after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_changed_key_is_told_once_and_no_secret() {
        let before = "hyper_params: {git_pass: hunter2, max_idle_time_min: 15, workers_prefix: w}\n\
                      configurations: {queues: {gpu: [[t4, 2]]}, extra_vm_bash_script: 'echo hunter3'}";
        let after = "hyper_params: {git_pass: hunter4, max_idle_time_min: 5, workers_prefix: w, git_user: me}\n\
                     configurations: {queues: {gpu: [[t4, 3]]}}";
        let lines = lines(before, after);
        assert_eq!(
            lines,
            [
                "configurations.extra_vm_bash_script: (hidden) -> not set",
                "configurations.queues.gpu: [[\"t4\",2]] -> [[\"t4\",3]]",
                "hyper_params.git_pass: changed, not shown",
                "hyper_params.git_user: not set -> \"me\"",
                "hyper_params.max_idle_time_min: not set -> 5",
            ]
        );
        let wire = serde_json::to_string(&Sealed::of(&document(before), b"k")).unwrap();
        assert!(!wire.contains("hunter"), "{wire}");
        let back: Sealed = serde_json::from_str(&wire).unwrap();
        assert_eq!(back, Sealed::of(&document(before), b"k"));
    }

    #[test]
    fn another_spelling_of_the_same_is_no_change() {
        let written = "hyper_params: {max_idle_time_min: '15', use_credentials_chain: 'False', git_user: ''}\n\
                       configurations: {queues: {gpu: [[t4, '2']]}, resource_configurations: {t4: {is_spot: yes}}}";
        let other =
            "configurations: {queues: {gpu: [[t4, 2]]}, resource_configurations: {t4: {is_spot: true}}}";
        assert_eq!(lines(written, other), Vec::<String>::new());
    }

    #[test]
    fn digests_of_another_key_tell_nothing() {
        let document = document("hyper_params: {git_pass: hunter2}\nconfigurations: {}");
        assert_ne!(Sealed::of(&document, b"one"), Sealed::of(&document, b"two"));
    }
}
