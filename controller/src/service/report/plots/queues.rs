//! The budget as a table: queues, their resources, and why there are not more instances.

use engine::Published;
use engine::status::{PoolStatus, Status};
use planner::{Hold, Offering, ResourceName};

use super::{columns, fitting, left_out, table};

/// Rows at most.
const ROWS: usize = 500;
const HEADER: [(&str, u32); 10] = [
    ("queue", 110),
    ("resource", 110),
    ("offers", 230),
    ("waiting", 65),
    ("maximum", 75),
    ("instances", 75),
    ("booting", 65),
    ("idle", 50),
    ("busy", 50),
    ("note", 260),
];

pub(super) fn plot(published: &Published) -> String {
    let pools = Status::of(published).pools;
    fitting(pools.len(), ROWS, |shown| {
        let rows = pools.iter().take(shown).map(|pool| row(pool, published));
        let title = format!("Queues and their resources{}", left_out("first", shown, pools.len()));
        table(&title, &HEADER, &columns(rows))
    })
}

fn row(pool: &PoolStatus, published: &Published) -> [String; 10] {
    let PoolStatus { queue, resource, waiting, maximum, instances, coming, idle, busy, leaving } = pool;
    let resources = &published.policy.resources;
    let offers: Vec<String> = resources
        .get(&ResourceName::from(resource.as_str()))
        .into_iter()
        .flat_map(|resource| resource.offerings.iter().map(Offering::to_string))
        .collect();
    let mut notes: Vec<String> = published
        .plan
        .holds
        .iter()
        .filter(|hold| concerns(hold, queue, resource, published))
        .map(|hold| hold.describe(published.snapshot.now))
        .collect();
    if *leaving > 0 {
        notes.insert(0, format!("{leaving} on the way out"));
    }
    [
        queue.clone(),
        resource.clone(),
        offers.join(", "),
        waiting.map_or_else(|| "unknown".to_owned(), |waiting| waiting.to_string()),
        maximum.to_string(),
        instances.to_string(),
        coming.to_string(),
        idle.to_string(),
        busy.to_string(),
        notes.join("; "),
    ]
}

/// Whether a hold says why this pool does not launch.
fn concerns(hold: &Hold, queue: &str, resource: &str, published: &Published) -> bool {
    match hold {
        Hold::QueueUnknown { queue: held } | Hold::MaximumReached { queue: held, .. } => {
            held.as_str() == queue
        }
        Hold::ResourceBlocked { resource: held, .. }
        | Hold::PoolPaused { resource: held, .. }
        | Hold::Unproven { resource: held, .. }
        | Hold::OverMaximum { resource: held, .. } => held.as_str() == resource,
        Hold::Unavailable { offering, .. } => {
            let resource = published.policy.resources.get(&ResourceName::from(resource));
            resource.is_some_and(|resource| resource.offerings.contains(offering))
        }
        Hold::ShuttingDown { .. } | Hold::Paced { .. } | Hold::Paused { .. } => true,
        Hold::Adopting { .. }
        | Hold::AwaitingSessions { .. }
        | Hold::NewJournal { .. }
        | Hold::LeaseLost
        | Hold::Stale { .. }
        | Hold::LaunchUnanswered { .. }
        | Hold::LaunchGivenUp { .. }
        | Hold::Booting { .. }
        | Hold::IdleUntil { .. }
        | Hold::KeptForWaiting { .. }
        | Hold::OrderAwaited { .. }
        | Hold::DrainRefused { .. }
        | Hold::OperatorDrain { .. }
        | Hold::OrderRefused { .. }
        | Hold::FreshLook { .. }
        | Hold::TaskSeen { .. }
        | Hold::LostUntil { .. }
        | Hold::Limbo { .. }
        | Hold::Kept { .. }
        | Hold::Orphan { .. }
        | Hold::Task { .. }
        | Hold::TaskTwice { .. }
        | Hold::TasksNextPass { .. }
        | Hold::Noticed { .. }
        | Hold::OnItsOwn { .. } => false,
    }
}
