//! The time of all instances since this run began, by resource and by what they did.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Published;
use planner::ResourceName;
use serde_json::{Value, json};

use super::{colour, date, fitting, left_out};
use crate::service::report::observe::{Observer, Phase};

/// Resources at most.
const RESOURCES: usize = 60;

pub(super) fn plot(published: &Published, observer: &Observer) -> String {
    let resources = totals(published, observer);
    fitting(resources.len(), RESOURCES, |shown| {
        let rows = &resources[..shown];
        let traces: Vec<Value> = Phase::ALL.iter().map(|phase| trace(*phase, rows)).collect();
        let since = date(published.snapshot.started_at);
        let left_out = left_out("largest", shown, resources.len());
        json!({
            "data": traces,
            "layout": {
                "title": {"text": format!("Hours of instances by resource since {since} UTC{left_out}")},
                "barmode": "stack",
                "xaxis": {"title": {"text": "hours"}, "rangemode": "tozero"},
                "yaxis": {"automargin": true, "type": "category", "autorange": "reversed"},
                "legend": {"orientation": "h", "traceorder": "normal"},
            },
        })
    })
}

type Total<'a> = (&'a ResourceName, BTreeMap<Phase, Duration>);

/// The largest first; what is not over yet counts until now.
fn totals<'a>(published: &'a Published, observer: &'a Observer) -> Vec<Total<'a>> {
    let mut totals: BTreeMap<&ResourceName, BTreeMap<Phase, Duration>> =
        published.policy.pools.iter().map(|pool| (&pool.resource, BTreeMap::new())).collect();
    for (resource, phases) in &observer.uptime {
        totals.insert(resource, phases.clone());
    }
    for track in observer.tracks.values().filter(|track| track.gone_at.is_none()) {
        let (from, phase) = track.last();
        let phases = totals.entry(&track.resource).or_default();
        *phases.entry(phase).or_default() += published.snapshot.now.since(from);
    }
    let mut totals: Vec<Total<'_>> = totals.into_iter().collect();
    totals.sort_by_key(|(_, phases)| std::cmp::Reverse(phases.values().sum::<Duration>()));
    totals
}

fn trace(phase: Phase, rows: &[Total<'_>]) -> Value {
    let names: Vec<&str> = rows.iter().map(|(resource, _)| resource.as_str()).collect();
    let hours: Vec<f64> = rows
        .iter()
        .map(|(_, phases)| {
            let hours = phases.get(&phase).copied().unwrap_or_default().as_secs_f64() / 3600.0;
            (hours * 10_000.0).round() / 10_000.0
        })
        .collect();
    json!({
        "type": "bar",
        "orientation": "h",
        "name": phase.name(),
        "y": names,
        "x": hours,
        "marker": {"color": colour(phase)},
        "hovertemplate": "%{y}: %{x:.2f} h",
    })
}
