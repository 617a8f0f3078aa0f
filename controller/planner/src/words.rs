//! Holds and their parts in the words that an operator reads.

use std::fmt;
use std::time::Duration;

use crate::hold::{Awaits, Hold, TaskHold, Trouble};
use crate::ids::{InstanceId, TaskId, Time};
use crate::plan::{OrderKind, TerminateReason};
use crate::policy::ShutdownAction;
use crate::snapshot::Source;
use crate::task::{PutBack, TaskStep};

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
            Self::Task { task, trouble, why } => {
                format!("task {task} {}: left alone: {}", trouble_in_words(trouble), why_in_words(why, now))
            }
            Self::TaskTwice { task, instances } => {
                let names: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                format!(
                    "task {task} is held by {} at once: one run of it must be stopped by hand",
                    names.join(" and ")
                )
            }
            Self::TasksNextPass { count: more } => {
                format!("{} more to be taken care of with the next pass", count(*more, "task"))
            }
            Self::Noticed { instance, until } => {
                format!("{instance}: AWS takes it back {}: it takes no more tasks", when(*until, now))
            }
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

impl TaskStep {
    /// What is done with which task.
    pub fn describe(&self, task: &TaskId) -> String {
        match self {
            Self::Note { cause, instance, aborting: _ } => {
                format!("mark task {task} as interrupted on {instance} ({cause})")
            }
            Self::Abort => format!("ask task {task} to stop: its abort callback runs"),
            Self::Stop { cause, instance, as_asked: false } => {
                format!("stop task {task}: {}", cause.in_words(instance))
            }
            Self::Stop { cause, instance, as_asked: true } => {
                format!("stop task {task} as its user asked: {}", cause.in_words(instance))
            }
            Self::Claim { attempt, .. } => format!("count attempt {attempt} of task {task}"),
            Self::Reset => format!("reset task {task}"),
            Self::Enqueue { queue, why: PutBack::Limbo } => {
                format!("put task {task} back into queue {queue}, first: it left it and started nowhere")
            }
            Self::Enqueue { queue, why: PutBack::Interrupted(cause) } => {
                format!("put task {task} back into queue {queue}, first: it was interrupted ({cause})")
            }
            Self::Release { attempts } => {
                format!("take the mark off task {task}, put back {attempts} times so far")
            }
        }
    }
}

fn trouble_in_words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Limbo(queue) => format!("left queue {queue} and started nowhere"),
        Trouble::Gone(instance) => format!("is in progress on {instance}, which is gone"),
        Trouble::Stranded(instance) => format!("is in progress on {instance}, which does not run it"),
        Trouble::Noticed(instance) => format!("is in progress on {instance}, which AWS takes back"),
        Trouble::Interrupted(cause) => format!("was interrupted ({cause})"),
    }
}

fn why_in_words(why: &TaskHold, now: Time) -> String {
    match why {
        TaskHold::Until(until) => format!("looked at again {}", when(*until, now)),
        TaskHold::FreshLook => "a fresh look is under way".to_owned(),
        TaskHold::Paused(until) => format!("tried again {}", when(*until, now)),
        TaskHold::HeldBy(instance) => format!("{instance} holds it"),
        TaskHold::ListedOn(worker) => format!("worker {worker} reports it"),
        TaskHold::MayBeOn(instance) => format!("{instance} may have it, and can't be asked"),
        TaskHold::OtherWorkers(worker) => {
            format!("worker {worker}, which is not ours, serves the queue and may have it")
        }
        TaskHold::ChangedSince => "its status changed after the loss: it may run elsewhere".to_owned(),
        TaskHold::Alive => "it gives signs of life, and this run has never seen its machine".to_owned(),
        TaskHold::ClockUnknown => "how the server's clock stands to ours is not known".to_owned(),
        TaskHold::QueueUnknown => "its queue is not on the server's list, or not in the budget".to_owned(),
        TaskHold::NotGoneYet(instance) => format!("{instance} must be proven gone first"),
        TaskHold::RunsOn(until) => format!("it goes on until the machine goes, {}", when(*until, now)),
        TaskHold::Twice => "two instances hold it".to_owned(),
        TaskHold::LeaseLost => "another autoscaler holds the worker prefix".to_owned(),
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
