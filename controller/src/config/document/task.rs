//! A task's parameters as a document. The server keeps texts alone; absent is an empty one, or Python's None.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Document, typed};
use crate::config::faults::Faults;
use crate::config::json;

/// The parameters' section, and the configuration object's name.
const GENERAL: &str = "General";
/// Whoever asks knows which task.
const ORIGIN: &str = "task";

impl Document {
    /// A task's parameters (of section `General`, with or without that in their names) and the text of its
    /// configuration object `General`.
    ///
    /// # Errors
    /// If one of the two is missing, or the object is not JSON.
    pub fn from_task(parameters: &BTreeMap<String, String>, general: Option<&str>) -> Result<Self, Faults> {
        let hyper_params = hyper_params(parameters)?;
        let configurations = configurations(general)?;
        Ok(typed::typed(Self { hyper_params, configurations }))
    }
}

fn hyper_params(parameters: &BTreeMap<String, String>) -> Result<Map<String, Value>, Faults> {
    if parameters.is_empty() {
        return Err(fault("hyper_params", "the task has no parameters in this section"));
    }
    let present = parameters.iter().filter(|(_, value)| !matches!(value.trim(), "" | "None"));
    Ok(present
        .map(|(name, value)| {
            let own = name.strip_prefix(GENERAL).and_then(|rest| rest.strip_prefix('/'));
            (own.unwrap_or(name).to_owned(), Value::from(value.as_str()))
        })
        .collect())
}

fn configurations(general: Option<&str>) -> Result<Map<String, Value>, Faults> {
    let Some(text) = general.filter(|text| !text.trim().is_empty()) else {
        let wanted = "is missing; it holds resource_configurations and queues, as JSON";
        return Err(fault("configurations", wanted));
    };
    match json::parse(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(fault("configurations", "must be a JSON object, {...}"))
        }
        Err(error) => Err(fault("configurations", &format!("is not JSON: {error}"))),
    }
}

fn fault(key: &str, message: &str) -> Faults {
    Faults::at_key(Path::new(ORIGIN), key, message)
}
