//! One call as an endpoint sees it: who asks, and typed access to the fields of the body.

use serde_json::Value;

use super::document::{self, Doc};
use super::error::ApiError;

pub(crate) struct Call {
    pub(crate) endpoint: &'static str,
    pub(crate) user: String,
    /// What the client says it is (`X-ClearML-Worker`).
    pub(crate) worker: Option<String>,
    pub(crate) ip: String,
    pub(crate) data: Doc,
    /// The lines of a json-lines body.
    pub(crate) batch: Option<Vec<Doc>>,
}

impl Call {
    pub(crate) fn text(&self, field: &str) -> Result<&str, ApiError> {
        self.text_or_none(field)?.ok_or_else(|| ApiError::missing(field))
    }

    pub(crate) fn text_or_none(&self, field: &str) -> Result<Option<&str>, ApiError> {
        match self.data.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(ApiError::validation(format_args!(
                    "error for field '{field}'. Value is wrong, expected type \"str\""
                )))
            }
        }
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.data.get(field).is_some_and(|value| match value {
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => text.eq_ignore_ascii_case("true"),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        })
    }

    /// Seconds, counts and the like; SDKs send some of them as floats.
    pub(crate) fn number(&self, field: &str) -> Option<i64> {
        let value = self.data.get(field)?;
        value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
    }

    /// A list of strings, or one string alone; empty if the field is absent.
    pub(crate) fn texts(&self, field: &str) -> Vec<String> {
        texts(self.data.get(field))
    }

    /// The objects of a list that must be there.
    pub(crate) fn objects(&self, field: &str) -> Result<Vec<&Doc>, ApiError> {
        let list = self.data.get(field).and_then(Value::as_array).ok_or_else(|| ApiError::missing(field))?;
        list.iter().map(|item| item.as_object().ok_or_else(|| ApiError::missing(field))).collect()
    }

    /// The same caller with another body.
    pub(crate) fn with(&self, data: Doc) -> Self {
        Self {
            endpoint: self.endpoint,
            user: self.user.clone(),
            worker: self.worker.clone(),
            ip: self.ip.clone(),
            data,
            batch: None,
        }
    }

    pub(crate) fn only_fields(&self) -> Vec<String> {
        self.texts("only_fields")
    }

    pub(crate) fn with_field(&self, field: &str, value: impl Into<Value>) -> Self {
        let mut data = self.data.clone();
        document::set(&mut data, field, value);
        self.with(data)
    }
}

pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Vec::new(),
    }
}
