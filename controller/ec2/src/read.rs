//! From JSON in boto3's spelling to the SDK's types, with every fault named by its path.
//!
//! One table per structure (in `shapes`) says which fields there are; the SDK's setters say of which type each is.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Map, Value};

use crate::fault::{Fault, nearest};

/// A longer list of known names helps nobody.
const MOST_LISTED: usize = 15;

/// Something that RunInstances takes.
pub(crate) trait Read: Sized {
    /// `None` after a fault was noted.
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self>;
}

/// A structure: its name in the SDK, then each field's name in boto3 and its setter.
macro_rules! shape {
    ($($type:ident { $($name:literal $setter:ident),+ $(,)? })+) => {$(
        impl Read for types::$type {
            fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
                let builder = read_fields!(types::$type::builder(), value, at, faults; $($name $setter),+);
                Some(builder.build())
            }
        }
    )+};
}

/// The fields of a structure, set on a builder.
macro_rules! read_fields {
    ($builder:expr, $value:expr, $at:expr, $faults:expr; $($name:literal $setter:ident),+) => {{
        let mut builder = $builder;
        for (name, value) in crate::read::object($value, $at, $faults)? {
            let at = crate::fault::field($at, name);
            match name.as_str() {
                $($name => builder = builder.$setter(Read::read(value, &at, $faults)),)+
                unknown => crate::read::unknown_field(&at, unknown, &[$($name),+], $faults),
            }
        }
        builder
    }};
}

/// Enumerations of which the SDK knows every value.
macro_rules! choice {
    ($($type:ident),+ $(,)?) => {$(
        impl Read for types::$type {
            fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
                crate::read::one_of(value, at, types::$type::values(), faults).map(Self::from)
            }
        }
    )+};
}

pub(crate) use {choice, read_fields, shape};

pub(crate) fn object<'a>(
    value: &'a Value,
    at: &str,
    faults: &mut Vec<Fault>,
) -> Option<&'a Map<String, Value>> {
    let object = value.as_object();
    if object.is_none() {
        faults.push(Fault::new(at, format!("must be a mapping, not {}", kind(value))));
    }
    object
}

pub(crate) fn unknown_field(at: &str, name: &str, known: &[&str], faults: &mut Vec<Fault>) {
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None if known.len() > MOST_LISTED => "see the parameters of boto3's run_instances".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    };
    faults.push(Fault::new(at, format!("unknown field; {hint}")));
}

pub(crate) fn one_of<'a>(
    value: &'a Value,
    at: &str,
    allowed: &[&str],
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    let text = value.as_str().filter(|text| allowed.contains(text));
    if text.is_none() {
        let found = value.as_str().map_or_else(|| kind(value).to_owned(), |text| format!("{text:?}"));
        faults.push(Fault::new(at, format!("must be one of {}, not {found}", allowed.join(", "))));
    }
    text
}

impl Read for bool {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let truth = value.as_bool();
        if truth.is_none() {
            faults.push(Fault::new(at, format!("must be true or false, not {}", kind(value))));
        }
        truth
    }
}

impl Read for i32 {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let number =
            value.as_i64().and_then(|number| Self::try_from(number).ok()).filter(|number| *number >= 0);
        if number.is_none() {
            faults.push(Fault::new(at, format!("must be a whole number from 0 up, not {}", kind(value))));
        }
        number
    }
}

impl Read for String {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        if let Value::Number(number) = value {
            // `MaxPrice: 0.5` in YAML.
            faults.push(Fault::new(at, format!("must be a text: write \"{number}\" in quotes")));
            return None;
        }
        let text = value.as_str();
        if text.is_none() {
            faults.push(Fault::new(at, format!("must be a text, not {}", kind(value))));
        }
        text.map(str::to_owned)
    }
}

impl Read for DateTime {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let instant = value.as_str().and_then(|text| Self::from_str(text, Format::DateTimeWithOffset).ok());
        if instant.is_none() {
            faults.push(Fault::new(at, "must be an instant such as 2030-01-31T12:00:00Z"));
        }
        instant
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let Some(items) = value.as_array() else {
            faults.push(Fault::new(at, format!("must be a list, not {}", kind(value))));
            return None;
        };
        let before = faults.len();
        let items: Self = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| T::read(item, &format!("{at}[{index}]"), faults))
            .collect();
        (faults.len() == before).then_some(items)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "that number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
