//! Taking events in, with the server's odd ways of refusing them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document::{self, Doc};
use super::super::error::ApiError;
use super::super::state::{State, Task};
use super::super::status::Status;
use super::{NO_ITERATION, Point, push};

pub(super) fn add(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    add_all(state, call, std::slice::from_ref(&call.data))
}

pub(super) fn add_batch(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    match &call.batch {
        Some(batch) if batch.is_empty() => Err(ApiError::new(400, 17, "Batch request contains no items")),
        Some(batch) => add_all(state, call, batch),
        // Another content type with one object in the body.
        None => add_all(state, call, std::slice::from_ref(&call.data)),
    }
}

fn add_all(state: &mut State, call: &Call, events: &[Doc]) -> Result<Value, ApiError> {
    // One value that is no number spoils the whole batch, before anything is stored.
    for event in events {
        if document::text(event, "type") == Some("training_stats_scalar")
            && event.get("value").is_some_and(|value| !value.is_number())
        {
            return Err(ApiError::new(500, 0, "unsupported operand type(s) for +: 'int' and 'str'"));
        }
    }
    let mut added = 0;
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        match add_one(state, call, event) {
            Ok(()) => added += 1,
            Err(reason) => *refused.entry(reason).or_default() += 1,
        }
    }
    if added == 0 {
        let reasons: Vec<String> =
            refused.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
        return Err(ApiError::new(400, 131, format!("Events not added: {}", reasons.join(", "))));
    }
    Ok(json!({ "added": added, "errors": refused.values().sum::<usize>(), "errors_info": refused }))
}

fn add_one(state: &mut State, call: &Call, event: &Doc) -> Result<(), String> {
    let id = document::text(event, "task").ok_or("Event must have a 'task' field")?;
    let kind = document::text(event, "type").ok_or("Event must have a 'type' field")?;
    let task = state.tasks.get_mut(id).ok_or_else(|| "Invalid task id".to_owned())?;
    if task.status == Status::Published {
        return Err("Task is published".to_owned());
    }
    let kept = state.events.entry(id.to_owned()).or_default();
    let mut event = event.clone();
    let now = Timestamp::now();
    event.entry("timestamp").or_insert_with(|| now.as_millisecond().into());
    event.insert("@timestamp".into(), now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into());
    for field in ["metric", "variant"] {
        event.entry(field).or_insert_with(|| "".into());
    }
    match kind {
        "log" => {
            event.entry("worker").or_insert_with(|| "<unknown>".into());
            event.entry("model_event").or_insert_with(|| false.into());
            push(&mut kept.console, event);
        }
        "training_stats_scalar" => {
            let point = Point {
                iter: iteration(&event),
                timestamp: event.get("timestamp").and_then(Value::as_i64).unwrap_or(0),
                value: event.get("value").and_then(Value::as_f64).unwrap_or(0.0),
            };
            let metric = document::text(&event, "metric").unwrap_or_default();
            let variant = document::text(&event, "variant").unwrap_or_default();
            let series = kept.scalars.entry(metric.to_owned()).or_default().entry(variant.to_owned());
            let series = series.or_default();
            series.retain(|known| known.iter != point.iter || point.iter == NO_ITERATION);
            push(series, point);
            note_metric(task, metric, variant, point);
        }
        "plot" => {
            note_iteration(task, iteration(&event));
            // At the same place the newer one takes the older one's.
            let place = |plot: &Doc| ["metric", "variant", "iter"].map(|field| plot.get(field).cloned());
            kept.plots.retain(|known| place(known) != place(&event));
            push(&mut kept.plots, event);
        }
        "training_debug_image" => {
            note_iteration(task, iteration(&event));
            push(&mut kept.images, event);
        }
        "training_stats_vector" => {}
        other => return Err(format!("Invalid event type {other}")),
    }
    task.touch(&call.user);
    Ok(())
}

fn iteration(event: &Doc) -> i64 {
    event.get("iter").and_then(Value::as_i64).unwrap_or(0)
}

fn note_iteration(task: &mut Task, iteration: i64) {
    let last = task.doc.get("last_iteration").and_then(Value::as_i64).unwrap_or(0);
    if iteration > last {
        document::set(&mut task.doc, "last_iteration", iteration);
    }
}

/// The last, least and greatest value, which the server keeps on the task itself.
fn note_metric(task: &mut Task, metric: &str, variant: &str, point: Point) {
    note_iteration(task, point.iter);
    let unique: Value = format!("{metric}/{variant}").into();
    let known = document::list(&mut task.doc, "unique_metrics");
    if !known.contains(&unique) {
        known.push(unique);
    }
    let last = document::object(document::object(&mut task.doc, "last_metrics"), &hash(metric));
    let last = document::object(last, &hash(variant));
    let old = |last: &Doc, field: &str| last.get(field).and_then(Value::as_f64);
    for (field, replace) in [
        ("min_value", old(last, "min_value").is_none_or(|least| point.value < least)),
        ("max_value", old(last, "max_value").is_none_or(|greatest| point.value > greatest)),
        ("first_value", old(last, "first_value").is_none()),
    ] {
        if replace {
            last.insert(field.to_owned(), point.value.into());
            last.insert(format!("{field}_iteration"), point.iter.into());
        }
    }
    let count = old(last, "count").unwrap_or(0.0);
    let mean = (old(last, "mean_value").unwrap_or(0.0) * count + point.value) / (count + 1.0);
    for (field, value) in [
        ("metric", json!(metric)),
        ("variant", json!(variant)),
        ("value", json!(point.value)),
        ("count", json!(count as u64 + 1)),
        ("mean_value", json!(mean)),
    ] {
        last.insert(field.to_owned(), value);
    }
}

/// The keys by which the server files metrics and variants.
fn hash(name: &str) -> String {
    Md5::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
