//! Giving events back.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document::{self, Doc};
use super::super::error::ApiError;
use super::super::state::State;
use super::{NO_ITERATION, Point, TaskEvents};

/// Named in every first page: asking on with it gives an empty one, by which clients see the end.
const END: &str = "end";
/// As many console lines as one answer holds if the caller does not say.
const LINES: usize = 500;

fn of_task<'a>(state: &'a State, call: &Call) -> Result<(Option<&'a TaskEvents>, String), ApiError> {
    let id = call.text("task")?;
    state.task(id)?;
    Ok((state.events.get(id), id.to_owned()))
}

fn at_end(call: &Call) -> bool {
    matches!(call.text_or_none("scroll_id"), Ok(Some(END)))
}

pub(super) fn get_task_log(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (events, _) = of_task(state, call)?;
    let mut lines: Vec<&Doc> = events.map(|events| events.console.iter().collect()).unwrap_or_default();
    let total = lines.len();
    let time = |line: &Doc| line.get("timestamp").and_then(Value::as_i64).unwrap_or(0);
    lines.sort_by_key(|line| time(line));
    let ascending = call.text_or_none("order")?.unwrap_or("desc") == "asc";
    let earlier = call.data.get("navigate_earlier").and_then(Value::as_bool).unwrap_or(true);
    if let Some(from) = call.number("from_timestamp") {
        lines.retain(|line| if earlier { time(line) < from } else { time(line) > from });
    }
    let size = call.number("batch_size").and_then(|size| usize::try_from(size).ok()).unwrap_or(LINES);
    if earlier {
        lines.drain(..lines.len().saturating_sub(size));
    } else {
        lines.truncate(size);
    }
    if !ascending {
        lines.reverse();
    }
    Ok(json!({ "events": lines, "returned": lines.len(), "total": total }))
}

pub(super) fn get_task_events(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (events, task) = of_task(state, call)?;
    let kind = call.text_or_none("event_type")?.unwrap_or_default();
    let wants = |one: &str| kind.is_empty() || kind == one;
    let mut found: Vec<Value> = Vec::new();
    if let Some(events) = events.filter(|_| !at_end(call)) {
        let groups =
            [("log", &events.console), ("plot", &events.plots), ("training_debug_image", &events.images)];
        for (_, group) in groups.into_iter().filter(|(name, _)| wants(name)) {
            found.extend(group.iter().cloned().map(Value::from));
        }
        if wants("training_stats_scalar") {
            for (metric, variant, point) in points(events) {
                found.push(json!({
                    "type": "training_stats_scalar",
                    "task": task,
                    "metric": metric,
                    "variant": variant,
                    "iter": point.iter,
                    "timestamp": point.timestamp,
                    "value": point.value,
                }));
            }
        }
    }
    let returned = found.len();
    Ok(json!({ "events": found, "returned": returned, "total": returned, "scroll_id": END }))
}

fn points(events: &TaskEvents) -> impl Iterator<Item = (&str, &str, &Point)> {
    events.scalars.iter().flat_map(|(metric, variants)| {
        variants.iter().flat_map(move |(variant, points)| {
            points.iter().map(move |point| (metric.as_str(), variant.as_str(), point))
        })
    })
}

pub(super) fn get_task_plots(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (events, _) = of_task(state, call)?;
    let mut plots: Vec<&Doc> = match events {
        Some(events) if !at_end(call) => events.plots.iter().collect(),
        Some(_) | None => Vec::new(),
    };
    let total = plots.len();
    let iters = call.number("iters").and_then(|iters| usize::try_from(iters).ok()).unwrap_or(1).max(1);
    plots.sort_by_key(|plot| std::cmp::Reverse(plot.get("iter").and_then(Value::as_i64).unwrap_or(0)));
    let mut kept: Vec<&Doc> = Vec::new();
    for plot in plots {
        let same =
            kept.iter().filter(|old| old["metric"] == plot["metric"] && old["variant"] == plot["variant"]);
        if same.count() < iters {
            kept.push(plot);
        }
    }
    Ok(json!({ "plots": kept, "returned": kept.len(), "total": total, "scroll_id": END }))
}

