//! Life as a service: keeps the task alive on the server, and ends the run when its user aborts it.
//!
//! The abort protocol is ClearML's: the task's runtime says that this program ends by itself, `stopping` in
//! its status message is the wish that it does, and a mark in the runtime says that it has. An outage of
//! the server ends nothing and hangs nothing: what fails is tried again.

mod properties;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use clearml::{Error, StatusNote, Task, TaskQuery};
use planner::ShutdownAction;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::properties::Properties;
use self::verdict::{Verdict, Watch};
use super::report::Logging;
use super::report::outage::Outage;
use super::task::{ServiceTask, StartedBy};

/// How long whoever aborts may have to wait, in seconds: calls in flight, instances to end, the last report.
const ABORT_TIMEOUT: u32 = 180;
/// What is read of the task.
const FIELDS: &[&str] = &["status", "status_message", "hyperparams"];
/// The last words are tried for so long.
const LAST_WORDS: Duration = Duration::from_secs(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// An agent looks at its task every 5 s; one that finds the program ended before it has seen the abort
/// takes the task for completed.
const AGENT_LOOKS_WITHIN: Duration = Duration::from_secs(7);

/// How often the server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// About so often the task is looked at.
    pub look: Duration,
    /// About so often the server is told that the task lives.
    pub ping: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look: Duration::from_millis(2500), ping: Duration::from_secs(60) }
    }
}

/// Lives as the task does.
pub struct Life {
    task: ServiceTask,
    action: watch::Receiver<ShutdownAction>,
    ended: watch::Receiver<Option<String>>,
    looking: JoinHandle<()>,
    pinging: JoinHandle<()>,
}

impl Life {
    /// Begins to ping and to follow the task, which must be in progress. `action` is the default of the
    /// user property `shutdown_action`.
    pub fn begin(task: &ServiceTask, action: ShutdownAction, logging: &Logging) -> Self {
        Self::begin_at(Pace::default(), task, action, logging)
    }

    /// The same, as often as `pace` says.
    pub fn begin_at(pace: Pace, task: &ServiceTask, action: ShutdownAction, logging: &Logging) -> Self {
        let (set_action, action_now) = watch::channel(action);
        let (end, ended) = watch::channel(None);
        let properties = Properties::new(action, set_action, logging.clone());
        let looking = tokio::spawn(look(task.clone(), pace, properties, end));
        let pinging = tokio::spawn(ping(task.clone(), pace));
        Self { task: task.clone(), action: action_now, ended, looking, pinging }
    }

    /// Resolves when the user has aborted the task, or ended it otherwise, with what to do about the fleet.
    pub async fn aborted(&mut self) -> ShutdownAction {
        if self.ended.wait_for(Option::is_some).await.is_err() {
            // The watch has ended without a verdict, by a fault of ours: the autoscaler goes on.
            std::future::pending::<()>().await;
        }
        self.shutdown_action()
    }

    /// What is to be done about the fleet when this run ends, as its user wants it now.
    pub fn shutdown_action(&self) -> ShutdownAction {
        *self.action.borrow()
    }

