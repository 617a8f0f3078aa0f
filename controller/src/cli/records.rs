//! `controller history` and `controller costs`: what the running controller's journal remembers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::Cell;
use engine::history::{Event, History};
use jiff::Timestamp;
use planner::{InstanceId, Time};

use super::render::{number, span, table};
use super::{print, socket_of, told};
use crate::admin;
use crate::journal::PricePaid;
use crate::service::ledger::{CostLine, Costs};

/// Options of both.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// How far back, such as `2d`, `36h`, `90m`. Events are kept for 30 days, costs for 400.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = duration)]
    since: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The running controller's configuration: its state directory holds the socket.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// The socket itself.
    #[arg(long, value_name = "PATH", conflicts_with = "config_file")]
    socket: Option<PathBuf>,
}

pub(crate) async fn history(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let socket = socket_of(args.socket.as_deref(), &args.config_file)?;
    let history = admin::history(&socket, args.since).await.map_err(told)?;
    print(&if args.json { serde_json::to_string(&history)? } else { history_page(&history) })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn costs(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let socket = socket_of(args.socket.as_deref(), &args.config_file)?;
    let costs = admin::costs(&socket, args.since).await.map_err(told)?;
    print(&if args.json { serde_json::to_string(&costs)? } else { costs_page(&costs) })?;
    Ok(ExitCode::SUCCESS)
}

fn history_page(History { since, events, omitted }: &History) -> String {
    let mut lines: Vec<String> = events.iter().map(line).collect();
    if *omitted > 0 {
        lines.insert(0, format!("{omitted} older events are not shown"));
    }
    if lines.is_empty() {
        lines.push(format!("nothing since {}", clock(*since)));
    }
    lines.join("\n")
}

/// `2026-01-31T20:34:48Z terminated gpu/t4 i-1, i-2: retired, and nothing shows a task there`.
fn line(event: &Event) -> String {
    let Event { at, kind, instances, resource, queue, task, reason } = event;
    let mut line = format!("{} {}", clock(*at), kind.name());
    if let (Some(queue), Some(resource)) = (queue, resource) {
        line.push_str(&format!(" {queue}/{resource}"));
    }
    if !instances.is_empty() {
        let ids: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
        line.push_str(&format!(" {}", ids.join(", ")));
    }
    if let Some(task) = task {
        line.push_str(&format!(" task {task}"));
    }
    format!("{line}: {reason}")
}

fn costs_page(costs: &Costs) -> String {
    let Costs { since, until, usd, priced_hours, unpriced_hours, usd_per_hour_now, lines } = costs;
    let mut table = table([
        "queue",
        "resource",
        "type",
        "market",
        "instances",
        "running",
        "hours",
        "spend ($)",
        "prices ($/h)",
    ]);
    let mut notes = Vec::new();
    for line in lines {
        let CostLine {
            queue,
            resource,
            instance_type,
            market,
            instances,
            running,
            vanished,
            usd,
            priced_hours,
            unpriced_hours,
            prices,
        } = line;
        table.add_row(vec![
            Cell::new(queue),
            Cell::new(resource),
            Cell::new(instance_type),
            Cell::new(market),
            number(instances),
            number(running),
            number(format!("{:.2}", priced_hours + unpriced_hours)),
            number(format!("{usd:.2}")),
            Cell::new(prices_of(prices)),
        ]);
        if *unpriced_hours > 0.0 {
            notes.push(format!(
                "{unpriced_hours:.2} hours of {resource} have no price and are not in the sum"
            ));
        }
        if *vanished > 0 {
            notes.push(format!(
                "{vanished} of {resource} went while no controller ran, and count until they were last seen"
            ));
        }
    }
    let sum = format!(
        "{usd:.2} $ for {:.2} hours in {}; {usd_per_hour_now:.2} $ an hour now",
        priced_hours + unpriced_hours,
        span(until.since(*since))
    );
    let mut page = format!("{table}\n\n{sum}");
    for note in notes {
        page.push_str(&format!("\n{note}"));
    }
    page
}

/// The range, and who says so of when.
fn prices_of(prices: &[PricePaid]) -> String {
    let (Some(low), Some(high)) = (prices.first(), prices.last()) else { return "unknown".to_owned() };
    let range = if prices.len() == 1 {
        format!("{:.4}", low.usd_per_hour)
    } else {
        format!("{:.4} to {:.4}", low.usd_per_hour, high.usd_per_hour)
    };
    format!("{range} ({}, {})", high.source, high.date)
}

fn clock(at: Time) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

/// `90s`, `15m`, `36h`, `2d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number and a unit: 90s, 15m, 36h, 2d".to_owned();
    let split = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use engine::history::EventKind;

    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        for text in ["", "2", "d", "-1d", "1w", "2 d", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event::new(Time(1_767_323_045_000), EventKind::Terminated, "retired")
            .of_instances(&["i-1".into(), "i-2".into()])
            .in_pool(&"t4".into(), &"gpu".into());
        assert_eq!(line(&event), "2026-01-02T03:04:05Z terminated gpu/t4 i-1, i-2: retired");
    }
}
