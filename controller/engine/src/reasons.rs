//! Why the loop did what it did, in the words of its log: told from the pass that decided it.

use std::time::Duration;

use planner::{InstanceId, OrderKind, TerminateReason, Time};

use crate::ports::Launch;
use crate::publish::Published;

/// `launched 2 spot g4dn.xlarge in us-east-1b for queue gpu (resource t4), where 3 tasks wait: i-1, i-2`.
pub(crate) fn launched(published: &Published, launch: &Launch, instances: &str, count: usize) -> String {
    let asked = launch.count as usize;
    let number = if count == asked { count.to_string() } else { format!("{count} of {asked}") };
    let ids = if instances.is_empty() { String::new() } else { format!(": {instances}") };
    format!(
        "launched {number} {} for queue {} (resource {}){}{ids}",
        launch.offering,
        launch.queue,
        launch.resource,
        waiting(published, &launch.queue).map_or_else(String::new, |waiting| format!(", where {waiting}")),
    )
}

/// `i-1: told to drain: idle for 15 min, and no waiting task needs it`.
pub(crate) fn ordered(published: &Published, id: &InstanceId, kind: OrderKind, at: Time) -> String {
    let policy = &published.policy;
    let Some(instance) = published.snapshot.instances.get(id) else {
        return format!("{id}: told to {kind}");
    };
    let pool = policy.pool(&instance.resource).filter(|pool| pool.queue == instance.queue);
    let asked = published.snapshot.operator.drains.contains_key(id);
    let reason = match (kind, pool) {
        (OrderKind::Drain | OrderKind::Retire, _) if policy.shutdown.is_some() => {
            "the autoscaler ends, and what is idle goes with it".to_owned()
        }
        (OrderKind::Drain | OrderKind::Finish | OrderKind::Retire, _) if asked => {
            "the operator drains it".to_owned()
        }
        (OrderKind::Finish, _) => "it takes no other task".to_owned(),
        (OrderKind::Undrain, _) if instance.finishing => "the operator has taken the drain back".to_owned(),
        (OrderKind::Drain | OrderKind::Retire, None) => {
            format!("the budget has no resource {} for queue {} any more", instance.resource, instance.queue)
        }
        (OrderKind::Drain, Some(pool)) => {
            let idle = at.since(instance.since);
            if idle >= policy.max_idle {
                format!("idle for {}, and no waiting task needs it", span(idle))
            } else {
                format!("resource {} has more instances than its maximum of {}", pool.resource, pool.maximum)
            }
        }
        (OrderKind::Undrain, _) => waiting(published, &instance.queue).map_or_else(
            || format!("queue {} can't be read", instance.queue),
            |waiting| format!("{waiting} in queue {}", instance.queue),
        ),
        (OrderKind::Retire, Some(_)) => "its gate is closed, and no waiting task needs it".to_owned(),
    };
    format!("{id}: told to {kind}: {reason}")
}

/// `terminated i-1, i-2: retired, and nothing shows a task on them`.
pub(crate) fn terminated(published: &Published, instances: &str, reason: TerminateReason) -> String {
    format!("terminated {instances}: {}", why_terminated(published, reason))
}

/// By what right, in words.
pub(crate) fn why_terminated(published: &Published, reason: TerminateReason) -> String {
    match reason {
        TerminateReason::Retired => "retired, and nothing shows a task there".to_owned(),
        TerminateReason::NeverReady => {
            format!("not ready within {} of the launch", span(published.policy.max_spin_up))
        }
        TerminateReason::Orphan => "it has the fleet's tag, and nothing accounts for it".to_owned(),
        TerminateReason::Shutdown => "the operator wants all of them gone".to_owned(),
        TerminateReason::Lost => "lost past its deadline, and nothing shows a task there".to_owned(),
    }
}

/// `3 tasks wait`; `None` if the server does not list the queue.
fn waiting(published: &Published, queue: &planner::QueueName) -> Option<String> {
    let waiting = published.snapshot.queues.get(queue)?.len();
    Some(match waiting {
        1 => "1 task waits".to_owned(),
        _ => format!("{waiting} tasks wait"),
    })
}

/// Two units at most.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, _) => format!("{rest} s"),
        (0, _, 0) => format!("{minutes} min"),
        (0, _, _) => format!("{minutes} min {rest} s"),
        (_, 0, _) => format!("{hours} h"),
        _ => format!("{hours} h {minutes} min"),
    }
}
