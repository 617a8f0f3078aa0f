//! The plots, as Plotly's JSON: the fleet, the queues, uptime by resource, a timeline.
//!
//! Each is bounded in rows and in bytes, and its title says what was left out.

mod fleet;
mod queues;
#[cfg(test)]
mod tests;
mod timeline;
mod uptime;

use engine::Published;
use planner::Time;
use serde_json::{Value, json};

use super::observe::{Observer, Phase};
use super::outbox::Plot;
use super::spend::Hourly;

/// No plot is longer, in bytes of JSON.
pub(super) const LARGEST: usize = 250_000;

/// All plots of this moment.
pub(super) fn all(published: &Published, observer: &Observer, prices: &dyn Hourly) -> Vec<Plot> {
    let at_ms = published.snapshot.now.0;
    [
        ("Fleet", fleet::plot(published, prices)),
        ("Queues and their resources", queues::plot(published)),
        ("Uptime by resource", uptime::plot(published, observer)),
        ("Timeline of instances", timeline::plot(published, observer)),
    ]
    .into_iter()
    .map(|(metric, json)| Plot { metric, json, at_ms })
    .collect()
}

/// The plot with as many of its rows as it may have and as fit.
fn fitting(rows: usize, most: usize, render: impl Fn(usize) -> Value) -> String {
    let mut shown = rows.min(most);
    loop {
        let json = render(shown).to_string();
        if json.len() <= LARGEST || shown == 0 {
            return json;
        }
        // In proportion to the excess, and surely fewer.
        shown = (shown * LARGEST / json.len()).min(shown - 1);
    }
}

/// A table with a title, column by column; each column by its name and its share of the width.
fn table(title: &str, header: &[(&str, u32)], columns: &[Vec<String>]) -> Value {
    let widths: Vec<u32> = header.iter().map(|(_, width)| *width).collect();
    let header: Vec<String> = header.iter().map(|(name, _)| format!("<b>{name}</b>")).collect();
    json!({
        "data": [{
            "type": "table",
            "columnwidth": widths,
            "header": {"values": header, "align": "left", "fill": {"color": "#dfe5ec"}},
            "cells": {"values": columns, "align": "left", "height": 24, "font": {"size": 11}},
        }],
        "layout": {"title": {"text": title}},
    })
}

/// Rows as the columns that Plotly wants.
fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> Vec<Vec<String>> {
    let mut columns = vec![Vec::new(); N];
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    columns
}

/// ` (the first 10 of 1000)`, if any were left out.
fn left_out(which: &str, shown: usize, all: usize) -> String {
    if shown == all { String::new() } else { format!(" (the {which} {shown} of {all})") }
}

fn colour(phase: Phase) -> &'static str {
    match phase {
        Phase::Booting => "#f0b429",
        Phase::Idle => "#9fc5e8",
        Phase::Busy => "#2e8b57",
        Phase::Draining => "#b39ddb",
        Phase::Leaving => "#9e9e9e",
        Phase::Lost => "#d9534f",
    }
}

/// `2026-11-24 10:52:03`, UTC, as Plotly reads dates.
fn date(time: Time) -> String {
    let timestamp = i64::try_from(time.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| "?".to_owned(), |timestamp| timestamp.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