pub(super) fn scalar_metrics_iter_histogram(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (events, _) = of_task(state, call)?;
    let by_time = matches!(call.text_or_none("key")?, Some("timestamp" | "iso_time"));
    let mut reply = Doc::new();
    for (metric, variant, point) in events.into_iter().flat_map(points) {
        if point.iter == NO_ITERATION {
            continue;
        }
        let series = document::object(document::object(&mut reply, metric), variant);
        series.insert("name".into(), variant.into());
        document::list(series, "x").push(if by_time { point.timestamp } else { point.iter }.into());
        document::list(series, "y").push(point.value.into());
    }
    Ok(reply.into())
}

pub(super) fn get_task_latest_scalar_values(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (events, task) = of_task(state, call)?;
    let metrics: Vec<Value> = events
        .into_iter()
        .flat_map(|events| &events.scalars)
        .map(|(metric, variants)| {
            let last = variants.iter().filter_map(|(name, points)| Some((name, points.back()?)));
            let variants: Vec<Value> = last
                .map(|(name, point)| {
                    json!({ "name": name, "last_value": point.value, "last_timestamp": point.timestamp })
                })
                .collect();
            json!({ "name": metric, "variants": variants })
        })
        .collect();
    let last_iter = state.task(&task)?.doc.get("last_iteration").cloned();
    Ok(json!({ "metrics": metrics, "last_iter": last_iter }))
}

pub(super) fn get_task_single_value_metrics(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let tasks: Vec<Value> = call
        .texts("tasks")
        .iter()
        .filter_map(|id| Some((id, state.events.get(id)?)))
        .map(|(id, events)| {
            let single = points(events).filter(|(_, _, point)| point.iter == NO_ITERATION);
            let values: Vec<Value> = single
                .map(|(metric, variant, point)| {
                    json!({
                        "metric": metric,
                        "variant": variant,
                        "value": point.value,
                        "timestamp": point.timestamp,
                    })
                })
                .collect();
            json!({ "task": id, "values": values })
        })
        .collect();
    Ok(json!({ "tasks": tasks }))
}

pub(super) fn get_task_metrics(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let kind = call.text_or_none("event_type")?.unwrap_or("training_stats_scalar");
    let metrics: Vec<Value> = call
        .texts("tasks")
        .iter()
        .map(|id| {
            let events = state.events.get(id);
            let mut names: Vec<&str> = match (kind, events) {
                (_, None) => Vec::new(),
                ("plot", Some(events)) => events.plots.iter().filter_map(metric).collect(),
                ("training_debug_image", Some(events)) => events.images.iter().filter_map(metric).collect(),
                (_, Some(events)) => events.scalars.keys().map(String::as_str).collect(),
            };
            names.sort_unstable();
            names.dedup();
            json!({ "task": id, "metrics": names })
        })
        .collect();
    Ok(json!({ "metrics": metrics }))
}

fn metric(event: &Doc) -> Option<&str> {
    document::text(event, "metric")
}

pub(super) fn debug_images(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let metrics: Vec<Value> = call
        .objects("metrics")?
        .into_iter()
        .filter_map(|wanted| {
            let task = document::text(wanted, "task")?;
            let name = document::text(wanted, "metric");
            let events = state.events.get(task)?;
            let images = events.images.iter().filter(|image| name.is_none() || metric(image) == name);
            let iterations: Vec<Value> =
                images.map(|image| json!({ "iter": image.get("iter"), "events": [image] })).collect();
            Some(json!({ "task": task, "metric": name, "iterations": iterations }))
        })
        .collect();
    Ok(json!({ "metrics": metrics, "scroll_id": END }))
}
