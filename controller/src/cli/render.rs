//! `status` as a person reads it: pools, instances, holds.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use engine::status::{HoldStatus, InstanceStatus, PoolStatus, StaleStatus, Status};
use planner::{SidecarMode, Signal, Time};

/// The whole page.
pub(super) fn page(status: &Status) -> String {
    let Status { at, prefix, sidecar, lease_held, pools, instances, holds, stale } = status;
    let mut page = String::new();
    let sidecars = match sidecar {
        SidecarMode::Required => "sidecars report",
        SidecarMode::Off => "sidecars off: instances judge themselves",
    };
    let lease = if *lease_held { "" } else { " · LEASE LOST: nothing is launched" };
    let _ = writeln!(page, "{prefix} · {sidecars}{lease}\n");
    let _ = writeln!(page, "{}\n", pool_table(pools));
    let _ = writeln!(page, "{}", instance_table(instances, *at));
    for StaleStatus { source, since } in stale {
        let _ = writeln!(page, "\ncan't read {source} for {}", span(at.since(*since)));
    }
    if !holds.is_empty() {
        let _ = writeln!(page, "\nholds");
        for HoldStatus { text, hold: _ } in holds {
            let _ = writeln!(page, "  {text}");
        }
    }
    page
}

fn pool_table(pools: &[PoolStatus]) -> Table {
    let mut table =
        table(["queue", "resource", "waiting", "maximum", "instances", "coming", "idle", "busy", "leaving"]);
    for pool in pools {
        let PoolStatus { queue, resource, waiting, maximum, instances, coming, idle, busy, leaving } = pool;
        let waiting = waiting.map_or_else(|| "?".to_owned(), |waiting| waiting.to_string());
        let mut row = vec![Cell::new(queue), Cell::new(resource), number(waiting)];
        row.extend([
            number(maximum),
            number(instances),
            number(coming),
            number(idle),
            number(busy),
            number(leaving),
        ]);
        table.add_row(row);
    }
    table
}

fn instance_table(instances: &[InstanceStatus], now: Time) -> Table {
    let mut table =
        table(["instance", "resource", "type", "zone", "market", "age", "state", "since", "signal", "task"]);
    for instance in instances {
        let InstanceStatus {
            instance,
            resource,
            queue: _,
            state,
            detail,
            task,
            since,
            signal,
            instance_type,
            zone,
            market,
            launched_at,
            worker: _,
        } = instance;
        let state = match detail {
            Some(detail) => format!("{state} ({detail})"),
            None => state.clone(),
        };
        let signal = match signal {
            Signal::Sidecar => "sidecar",
            Signal::Clearml => "clearml",
            Signal::None => "none",
        };
        table.add_row(vec![
            Cell::new(instance),
            Cell::new(resource),
            Cell::new(instance_type),
            Cell::new(zone.as_deref().unwrap_or("-")),
            Cell::new(market),
            number(span(now.since(*launched_at))),
            Cell::new(state),
            number(span(now.since(*since))),
            Cell::new(signal),
            Cell::new(task.as_ref().map_or("-", planner::TaskId::as_str)),
        ]);
    }
    table
}

pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

pub(super) fn number(value: impl std::fmt::Display) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A duration in two units at most: `12 s`, `3 min 4 s`, `5 h 6 min`, `2 d 3 h`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        86_400.. => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        let told =
            [0, 59, 60, 61, 3600, 3661, 86_400, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "1 d", "1 d 1 h"]);
    }
}
