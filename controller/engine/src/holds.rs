//! Tells the log which holds came and went: those that answer "why is nothing happening?", each once.
//!
//! Holds that are the usual course (booting, idle within its limit, an order under way) are for `status`.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::{Hold, Plan, TaskHold, Time};

/// A hold that comes and goes is told again after this at the earliest.
const QUIET: Duration = Duration::from_secs(60);
/// Holds remembered at most.
const KEPT: usize = 10_000;

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct HoldLog {
    told: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    at: Time,
    /// It still holds, as far as was told.
    stands: bool,
    /// What to say when it is over.
    end: Option<String>,
}

impl HoldLog {
    /// Tells what is new, and what is over.
    pub(crate) fn tell(&mut self, plan: &Plan, now: Time) {
        let mut standing = BTreeMap::new();
        for hold in &plan.holds {
            if let Some((key, end)) = worth_telling(hold, now) {
                standing.insert(key, (hold, end));
            }
        }
        for (key, told) in &mut self.told {
            if told.stands && !standing.contains_key(key) && now.since(told.at) >= QUIET {
                told.stands = false;
                told.at = now;
                if let Some(end) = &told.end {
                    tracing::info!("{end}");
                }
            }
        }
        for (key, (hold, end)) in standing {
            let known = self.told.get(&key);
            if known.is_some_and(|told| told.stands || now.since(told.at) < QUIET) {
                continue;
            }
            if self.told.len() < KEPT || known.is_some() {
                self.told.insert(key, Told { at: now, stands: true, end });
            }
            let text = hold.describe(now);
            if is_grave(hold) {
                tracing::warn!("{text}");
            } else {
                tracing::info!("{text}");
            }
        }
        self.told.retain(|_, told| told.stands || now.since(told.at) < QUIET);
    }
}

/// What makes two holds the same one, and what to say when it is over.
fn worth_telling(hold: &Hold, now: Time) -> Option<(String, Option<String>)> {
    match hold {
        Hold::AwaitingSessions { .. } => Some(("sessions".to_owned(), None)),
        Hold::Paused { .. } => {
            Some(("paused".to_owned(), Some("the operator has resumed launches".to_owned())))
        }
        Hold::OperatorDrain { instance, awaits, .. } => Some((format!("drain {instance} {awaits:?}"), None)),
        Hold::ShuttingDown { .. } => Some(("shutdown".to_owned(), None)),
        Hold::NewJournal { .. } => Some(("journal".to_owned(), None)),
        // That a read failed is told at once, where it happens; that it goes on is another matter.
        Hold::Stale { source, since } => (now.since(*since) >= QUIET)
            .then(|| (format!("stale {source}"), Some(format!("{source}: current data again")))),
        Hold::QueueUnknown { queue } => {
            Some((format!("queue {queue}"), Some(format!("queue {queue}: on the server's list again"))))
        }
        Hold::MaximumReached { queue, .. } => {
            Some((format!("maximum {queue}"), Some(format!("queue {queue}: no longer at its maximum"))))
        }
        Hold::ResourceBlocked { resource, .. } => {
            Some((format!("blocked {resource}"), Some(format!("resource {resource}: can be launched again"))))
        }
        Hold::PoolPaused { resource, .. } => {
            Some((format!("paused {resource}"), Some(format!("resource {resource}: may be tried again"))))
        }
        Hold::Kept { instance } => Some((format!("kept {instance}"), None)),
        Hold::Orphan { instance, .. } => Some((format!("orphan {instance}"), None)),
        Hold::LaunchGivenUp { intent, .. } => Some((format!("given up {intent}"), None)),
        Hold::DrainRefused { instance, .. } | Hold::OrderRefused { instance, .. } => {
            Some((format!("refused {instance}"), None))
        }
        Hold::TaskSeen { instance, .. } => Some((format!("task {instance}"), None)),
        Hold::Limbo { instance, .. } => Some((format!("limbo {instance}"), None)),
        Hold::OverMaximum { resource, .. } => Some((format!("over {resource}"), None)),
        Hold::Noticed { instance, .. } => Some((format!("noticed {instance}"), None)),
        Hold::TaskTwice { task, .. } => Some((format!("twice {task}"), None)),
        Hold::Task { task, why, .. } => lasts(why).then(|| (format!("task in trouble {task}"), None)),
        // The lease, the refused launch and the lost instance are told where they happen; the rest is
        // the usual course.
        Hold::LeaseLost
        | Hold::Unavailable { .. }
        | Hold::LaunchUnanswered { .. }
        | Hold::LostUntil { .. }
        | Hold::Adopting { .. }
        | Hold::Unproven { .. }
        | Hold::Paced { .. }
        | Hold::Booting { .. }
        | Hold::IdleUntil { .. }
        | Hold::KeptForWaiting { .. }
        | Hold::OrderAwaited { .. }
        | Hold::FreshLook { .. }
        | Hold::TasksNextPass { .. }
        | Hold::OnItsOwn { .. } => None,
    }
}

/// Whether a task is left alone for more than the usual moment.
fn lasts(why: &TaskHold) -> bool {
    match why {
        TaskHold::Until(_)
        | TaskHold::FreshLook
        | TaskHold::Paused(_)
        | TaskHold::NotGoneYet(_)
        | TaskHold::RunsOn(_)
        | TaskHold::LeaseLost => false,
        TaskHold::HeldBy(_)
        | TaskHold::ListedOn(_)
        | TaskHold::MayBeOn(_)
        | TaskHold::OtherWorkers(_)
        | TaskHold::ChangedSince
        | TaskHold::Alive
        | TaskHold::ClockUnknown
        | TaskHold::QueueUnknown
        | TaskHold::Twice => true,
    }
}

/// Whether someone should look.
fn is_grave(hold: &Hold) -> bool {
    matches!(
        hold,
        Hold::ResourceBlocked { .. }
            | Hold::QueueUnknown { .. }
            | Hold::Limbo { .. }
            | Hold::PoolPaused { .. }
            | Hold::Orphan { .. }
            | Hold::TaskTwice { .. }
            | Hold::Task { .. }
            | Hold::Noticed { .. }
    )
}
