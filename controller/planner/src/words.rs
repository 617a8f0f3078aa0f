//! Holds and their parts in the words that an operator reads.

use std::fmt;
use std::time::Duration;

use crate::hold::{Awaits, Hold};
use crate::ids::Time;
use crate::plan::{OrderKind, TerminateReason};
use crate::policy::ShutdownAction;
use crate::snapshot::Source;

impl Hold {
    /// The hold as one line, its instants told relative to `now`.
    pub fn describe(&self, now: Time) -> String {
        let left = |until: &Time| in_words(until.since(now));
        match self {
            Self::Adopting { missing } => {
                let names: Vec<String> = missing.iter().map(Source::to_string).collect();
                format!("starting: not read yet: {}", names.join(", "))
            }
            Self::AwaitingSessions { instances, until } => format!(
                "{} of an earlier run may report for another {}: nothing is launched for their queues before",
                count(*instances, "instance"),
                left(until)
            ),
            Self::NewJournal { until } => {
                format!("no journal of an earlier run: nothing is launched for another {}", left(until))
            }
            Self::LeaseLost => "another autoscaler holds the worker prefix: nothing is launched".to_owned(),
            Self::Paused { since, reason } => {
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                format!(
                    "paused by the operator {} ago{reason}: nothing is launched",
                    in_words(now.since(*since))
                )
            }
            Self::ShuttingDown { action, remaining } => {
                let to_go = count(*remaining, "instance");
                let fleet = match action {
                    ShutdownAction::Nothing => "the fleet is left as it is".to_owned(),
                    ShutdownAction::Idle => format!("what is idle goes, {to_go} still to go"),
                    ShutdownAction::All => format!("all go, {to_go} still to go"),
                };
                format!("shutting down: nothing is launched; {fleet}")
            }
            Self::Stale { source, since } => format!(
                "{source}: no current data for {}: nothing that rests on it is done",
                in_words(now.since(*since))
            ),
            Self::QueueUnknown { queue } => {
                format!("queue {queue}: not on the server's list: its instances are left as they are")
            }
            Self::MaximumReached { queue, waiting, maximum } => format!(
                "maximum reached: queue {queue} has {} more than its {} can take",
                count(*waiting, "task"),
                count(*maximum, "instance")
            ),
            Self::Unavailable { offering, until, reason } => {
                format!("{offering}: left alone for another {} (EC2: {reason})", left(until))
            }
            Self::ResourceBlocked { resource, reason } => {
                format!("resource {resource}: can't be launched: {reason}")
            }
            Self::PoolPaused { resource, failures, until, reason } => format!(
                "resource {resource}: paused for another {} after {} in a row: {reason}",
                left(until),
                count(*failures, "failed boot")
            ),
            Self::Unproven { resource, failures: 0, reason: _ } => format!(
                "resource {resource}: no instance of it was ever ready: the rest follows when the first one is"
            ),
            Self::Unproven { resource, failures, reason } => format!(
                "resource {resource}: {}, the last: {reason}: no more are tried at once",
                count(*failures, "failed boot")
            ),
            Self::Paced { count: more, until } => format!(
                "{} more wanted, and as many as may be were launched lately: the next in {}",
                count(*more, "instance"),
                left(until)
            ),
            Self::Kept { instance } => {
                format!("{instance}: would go, but its tag clearml-autoscaler:keep spares it")
            }
            Self::Orphan { instance, until } => format!(
                "{instance}: has our tag, and nothing accounts for it: looked at again in {}, then it goes",
                left(until)
            ),
            Self::LaunchUnanswered { intent, count: asked, retry_at } => format!(
                "launch {intent}: no answer about {}: asked again {}",
                count(*asked, "instance"),
                when(*retry_at, now)
            ),
            Self::LaunchGivenUp { intent, count: asked, until } => format!(
                "launch {intent}: no answer about {}, and no room for more: given up {}",
                count(*asked, "instance"),
                when(*until, now)
            ),
            Self::Booting { instance, phase, until } => {
                format!("{instance}: on its way ({phase}), replaced if not ready in {}", left(until))
            }
            Self::IdleUntil { instance, until } => {
                format!("{instance}: idle, may be for another {}", left(until))
            }
            Self::KeptForWaiting { instance } => {
                format!("{instance}: idle beyond its limit, kept because tasks wait")
            }
            Self::OrderAwaited { instance, kind } => format!("{instance}: told to {kind}, no answer yet"),
            Self::DrainRefused { instance, task: Some(task) } => {
                format!("{instance}: refused to drain: it holds task {task}")
            }
            Self::DrainRefused { instance, task: None } => {
                format!("{instance}: refused to drain: it may hold a task")
            }
            Self::OperatorDrain { instance, since: _, awaits } => {
                format!("{instance}: drained by the operator: {}", awaits.in_words())
            }
            Self::OrderRefused { instance, kind, retry_at } => {
                format!("{instance}: refused to {kind}, told again {}", when(*retry_at, now))
            }
            Self::FreshLook { instance } => {
                format!("{instance}: may go once a fresh look shows nothing against it")
            }
            Self::TaskSeen { instance, task } => {
                format!("{instance}: would go, but ClearML shows task {task} on it")
            }
            Self::LostUntil { instance, until } => {
                format!("{instance}: silent, left alone for another {}", left(until))
            }
            Self::Limbo { instance, queue, tasks } => format!(
                "{instance}: would go, but {} of queue {queue} left the queue and started nowhere",
                count(*tasks, "task")
            ),
            Self::OnItsOwn { instance } => {
                format!("{instance}: left to itself: it powers itself off, and there is no way in to tell it")
            }
            Self::OverMaximum { resource, excess } => format!(
                "resource {resource}: {} more than the maximum, to go when idle",
                count(*excess, "instance")
            ),
        }
    }
}

impl Awaits {
    fn in_words(&self) -> String {
        match self {
            Self::Boot => "goes once it has booted".to_owned(),
            Self::Task(Some(task)) => format!("finishes task {task} first, and takes no other"),
            Self::Task(None) => "finishes its task first, and takes no other".to_owned(),
            Self::Sidecar => "its sidecar is silent, it is told when it reports again".to_owned(),
            Self::Itself => {
                "it powers itself off when it is idle, and there is no way in to tell it".to_owned()
            }
        }
    }
}

fn when(instant: Time, now: Time) -> String {
    if instant <= now {
        "as soon as it may be".to_owned()
    } else {
        format!("in {}", in_words(instant.since(now)))
    }
}

fn count(number: u32, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `3 h 5 min`, `12 min 4 s`, `7 s`, `200 ms`: two units at most.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, 0) if duration.subsec_millis() > 0 => format!("{} ms", duration.subsec_millis()),
        (0, 0, _) => format!("{rest} s"),
        (0, _, 0) => format!("{minutes} min"),
        (0, _, _) => format!("{minutes} min {rest} s"),
        (_, 0, _) => format!("{hours} h"),
        _ => format!("{hours} h {minutes} min"),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queues => "queues",
            Self::Workers => "workers",
            Self::Tasks => "tasks",
            Self::Cloud => "EC2 instances",
        })
    }
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "drain",
            Self::Finish => "finish",
            Self::Undrain => "undrain",
            Self::Retire => "retire",
        })
    }
}

impl fmt::Display for TerminateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retired => "retired",
            Self::NeverReady => "never-ready",
            Self::Lost => "lost",
            Self::Orphan => "orphan",
            Self::Shutdown => "shutdown",
        })
    }
}