    /// Leaves the task stopped, and says that the abort is done. `reason` is for whoever reads the task's
    /// page. What the server does not take within 20 s is left.
    pub async fn end(self, reason: &str) {
        self.looking.abort();
        self.pinging.abort();
        let task = &self.task;
        let aborted = self.ended.borrow().is_some();
        let words = async {
            insist(|| stop(task, reason)).await;
            // Only now: an agent ends what is left of the program as soon as it reads it.
            if aborted {
                let completed = completed();
                insist(|| task.client.set_runtime(&task.id, &completed)).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, words).await.is_err() {
            tracing::warn!("the server could not be told that the task is stopped");
        }
        if aborted && task.started_by == StartedBy::Agent {
            tokio::time::sleep(AGENT_LOOKS_WITHIN).await;
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.looking.abort();
        self.pinging.abort();
    }
}

/// Follows the task until its user ends it.
async fn look(task: ServiceTask, pace: Pace, mut properties: Properties, end: watch::Sender<Option<String>>) {
    let mut outage = Outage::of("following the task in ClearML");
    let mut watch = Watch::default();
    let mut announced = false;
    loop {
        if !announced {
            match task.client.set_runtime(&task.id, &announcement(pace)).await {
                Ok(()) => announced = true,
                Err(error) => outage.failed(&error),
            }
        }
        match read(&task).await {
            Ok(seen) => {
                if announced {
                    outage.over();
                }
                if let Some(seen) = &seen {
                    properties.follow(&task, seen).await;
                }
                match watch.judge(seen.as_ref()) {
                    Verdict::Runs => {}
                    Verdict::Revive => revive(&task).await,
                    Verdict::Ended(how) => {
                        tracing::info!("ending: {how}");
                        end.send_replace(Some(how));
                        return;
                    }
                }
            }
            Err(error) => outage.failed(&error),
        }
        tokio::time::sleep(pace.look.mul_f64(rand::random_range(0.8..1.2))).await;
    }
}

/// `None` if there is no such task.
async fn read(task: &ServiceTask) -> Result<Option<Task>, Error> {
    let query = TaskQuery { id: &[task.id.as_str()], only_fields: FIELDS, ..TaskQuery::default() };
    Ok(task.client.tasks(&query).await?.into_iter().next())
}

/// The server's watchdog took us for dead while we could not reach it.
async fn revive(task: &ServiceTask) {
    let note = StatusNote { reason: Some("the autoscaler is alive"), message: Some(""), force: true };
    match task.client.task_started(&task.id, &note).await {
        Ok(()) => tracing::warn!("the server had stopped the task for its silence: it is in progress again"),
        Err(error) => tracing::debug!("start the task again: {error}"),
    }
}

async fn ping(task: ServiceTask, pace: Pace) {
    loop {
        tokio::time::sleep(pace.ping.mul_f64(rand::random_range(0.9..1.1))).await;
        // An outage is told by whoever looks at the task; the watchdog waits for two hours.
        if let Err(error) = task.client.ping_task(&task.id).await {
            tracing::debug!("ping the task: {error}");
        }
    }
}

/// Stops the task, unless its user ended it in a way of his own.
async fn stop(task: &ServiceTask, reason: &str) -> Result<(), Error> {
    let in_progress = read(task).await?.is_some_and(|seen| seen.status.as_deref() == Some("in_progress"));
    if in_progress {
        let note = StatusNote { reason: Some(reason), message: Some(reason), force: true };
        task.client.task_stopped(&task.id, &note).await?;
    }
    Ok(())
}

/// Until it works or is refused for good.
async fn insist<F: Future<Output = Result<(), Error>>>(attempt: impl Fn() -> F) {
    loop {
        match attempt().await {
            Ok(()) => return,
            Err(error @ Error::Refused { .. }) => {
                tracing::warn!("the task's last words were refused: {error}");
                return;
            }
            Err(
                error @ (Error::Unavailable { .. } | Error::Unauthorized { .. } | Error::Malformed { .. }),
            ) => tracing::debug!("the task's last words: {error}"),
        }
        tokio::time::sleep(LAST_PAUSE).await;
    }
}

/// That this program ends by itself when it is aborted. Values are texts, as ClearML's agent writes them.
fn announcement(pace: Pace) -> Map<String, Value> {
    let every = pace.look.as_secs_f64().ceil().to_string();
    notes([
        ("_abort_callback_timeout", ABORT_TIMEOUT.to_string()),
        ("_abort_poll_freq", every),
        // What an earlier run of the task left there would end this one at once.
        ("_abort_callback_completed", String::new()),
    ])
}

fn completed() -> Map<String, Value> {
    notes([("_abort_callback_completed", "1".to_owned())])
}

fn notes<const N: usize>(notes: [(&str, String); N]) -> Map<String, Value> {
    notes.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}
