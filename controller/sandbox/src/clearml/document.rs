//! Documents as the server keeps them: JSON objects whose fields are absent until they are set, reached by
//! dotted paths, with times in ISO 8601.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::error::ApiError;

pub(crate) type Doc = Map<String, Value>;

/// The server refuses shorter names.
const SHORTEST_NAME: usize = 3;

pub(crate) fn get<'a>(doc: &'a Doc, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let mut value = doc.get(parts.next()?)?;
    for part in parts {
        value = value.as_object()?.get(part)?;
    }
    Some(value)
}

pub(crate) fn text<'a>(doc: &'a Doc, path: &str) -> Option<&'a str> {
    get(doc, path)?.as_str()
}

/// Sets a field, making the objects on the way to it (and replacing what is no object there).
pub(crate) fn set(doc: &mut Doc, path: &str, value: impl Into<Value>) {
    match path.split_once('.') {
        None => {
            doc.insert(path.to_owned(), value.into());
        }
        Some((head, rest)) => set(object(doc, head), rest, value),
    }
}

pub(crate) fn unset(doc: &mut Doc, path: &str) {
    match path.split_once('.') {
        None => {
            doc.remove(path);
        }
        Some((head, rest)) => {
            if let Some(Value::Object(inner)) = doc.get_mut(head) {
                unset(inner, rest);
            }
        }
    }
}

/// The object in a field, made if there is none.
pub(crate) fn object<'a>(doc: &'a mut Doc, field: &str) -> &'a mut Doc {
    let slot = doc.entry(field).or_insert_with(|| Value::Object(Doc::new()));
    if !slot.is_object() {
        *slot = Value::Object(Doc::new());
    }
    match slot {
        Value::Object(inner) => inner,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made an object above")
        }
    }
}

/// The list in a field, made if there is none.
pub(crate) fn list<'a>(doc: &'a mut Doc, field: &str) -> &'a mut Vec<Value> {
    let slot = doc.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(inner) => inner,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            unreachable!("made a list above")
        }
    }
}

/// Only the named fields, and always the id; the whole document if none is named.
pub(crate) fn only(doc: &Doc, fields: &[String]) -> Doc {
    if fields.is_empty() {
        return doc.clone();
    }
    let mut out = Doc::new();
    for field in fields.iter().map(String::as_str).chain(["id"]) {
        if let Some(value) = get(doc, field) {
            set(&mut out, field, value.clone());
        }
    }
    out
}

pub(crate) fn now() -> String {
    iso(Timestamp::now())
}

/// As Python prints it: no fraction on a whole second, else six digits.
pub(crate) fn iso(time: Timestamp) -> String {
    if time.subsec_nanosecond() / 1000 == 0 {
        time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
    } else {
        time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
    }
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.chars().count() < SHORTEST_NAME { Err(ApiError::short_name()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dotted_path_makes_the_objects_on_its_way() {
        let mut doc = Doc::new();
        set(&mut doc, "execution.queue", "q");
        set(&mut doc, "id", "t");
        set(&mut doc, "name", "n");
        assert_eq!(text(&doc, "execution.queue"), Some("q"));
        assert_eq!(
            Value::Object(only(&doc, &["execution.queue".into(), "absent".into()])),
            json!({"execution": {"queue": "q"}, "id": "t"})
        );
        unset(&mut doc, "execution.queue");
        assert_eq!(get(&doc, "execution"), Some(&json!({})));
    }

    #[test]
    fn times_look_like_pythons() {
        let whole = Timestamp::from_second(1_795_459_885).unwrap();
        assert_eq!(iso(whole), "2026-11-23T18:51:25+00:00");
        let part = Timestamp::from_millisecond(1_795_459_885_702).unwrap();
        assert_eq!(iso(part), "2026-11-23T18:51:25.702000+00:00");
    }
}
