//! What the server lists. Every field but the id may be absent or null.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::artifacts::Artifact;
use crate::time::{Timestamp, lenient};

/// Null is as good as absent.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Artifacts are made by all kinds of programs: a strange one must not cost the whole task.
fn understood<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Artifact>, D::Error> {
    let rows: Option<Vec<Value>> = Option::deserialize(deserializer)?;
    Ok(rows.unwrap_or_default().into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect())
}

/// Something with an id and, where it still exists, a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// Unique.
    pub id: String,
    /// As users see it.
    pub name: Option<String>,
}

/// A queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Unique.
    pub id: String,
    /// As users see it; unique too.
    pub name: Option<String>,
    /// Waiting tasks, next first.
    #[serde(default, deserialize_with = "or_default")]
    pub entries: Vec<Entry>,
}

/// A task's place in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its id.
    pub task: String,
    /// When it was enqueued.
    #[serde(default, deserialize_with = "lenient")]
    pub added: Option<Timestamp>,
}

/// A worker, as it reported last. It stays listed for `register_timeout` seconds after its last report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Worker {
    /// Chosen by the worker.
    pub id: String,
    /// User tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// When it was registered, or registered itself by a report.
    #[serde(default, deserialize_with = "lenient")]
    pub register_time: Option<Timestamp>,
    /// Seconds that it stays listed without a report.
    pub register_timeout: Option<u64>,
    /// Its last report of any kind, idle ones included: no sign of work.
    #[serde(default, deserialize_with = "lenient")]
    pub last_activity_time: Option<Timestamp>,
    /// Its last report that was no registration.
    #[serde(default, deserialize_with = "lenient")]
    pub last_report_time: Option<Timestamp>,
    /// What it serves.
    #[serde(default, deserialize_with = "or_default")]
    pub queues: Vec<WorkerQueue>,
    /// What it said it was doing; absent when idle.
    pub task: Option<WorkerTask>,
    /// Whose credentials it uses: only they can unregister it.
    pub user: Option<Named>,
}

/// A queue that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WorkerQueue {
    /// Unique.
    pub id: String,
    /// Absent if it was deleted.
    pub name: Option<String>,
}

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WorkerTask {
    /// Unique.
    pub id: String,
    /// As users see it.
    pub name: Option<String>,
    /// Milliseconds.
    pub running_time: Option<u64>,
}

/// A task, or those of its fields that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Task {
    /// Unique.
    pub id: String,
    /// As users see it.
    pub name: Option<String>,
    /// `training`, `service`, ...
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `created`, `queued`, `in_progress`, `stopped`, `completed`, `failed`, `closed`, `published`, ...
    pub status: Option<String>,
    /// Why, in words for a machine.
    pub status_reason: Option<String>,
    /// Why, in words for a user; `stopping` while an abort is under way.
    pub status_message: Option<String>,
    /// By the server's clock.
    #[serde(default, deserialize_with = "lenient")]
    pub status_changed: Option<Timestamp>,
    /// The last sign of life that the server has of it, by its clock.
    #[serde(default, deserialize_with = "lenient")]
    pub last_update: Option<Timestamp>,
    /// When it was made.
    #[serde(default, deserialize_with = "lenient")]
    pub created: Option<Timestamp>,
    /// When it started.
    #[serde(default, deserialize_with = "lenient")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, deserialize_with = "lenient")]
    pub completed: Option<Timestamp>,
    /// Who ran it last; survives until a reset, so it may name a worker of an earlier run.
    pub last_worker: Option<String>,
    /// The highest place of what it has reported so far.
    pub last_iteration: Option<i64>,
    /// Its project's id.
    pub project: Option<String>,
    /// The id of the task that it was cloned from.
    pub parent: Option<String>,
    /// User tags.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// The server's own tags: `archived`, `development`, ...
    #[serde(default, deserialize_with = "or_default")]
    pub system_tags: Vec<String>,
    /// What is run.
    #[serde(default, deserialize_with = "or_default")]
    pub script: ScriptKind,
    /// Where it was enqueued last.
    #[serde(default, deserialize_with = "or_default")]
    pub execution: Execution,
    /// Free-form notes of agent and SDK.
    #[serde(default, deserialize_with = "or_default")]
    pub runtime: serde_json::Map<String, Value>,
    /// Section, name, then an object with `value` among others.
    #[serde(default, deserialize_with = "or_default")]
    pub hyperparams: BTreeMap<String, BTreeMap<String, Value>>,
    /// Configuration objects: an object with `value`, a text, among others, by name.
    #[serde(default, deserialize_with = "or_default")]
    pub configuration: BTreeMap<String, Value>,
}

/// A part of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Execution {
    /// The id of the queue it was enqueued to last; stays set after it left that queue.
    pub queue: Option<String>,
    /// What belongs to it, as far as it is understood.
    #[serde(default, deserialize_with = "understood")]
    pub artifacts: Vec<Artifact>,
}

/// How a task's program is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ScriptKind {
    /// `python3`, `bash`, ...
    pub binary: Option<String>,
}

impl Task {
    /// A hyperparameter's value.
    pub fn parameter(&self, section: &str, name: &str) -> Option<&str> {
        self.hyperparams.get(section)?.get(name)?.get("value")?.as_str()
    }

    /// A section's hyperparameters. One without a value is empty.
    pub fn parameters(&self, section: &str) -> BTreeMap<String, String> {
        let values = self.hyperparams.get(section).into_iter().flatten();
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        values.map(|(name, entry)| (name.clone(), text(entry.get("value")))).collect()
    }

    /// A configuration object's text.
    pub fn configuration(&self, name: &str) -> Option<&str> {
        self.configuration.get(name)?.get("value")?.as_str()
    }
}
