//! The fleet as a table.

use engine::Published;
use engine::status::{InstanceStatus, Status};
use planner::{InstanceType, Market, TaskId, Time};

use super::{columns, date, fitting, left_out, table};
use crate::service::report::spend::{Hourly, price};

/// Rows at most.
const ROWS: usize = 1000;
const HEADER: [(&str, u32); 9] = [
    ("instance", 175),
    ("type", 100),
    ("resource", 100),
    ("zone", 90),
    ("market", 90),
    ("state", 110),
    ("task", 275),
    ("launched (UTC)", 160),
    ("cost", 190),
];

pub(super) fn plot(published: &Published, prices: &dyn Hourly) -> String {
    let now = published.snapshot.now;
    let mut instances = Status::of(published).instances;
    instances.retain(|instance| instance.state != "gone");
    // Of a fleet that is too large the newest are shown.
    instances.sort_by_key(|instance| std::cmp::Reverse(instance.launched_at));
    fitting(instances.len(), ROWS, |shown| {
        let rows = instances.iter().take(shown).map(|instance| row(instance, now, prices));
        let title = match instances.len() {
            0 => "No instances now".to_owned(),
            1 => "1 instance".to_owned(),
            all => format!("{all} instances{}", left_out("newest", shown, all)),
        };
        table(&title, &HEADER, &columns(rows))
    })
}

fn row(instance: &InstanceStatus, now: Time, prices: &dyn Hourly) -> [String; 9] {
    let InstanceStatus {
        instance: id,
        resource,
        queue: _,
        state,
        detail,
        task,
        since: _,
        signal: _,
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
    [
        id.clone(),
        instance_type.clone(),
        resource.clone(),
        zone.clone().unwrap_or_default(),
        market.to_string(),
        state,
        task.as_ref().map(TaskId::to_string).unwrap_or_default(),
        date(*launched_at),
        cost(&InstanceType(instance_type.clone()), *market, *launched_at, now, prices),
    ]
}

fn cost(
    instance_type: &InstanceType,
    market: Market,
    launched_at: Time,
    now: Time,
    prices: &dyn Hourly,
) -> String {
    match price(prices, instance_type, market) {
        Some(price) => {
            let hours = now.since(launched_at).as_secs_f64() / 3600.0;
            format!("${:.3} at ${price:.3} an hour", price * hours)
        }
        None => "unknown".to_owned(),
    }
}
