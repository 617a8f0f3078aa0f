//! The configuration as it is written, whatever holds it: a YAML file, JSON, a task. The script's two
//! sections, values as they stand, nothing judged; [`Document::check`] judges, by the one reader that
//! files have too.
//!
//! Values take the type that their key wants where they can: a task knows texts alone, and a wizard writes
//! what was typed. What can't be taken so stays as it is, for the reader to complain of.

mod emit;
mod stored;
mod task;
#[cfg(test)]
mod tests;
mod typed;

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

pub use self::stored::{create_private, write_private, write_private_text};
use super::faults::{Faults, Findings, NOWHERE};
use super::section::Section;
use super::yaml::{Entry, Kind, Node};
use super::{Config, json as strict_json, read};

/// In place of a secret.
const STARS: &str = "********";
/// Keys of `hyper_params` that are for nobody's eyes. An access key's id is no secret by itself; it goes
/// with the one that is.
pub(super) const SECRETS: [&str; 4] =
    ["git_pass", "cloud_credentials_key", "cloud_credentials_secret", "cloud_credentials_token"];
/// Keys of `configurations` in which an operator may have put a secret.
pub(super) const SCRIPTS: [&str; 3] = ["extra_vm_bash_script", "extra_clearml_conf", "extra_trains_conf"];

/// The configuration as it is written: a YAML file, a task's parameters, an export. Not validated. Debug
/// shows no secret.
#[derive(Clone, Default, PartialEq)]
pub struct Document {
    /// The script's `hyper_params`.
    pub hyper_params: Map<String, Value>,
    /// The script's `configurations`.
    pub configurations: Map<String, Value>,
}

impl Document {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is no YAML, or has other sections than the two.
    pub fn from_yaml(path: &Path, text: &str) -> Result<Self, Faults> {
        let findings = Findings::new(path);
        let root = read::tree(path, text, &findings)?;
        Self::of_node(path, &root, findings)
    }

    /// Reads an export's text.
    ///
    /// # Errors
    /// What is no JSON, has a key twice, or has other sections than the two.
    pub fn from_json(path: &Path, text: &str) -> Result<Self, Faults> {
        let value = strict_json::parse(text)
            .map_err(|error| Faults::whole_file(path, format!("is not JSON: {error}")))?;
        Self::of_node(path, &Node::of_json(&value), Findings::new(path))
    }

    /// The script's YAML. PyYAML and our own reader take it for the same values.
    pub fn to_yaml(&self) -> String {
        emit::yaml(self)
    }

    /// The same as JSON, indented.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.to_value())
    }

    /// The validated configuration. `origin` stands in place of the file's name; with
    /// [`super::task_origin`] faults name a task's parameters.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn check(&self, origin: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        read::validate(origin, &Node::of_json(&self.to_value()), Findings::new(origin), env)
    }

    /// Secrets replaced by stars.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut document = self.clone();
        for key in document.secrets() {
            document.hyper_params.insert(key.to_owned(), Value::from(STARS));
        }
        document
    }

    /// The keys of `hyper_params` that hold a secret here.
    pub fn secrets(&self) -> Vec<&'static str> {
        SECRETS
            .into_iter()
            .filter(|key| self.hyper_params.get(*key).is_some_and(|it| !is_absent(it)))
            .collect()
    }

    /// Without any secret.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut document = self.clone();
        document.hyper_params.retain(|key, _| !SECRETS.contains(&key.as_str()));
        document
    }

    fn of_node(path: &Path, root: &Node, findings: Findings) -> Result<Self, Faults> {
        let document = Section::root(root, &findings).map(|root| {
            let part = |key| root.section(key).map(|section| written_map(section.entries()));
            let hyper_params = part("hyper_params").unwrap_or_default();
            let configurations = part("configurations").unwrap_or_default();
            root.finish(&[]);
            Self { hyper_params, configurations }
        });
        findings.settle()?;
        let document = document.ok_or_else(|| Faults::whole_file(path, "cannot be read"))?;
        Ok(typed::typed(document))
    }

    fn to_value(&self) -> Value {
        json!({"configurations": self.configurations, "hyper_params": self.hyper_params})
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.redacted();
        for key in SCRIPTS {
            if let Some(Value::String(text)) = shown.configurations.get_mut(key) {
                *text = format!("{} bytes", text.len());
            }
        }
        f.debug_struct("Document")
            .field("hyper_params", &Value::Object(shown.hyper_params))
            .field("configurations", &Value::Object(shown.configurations))
            .finish()
    }
}

/// Whether the reader takes it for nothing.
pub(super) fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

impl Node {
    /// The tree of a value that stands in no file.
    fn of_json(value: &Value) -> Self {
        let plain = |text: String| Kind::Scalar { text, plain: true };
        let kind = match value {
            Value::Null => plain(String::new()),
            Value::Bool(flag) => plain(flag.to_string()),
            Value::Number(number) => plain(number.to_string()),
            Value::String(text) => Kind::Scalar { text: text.clone(), plain: false },
            Value::Array(items) => Kind::List(items.iter().map(Self::of_json).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| Entry {
                    key: key.clone(),
                    at: NOWHERE,
                    value: Self::of_json(value),
                };
                Kind::Map(map.iter().map(entry).collect())
            }
        };
        Self { at: NOWHERE, kind }
    }
}

/// A value as it was written: a number only if it would be written so again, since `007` may be a password.
fn written(key: &str, node: &Node) -> Value {
    // Handed on to EC2, which wants YAML's own types.
    if key == "extra_configurations" {
        return node.to_json();
    }
    match &node.kind {
        Kind::Scalar { text, plain: true } => match node.to_json() {
            Value::Number(number) if number.to_string() != *text => Value::String(text.clone()),
            value => value,
        },
        Kind::Scalar { text, plain: false } => Value::String(text.clone()),
        Kind::List(items) => items.iter().map(|item| written("", item)).collect(),
        Kind::Map(entries) => Value::Object(written_map(entries)),
    }
}

fn written_map(entries: &[Entry]) -> Map<String, Value> {
    entries.iter().map(|entry| (entry.key.clone(), written(&entry.key, &entry.value))).collect()
}
