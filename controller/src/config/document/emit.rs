//! A document as YAML that a YAML 1.1 reader (PyYAML) and a 1.2 one take for the same values: a text stands
//! plain only where nobody can take it for anything else, a script as a block, the rest in quotes.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};
use serde_saphyr::{DoubleQuoted, LitStr, ser_options};

use super::Document;

/// Words that some YAML takes for something else than text, in lower case.
const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];

/// The script's two sections, in its order.
pub(super) fn yaml(document: &Document) -> String {
    let Document { hyper_params, configurations } = document;
    let root = Root { configurations, hyper_params };
    let options = ser_options! { prefer_block_scalars: false, min_fold_chars: 0 };
    // A tree of plain values, written to memory, has nothing to fail of but its depth; then JSON, which is
    // YAML too, says the same.
    serde_saphyr::to_string_with_options(&root, options).unwrap_or_else(|_| document.to_json())
}

struct Root<'a> {
    configurations: &'a Map<String, Value>,
    hyper_params: &'a Map<String, Value>,
}

impl Serialize for Root<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("configurations", &Mapping(self.configurations))?;
        map.serialize_entry("hyper_params", &Mapping(self.hyper_params))?;
        map.end()
    }
}

struct Mapping<'a>(&'a Map<String, Value>);

impl Serialize for Mapping<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &Written(value))?;
        }
        map.end()
    }
}

struct Written<'a>(&'a Value);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.0.serialize(serializer),
            Value::String(text) if is_plain(text) => serializer.serialize_str(text),
            Value::String(text) if is_block(text) => LitStr(text).serialize(serializer),
            Value::String(text) => DoubleQuoted(text.as_str()).serialize(serializer),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Written(item))?;
                }
                list.end()
            }
            Value::Object(map) => Mapping(map).serialize(serializer),
        }
    }
}

/// Begins with a letter, or as a path, and goes on without anything that means something in YAML.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let clean = text.chars().all(|c| c.is_ascii_alphanumeric() || " _-./=,@+:".contains(c));
    let apart = text.contains(": ") || text.ends_with([' ', ':']);
    begins && clean && !apart && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Several lines that a block holds as they are: nothing invisible in them, and an ordinary beginning and end.
fn is_block(text: &str) -> bool {
    let visible = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() || matches!(c, ' ' | '\n');
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    text.contains('\n')
        && text.chars().all(visible)
        && lines.clone().all(|line| !line.ends_with(' '))
        && text.starts_with(|c: char| !c.is_whitespace())
        && !text.ends_with("\n\n")
}
