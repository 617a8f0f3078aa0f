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
/// Below it, minutes are shown.
const MINUTES_BELOW: Duration = Duration::from_secs(2 * 3600);

pub(super) fn plot(published: &Published, observer: &Observer) -> String {
    let resources = totals(published, observer);
    fitting(resources.len(), RESOURCES, |shown| {
        let rows = &resources[..shown];
        let longest = rows.first().map(|(_, phases)| phases.values().sum::<Duration>()).unwrap_or_default();
        let unit = if longest < MINUTES_BELOW { Unit::Minutes } else { Unit::Hours };
        let traces: Vec<Value> = Phase::ALL.iter().map(|phase| trace(*phase, rows, unit)).collect();
        let since = date(published.snapshot.started_at);
        let left_out = left_out("largest", shown, resources.len());
        json!({
            "data": traces,
            "layout": {
                "title": {"text": format!("Time of instances by resource since {since} UTC{left_out}")},
                "barmode": "stack",
                "xaxis": {"title": {"text": unit.name()}, "rangemode": "tozero"},
                "yaxis": {"automargin": true, "type": "category", "autorange": "reversed"},
                "legend": {"traceorder": "normal"},
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

#[derive(Clone, Copy)]
enum Unit {
    Minutes,
    Hours,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }

    fn of(self, time: Duration) -> f64 {
        let length = match self {
            Self::Minutes => 60.0,
            Self::Hours => 3600.0,
        };
        (time.as_secs_f64() / length * 1000.0).round() / 1000.0
    }
}

fn trace(phase: Phase, rows: &[Total<'_>], unit: Unit) -> Value {
    let names: Vec<&str> = rows.iter().map(|(resource, _)| resource.as_str()).collect();
    let times: Vec<f64> =
        rows.iter().map(|(_, phases)| unit.of(phases.get(&phase).copied().unwrap_or_default())).collect();
    json!({
        "type": "bar",
        "orientation": "h",
        "name": phase.name(),
        "y": names,
        "x": times,
        "marker": {"color": colour(phase)},
        "hovertemplate": format!("%{{y}}: %{{x:.2f}} {}", unit.name()),
    })
}
