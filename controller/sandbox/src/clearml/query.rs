//! The filters, order and pages that every `get_all` understands.

use std::cmp::Ordering;

use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;

use super::call::{Call, texts};
use super::document::{self, Doc};
use super::error::ApiError;

/// The server never gives more in one page, and as many if none is asked for.
const LARGEST_PAGE: usize = 500;

/// Fields matched by a regular expression.
const PATTERNS: &[&str] = &["name", "comment", "basename"];
/// Fields matched by a list of alternatives, each of which may be negated.
const LISTS: &[&str] = &[
    "id",
    "user",
    "project",
    "type",
    "status",
    "parent",
    "tags",
    "system_tags",
    "execution.queue",
    "task",
    "framework",
    "ready",
    "uri",
];
const TIMES: &[&str] = &["created", "started", "completed", "published", "status_changed", "last_update"];

enum Filter {
    Pattern(String, Regex),
    /// Any of the fields matches.
    AnyPattern(Vec<String>, Regex),
    List {
        field: String,
        any: Vec<Value>,
        all: Vec<Value>,
        none: Vec<Value>,
    },
    Time(String, Ordering, bool, Timestamp),
}

pub(crate) struct Query {
    filters: Vec<Filter>,
    order_by: Vec<String>,
    page: usize,
    page_size: usize,
}

impl Query {
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        let mut filters = Vec::new();
        for (field, value) in &call.data {
            if value.is_null() {
                continue;
            }
            let plain = field.replace("__", ".");
            if PATTERNS.contains(&field.as_str()) {
                let pattern = value.as_str().ok_or_else(|| ApiError::validation(field))?;
                filters.push(Filter::Pattern(plain, regex(pattern)?));
            } else if LISTS.contains(&plain.as_str()) {
                if let Some(filter) = list_filter(plain, value) {
                    filters.push(filter);
                }
            } else if TIMES.contains(&plain.as_str()) {
                filters.extend(texts(Some(value)).iter().filter_map(|text| time_filter(&plain, text)));
            } else if field == "_any_" {
                let fields = texts(value.get("fields"));
                let pattern = value.get("pattern").and_then(Value::as_str).unwrap_or_default();
                filters.push(Filter::AnyPattern(fields, regex(pattern)?));
            }
        }
        let page_size = call.number("page_size").unwrap_or(LARGEST_PAGE as i64);
        let page = call.number("page").unwrap_or(0);
        if page < 0 || page_size < 1 {
            return Err(ApiError::validation("page must be >=0 and page_size must be > 0"));
        }
        Ok(Self {
            filters,
            order_by: call.texts("order_by"),
            page: usize::try_from(page).unwrap_or(usize::MAX),
            page_size: usize::try_from(page_size).unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE),
        })
    }

    /// The page asked for, in order.
    pub(crate) fn select<'a>(&self, rows: impl Iterator<Item = &'a Doc>) -> Vec<&'a Doc> {
        let mut found: Vec<&Doc> =
            rows.filter(|row| self.filters.iter().all(|filter| filter.takes(row))).collect();
        if !self.order_by.is_empty() {
            found.sort_by(|left, right| self.order(left, right));
        }
        let start = self.page.saturating_mul(self.page_size);
        found.into_iter().skip(start).take(self.page_size).collect()
    }

    fn order(&self, left: &Doc, right: &Doc) -> Ordering {
        for field in &self.order_by {
            let (field, down) = match field.strip_prefix('-') {
                Some(field) => (field, true),
                None => (field.as_str(), false),
            };
            let order = compare(document::get(left, field), document::get(right, field));
            if order != Ordering::Equal {
                return if down { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    }
}

impl Filter {
    fn takes(&self, row: &Doc) -> bool {
        match self {
            Self::Pattern(field, regex) => {
                document::text(row, field).is_some_and(|text| regex.is_match(text))
            }
            Self::AnyPattern(fields, regex) => {
                fields.iter().any(|field| document::text(row, field).is_some_and(|text| regex.is_match(text)))
            }
            Self::List { field, any, all, none } => {
                let value = document::get(row, field);
                let has = |wanted: &Value| match value {
                    None | Some(Value::Null) => wanted.is_null(),
                    Some(Value::Array(list)) => {
                        list.contains(wanted) || (wanted.is_null() && list.is_empty())
                    }
                    Some(other) => other == wanted,
                };
                (any.is_empty() || any.iter().any(has)) && all.iter().all(has) && !none.iter().any(has)
            }
            Self::Time(field, wanted, or_equal, limit) => {
                let time = document::text(row, field).and_then(|text| text.parse::<Timestamp>().ok());
                time.is_some_and(|time| {
                    let order = time.cmp(limit);
                    order == *wanted || (*or_equal && order == Ordering::Equal)
                })
            }
        }
    }
}

fn regex(pattern: &str) -> Result<Regex, ApiError> {
    Regex::new(pattern)
        .map_err(|error| ApiError::new(400, 21, format!("Malformed regular expression: {error}")))
}

/// `["a", "b"]` takes either; `-a` and what follows `__$not` excludes; after `__$all` or `__$and` all must
/// be there.
fn list_filter(field: String, value: &Value) -> Option<Filter> {
    let items = match value {
        Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    };
    if items.is_empty() {
        return None;
    }
    let (mut any, mut all, mut none) = (Vec::new(), Vec::new(), Vec::new());
    let (mut every, mut negated) = (false, false);
    for item in items {
        match item.as_str() {
            Some("__$all" | "__$and") => every = true,
            Some("__$any" | "__$or") => every = false,
            Some("__$not") => negated = true,
            Some(text) if text.starts_with('-') && field != "id" => none.push(Value::from(&text[1..])),
            _ => {
                if std::mem::take(&mut negated) {
                    none.push(item);
                } else if every {
                    all.push(item);
                } else {
                    any.push(item);
                }
            }
        }
    }
    Some(Filter::List { field, any, all, none })
}

fn time_filter(field: &str, text: &str) -> Option<Filter> {
    let (order, or_equal, rest) = if let Some(rest) = text.strip_prefix(">=") {
        (Ordering::Greater, true, rest)
    } else if let Some(rest) = text.strip_prefix("<=") {
        (Ordering::Less, true, rest)
    } else if let Some(rest) = text.strip_prefix('>') {
        (Ordering::Greater, false, rest)
    } else if let Some(rest) = text.strip_prefix('<') {
        (Ordering::Less, false, rest)
    } else {
        (Ordering::Equal, false, text)
    };
    // A time without a zone is UTC.
    let time = rest.parse::<Timestamp>().or_else(|_| format!("{rest}Z").parse::<Timestamp>()).ok()?;
    Some(Filter::Time(field.to_owned(), order, or_equal, time))
}

/// Absent sorts first, as in the server's database; what can't be compared is equal.
fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::String(left)), Some(Value::String(right))) => left.cmp(right),
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal)
        }
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}
