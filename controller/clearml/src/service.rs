//! What a task that is itself a service writes about itself: notes for whoever follows it, and properties
//! that its user may change while it runs.

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::tasks::TaskEdit;

/// Where user properties stand among a task's parameters: the only section that a running task's user may edit.
pub const PROPERTIES: &str = "properties";

/// A user property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Property<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it says.
    pub value: &'a str,
    /// What it is for, shown beside it.
    pub description: &'a str,
}

impl Client {
    /// Adds notes to a task's runtime, or changes them; the others stay. A server older than API 2.34 is
    /// given the whole map back, as it was read a moment before.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::NO_SUCH_TASK`].
    pub async fn set_runtime(&self, task: &str, notes: &Map<String, Value>) -> Result<(), Error> {
        let body = json!({"task": task, "add_or_update": notes});
        match self.call::<IgnoredAny>("tasks.edit_runtime", &body, Repeat::Always).await {
            Ok(IgnoredAny) => Ok(()),
            Err(error) if is_unknown_endpoint(&error) => {
                let mut runtime = self.task(task).await?.runtime;
                runtime.extend(notes.clone());
                let edit = TaskEdit { runtime: Some(runtime), force: true, ..TaskEdit::default() };
                self.edit_task(task, &edit).await
            }
            Err(error) => Err(error),
        }
    }

    /// Sets user properties of a task, whatever its status; the others stay.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::NO_SUCH_TASK`].
    pub async fn set_properties(&self, task: &str, properties: &[Property<'_>]) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Parameter<'a> {
            section: &'a str,
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(flatten)]
            property: &'a Property<'a>,
        }
        let parameters: Vec<Parameter<'_>> = properties
            .iter()
            .map(|property| Parameter { section: PROPERTIES, kind: "str", property })
            .collect();
        let body = json!({"task": task, "hyperparams": parameters, "replace_hyperparams": "none"});
        self.call::<IgnoredAny>("tasks.edit_hyper_params", &body, Repeat::Always).await?;
        Ok(())
    }
}

fn is_unknown_endpoint(error: &Error) -> bool {
    match error {
        Error::Refused { code, subcode, .. } => (*code, *subcode) == (404, 0),
        Error::Unavailable { .. } | Error::Unauthorized { .. } | Error::Malformed { .. } => false,
    }
}
