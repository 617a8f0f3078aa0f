//! What a task is configured with: hyperparameters in sections, and configuration objects, which are texts.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::types::or_default;

/// A hyperparameter. Debug does not show its value, which may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parameter {
    /// Text, whatever the type.
    pub value: String,
    /// `int`, `float`, `bool`, `str`: as Python calls it.
    pub kind: Option<String>,
    /// What the web UI shows beside it.
    pub description: Option<String>,
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Hyperparameters by section and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(pub BTreeMap<String, BTreeMap<String, Parameter>>);

impl Parameters {
    /// With one more value, of no particular type.
    #[must_use]
    pub fn with(mut self, section: &str, name: &str, value: &impl ToString) -> Self {
        self.insert(section, name, Parameter { value: value.to_string(), ..Parameter::default() });
        self
    }

    /// Adds one, in place of another of that name.
    pub fn insert(&mut self, section: &str, name: &str, parameter: Parameter) {
        self.0.entry(section.to_owned()).or_default().insert(name.to_owned(), parameter);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rows(&self) -> Vec<Value> {
        let sections = self.0.iter();
        sections
            .flat_map(|(section, rows)| {
                rows.iter().map(move |(name, parameter)| row(section, name, parameter))
            })
            .collect()
    }
}

impl Serialize for Parameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(section, rows)| {
            let rows: BTreeMap<&String, Value> =
                rows.iter().map(|(name, parameter)| (name, row(section, name, parameter))).collect();
            (section, rows)
        }))
    }
}

fn row(section: &str, name: &str, parameter: &Parameter) -> Value {
    let Parameter { value, kind, description } = parameter;
    let mut row = json!({"section": section, "name": name, "value": value});
    for (field, text) in [("type", kind), ("description", description)] {
        if let Some(text) = text {
            row[field] = json!(text);
        }
    }
    row
}

/// Configuration objects: texts by name. Debug shows the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Configurations(pub BTreeMap<String, String>);

impl Configurations {
    /// Just this one.
    pub fn one(name: &str, text: String) -> Self {
        Self(BTreeMap::from([(name.to_owned(), text)]))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rows(&self) -> Vec<Value> {
        self.0.iter().map(|(name, text)| json!({"name": name, "value": text})).collect()
    }
}

impl fmt::Debug for Configurations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Configurations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, text)| (name, json!({"name": name, "value": text}))))
    }
}

/// What happens to hyperparameters that an edit does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They stay.
    Keep,
    /// Those of the same sections go.
    DropInSection,
}

impl Client {
    /// Sets hyperparameters. `force` is for a task that runs; one that waits or has ended is refused all the same.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn edit_parameters(
        &self,
        task: &str,
        parameters: &Parameters,
        others: Others,
        force: bool,
    ) -> Result<(), Error> {
        let replace = match others {
            Others::Keep => "none",
            Others::DropInSection => "section",
        };
        let rows = parameters.rows();
        let edit = json!({"task": task, "hyperparams": rows, "replace_hyperparams": replace, "force": force});
        self.call::<IgnoredAny>("tasks.edit_hyper_params", &edit, Repeat::Always).await?;
        Ok(())
    }

    /// Sets configuration objects; others stay. `force` as in [`Client::edit_parameters`].
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn edit_configurations(
        &self,
        task: &str,
        configurations: &Configurations,
        force: bool,
    ) -> Result<(), Error> {
        let edit = json!({"task": task, "configuration": configurations.rows(), "force": force});
        self.call::<IgnoredAny>("tasks.edit_configuration", &edit, Repeat::Always).await?;
        Ok(())
    }

    /// A configuration object's text; `None` if the task has none of that name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn configuration(&self, task: &str, name: &str) -> Result<Option<String>, Error> {
        let query = json!({"tasks": [task], "names": [name]});
        let Listing { configurations } =
            self.call("tasks.get_configurations", &query, Repeat::Always).await?;
        let rows = configurations.into_iter().filter(|of| of.task == task).flat_map(|of| of.configuration);
        Ok(rows.into_iter().find(|row| row.name == name).and_then(|row| row.value))
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "or_default")]
    configurations: Vec<OfTask>,
}

#[derive(Deserialize)]
struct OfTask {
    task: String,
    #[serde(default, deserialize_with = "or_default")]
    configuration: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    value: Option<String>,
}
