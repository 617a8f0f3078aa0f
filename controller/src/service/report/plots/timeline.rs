//! What each instance did when: one row an instance, one bar a stretch of its life.

use std::time::Duration;

use engine::Published;
use planner::{InstanceId, Time};
use serde_json::{Value, json};

use super::{colour, date, fitting, left_out};
use crate::service::report::observe::{Observer, Phase, Track};

/// How far back it goes.
const WINDOW: Duration = Duration::from_secs(6 * 3600);
/// Rows at most: more can't be read.
const ROWS: usize = 60;
/// Height of a row and of what is around the rows, in pixels.
const ROW_PIXELS: usize = 22;
const FRAME_PIXELS: usize = 160;

pub(super) fn plot(published: &Published, observer: &Observer) -> String {
    let now = published.snapshot.now;
    let begin = Time(now.0.saturating_sub(u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX)));
    let mut tracks: Vec<(&InstanceId, &Track)> =
        observer.tracks.iter().filter(|(_, track)| track.gone_at.is_none_or(|gone| gone > begin)).collect();
    tracks.sort_by_key(|(id, track)| (std::cmp::Reverse(track.launched_at), *id));
    fitting(tracks.len(), ROWS, |shown| {
        let rows = &tracks[..shown];
        let traces: Vec<Value> = Phase::ALL.iter().map(|phase| trace(*phase, rows, begin, now)).collect();
        let left_out = left_out("newest", shown, tracks.len());
        json!({
            "data": traces,
            "layout": {
                "title": {"text": format!("Instances of the last 6 hours, UTC{left_out}")},
                "barmode": "overlay",
                "bargap": 0.3,
                "height": FRAME_PIXELS + ROW_PIXELS * shown,
                "xaxis": {"type": "date"},
                "yaxis": {
                    "automargin": true,
                    "type": "category",
                    "categoryorder": "array",
                    "categoryarray": rows.iter().rev().map(|(id, track)| name(id, track)).collect::<Vec<_>>(),
                },
                "legend": {"traceorder": "normal"},
            },
        })
    })
}

fn name(id: &InstanceId, track: &Track) -> String {
    format!("{} {id}", track.resource)
}

/// All stretches of one kind. A bar on an axis of dates begins at a date and is so many milliseconds long.
fn trace(phase: Phase, rows: &[(&InstanceId, &Track)], begin: Time, now: Time) -> Value {
    let (mut names, mut bases, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for (id, track) in rows {
        let end = track.gone_at.unwrap_or(now);
        for (place, (from, what)) in track.stretches.iter().enumerate() {
            let until = track.stretches.get(place + 1).map_or(end, |(next, _)| *next);
            let from = (*from).max(begin);
            if *what != phase || until <= from {
                continue;
            }
            names.push(name(id, track));
            bases.push(format!("{}.{:03}", date(from), from.0 % 1000));
            lengths.push(u64::try_from(until.since(from).as_millis()).unwrap_or(u64::MAX));
        }
    }
    json!({
        "type": "bar",
        "orientation": "h",
        "name": phase.name(),
        "y": names,
        "base": bases,
        "x": lengths,
        "marker": {"color": colour(phase)},
        "hovertemplate": "%{y}: from %{base}",
    })
}
