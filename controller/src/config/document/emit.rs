//! A document as YAML that a YAML 1.1 reader (PyYAML) and a 1.2 one take for the same values: the emitter
//! quotes whatever either of them takes for something else. Scripts stand as blocks, for people to read.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};
use serde_saphyr::{LitStr, ser_options};

use super::Document;

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
            Value::String(text) if text.contains('\n') => LitStr(text).serialize(serializer),
            Value::String(text) => serializer.serialize_str(text),
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
