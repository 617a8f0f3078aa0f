//! What happened to instances, told to the log, and the boot logs of those that failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use planner::{InstanceId, Offering, Policy, Pool, ResourceName};
use tokio::task::JoinSet;

use super::observe::News;
use crate::gateway::SessionTable;

/// EC2 shows a console some minutes late: asked so often, with these pauses.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(45);
/// Consoles fetched at once; of more failures at a time the first ones tell enough.
const AT_ONCE: usize = 8;
/// Lines of the budget that are told.
const BUDGET_LINES: usize = 50;
/// Of a console, so much of its end.
const TAIL_LINES: usize = 60;

/// Where the log of an instance's boot is to be had.
#[derive(Clone)]
pub struct BootLogs {
    ec2: ec2::Client,
    sidecars: Option<Arc<SessionTable>>,
}

impl BootLogs {
    /// From EC2's console, unless a sidecar has told more.
    pub(crate) fn new(ec2: ec2::Client, sidecars: Option<Arc<SessionTable>>) -> Self {
        Self { ec2, sidecars }
    }

    /// Whether its sidecar reported the failure with its log: the gateway has told it then.
    fn is_told(&self, instance: &InstanceId) -> bool {
        let detail = self.sidecars.as_ref().and_then(|table| table.detail(instance));
        detail.is_some_and(|detail| detail.boot_failure.is_some())
    }

    async fn tell(self, instance: InstanceId) {
        for attempt in 1..=TRIES {
            match self.ec2.console_output(instance.as_str()).await {
                Ok(Some(text)) if !text.trim().is_empty() => {
                    let tail = tail(&text);
                    tracing::warn!(%instance, tail, "{instance}: the end of its console");
                    return;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%instance, "console output: {error}"),
            }
            if attempt < TRIES {
                tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.8..1.2))).await;
            }
        }
        tracing::info!("{instance}: EC2 has no console output of it");
    }
}

/// The budget and its times, as lines.
fn budget(policy: &Policy) -> Vec<String> {
    let offers = |resource: &ResourceName| {
        let offerings = policy.resources.get(resource).map(|resource| resource.offerings.as_slice());
        let offers: Vec<String> = offerings.unwrap_or_default().iter().map(Offering::to_string).collect();
        offers.join(", else ")
    };
    let mut lines: Vec<String> = policy
        .pools
        .iter()
        .take(BUDGET_LINES)
        .map(|Pool { queue, resource, maximum }| {
            format!("budget: queue {queue}: up to {maximum} of resource {resource} ({})", offers(resource))
        })
        .collect();
    if policy.pools.len() > BUDGET_LINES {
        lines.push(format!("budget: and {} more lines", policy.pools.len() - BUDGET_LINES));
    }
    lines.push(format!(
        "limits: an instance may be idle for {} and take {} to be ready",
        span(policy.max_idle),
        span(policy.max_spin_up)
    ));
    lines
}

/// Tells news, and fetches consoles meanwhile.
pub(super) struct Storyteller {
    boot_logs: BootLogs,
    fetching: JoinSet<()>,
    asked: BTreeSet<InstanceId>,
    policy: Option<Arc<Policy>>,
}

impl Storyteller {
    pub(super) fn new(boot_logs: BootLogs) -> Self {
        Self { boot_logs, fetching: JoinSet::new(), asked: BTreeSet::new(), policy: None }
    }

    /// Tells the budget, once and whenever it is another one.
    pub(super) fn tell_budget(&mut self, policy: &Arc<Policy>) {
        if self.policy.as_ref() != Some(policy) {
            self.policy = Some(Arc::clone(policy));
            budget(policy).iter().for_each(|line| tracing::info!("{line}"));
        }
    }

    pub(super) fn tell(&mut self, news: Vec<News>) {
        for item in news {
            match item {
                News::Ready(id, after) => tracing::info!("{id}: ready, {} after its launch", span(after)),
                News::Working(id, Some(task), Some(waited)) => {
                    tracing::info!("{id}: works on task {task}, which waited {}", span(waited));
                }
                News::Working(id, Some(task), None) => tracing::info!("{id}: works on task {task}"),
                News::Working(id, None, _) => tracing::info!("{id}: may hold a task"),
                News::Finished(id, after) => tracing::info!("{id}: free again, after {}", span(after)),
                News::Gone(id, after) => {
                    tracing::info!("{id}: gone, {} after its launch", span(after));
                    self.asked.remove(&id);
                }
                News::NeverReady(id, attached) => self.tell_failure(id, attached),
            }
        }
    }

    fn tell_failure(&mut self, id: InstanceId, attached: bool) {
        let sidecar = if attached { "its sidecar was there" } else { "no sidecar of it ever attached" };
        tracing::warn!("{id}: goes without ever having been ready: {sidecar}");
        while self.fetching.try_join_next().is_some() {}
        if !self.boot_logs.is_told(&id) && self.fetching.len() < AT_ONCE && self.asked.insert(id.clone()) {
            self.fetching.spawn(self.boot_logs.clone().tell(id));
        }
    }
}

/// The end of a console, without what could move a terminal's cursor.
fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let end = lines[from..].join("\n");
    end.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

/// Two units at most.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, rest) => format!("{rest} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, rest) => format!("{minutes} min {rest} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_cut_at_its_beginning_and_moves_no_cursor() {
        let console: String = (0..100).map(|number| format!("\x1b[2Jline {number}\r\n")).collect();
        let tail = tail(&console);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 99") && !tail.contains(['\x1b', '\r']), "{tail:?}");
    }
}
