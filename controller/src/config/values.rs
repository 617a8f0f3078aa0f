//! Scalars of the file as the types that keys want. Wizards write what was typed at a prompt, so a number
//! may stand in quotes, and a boolean may be any of YAML 1.1's words.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Number, Value};

use super::faults::Faults;
use super::yaml::{Kind, Node};

/// No configuration is larger, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The file's text.
pub(super) fn read_file(path: &Path) -> Result<String, Faults> {
    let fault = |message: String| Faults::whole_file(path, message);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(fault("is larger than 1 MiB; that is no configuration".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        fault(format!("is not UTF-8 text: see line {line}"))
    })
}

impl Node {
    /// Whether it counts as absent: nothing, `~`, `null`, or an empty text.
    pub(super) fn is_absent(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain } => is_null(text, *plain) || text.trim().is_empty(),
            Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// Its text; `None` for lists, mappings and plain booleans.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, plain } if !(*plain && boolean_1_2(text).is_some()) => Some(text),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// A boolean, quoted or not.
    pub(super) fn as_flag(&self) -> Option<bool> {
        let Kind::Scalar { text, .. } = &self.kind else { return None };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    /// A finite number, quoted or not.
    pub(super) fn as_number(&self) -> Option<f64> {
        let Kind::Scalar { text, .. } = &self.kind else { return None };
        let text = text.trim();
        let digits = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        // Rust also reads "inf" and "nan", which are no amounts of anything.
        if !digits { None } else { text.parse::<f64>().ok().filter(|number| number.is_finite()) }
    }

    /// What it is, in words, without what it says.
    pub(super) fn shape(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { text, plain } if is_null(text, *plain) => "nothing",
            Kind::Scalar { text, plain: true } if boolean_1_2(text).is_some() => "a boolean",
            Kind::Scalar { plain: true, .. } if self.as_number().is_some() => "a number",
            Kind::Scalar { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The JSON that the same YAML would be, for parts that are handed on as they are.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, plain: false } => Value::String(text.clone()),
            Kind::Scalar { text, plain: true } => plain_json(text),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

fn plain_json(text: &str) -> Value {
    if is_null(text, true) {
        return Value::Null;
    }
    if let Some(flag) = boolean_1_2(text) {
        return Value::Bool(flag);
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Value::Number(whole.into());
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let number = is_number.then(|| text.parse::<f64>().ok().and_then(Number::from_f64)).flatten();
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn is_null(text: &str, plain: bool) -> bool {
    plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn boolean_1_2(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}
