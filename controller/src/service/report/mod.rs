//! What people look at: the console, the curves and the plots of the task that a run is.
//!
//! States come from what the loop publishes, through a pure core ([`observe`]); decisions come from the
//! log, through the console feed ([`feed`]), so that each is written once. A thin sender takes both to
//! ClearML, whenever that answers.

mod curves;
mod feed;
mod logging;
mod observe;
pub(crate) mod outage;
mod outbox;
mod plots;
mod sender;
#[cfg(test)]
mod sending;
mod spend;
mod story;
#[cfg(test)]
mod tests;
mod waits;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use engine::Published;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

pub use feed::{ConsoleFeed, FeedLayer, Line, Taken};
pub use logging::{ConsoleLevel, Logging};
pub use story::BootLogs;

use self::outbox::Outbox;
use self::sender::Sender;
use self::watch::Watcher;
use super::Service;
use super::ledger::Book;
pub use super::ledger::{Hourly, RegionalPrices};
use super::task::{ServiceTask, StartedBy};

/// At the end, what is still to be sent is tried for so long.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Reports a run to its task until it is stopped.
pub struct Reporter {
    last_look: channel::Sender<bool>,
    watching: JoinHandle<()>,
    last_batch: channel::Sender<bool>,
    sending: JoinHandle<()>,
}

/// Reports a running service to its task: from now on its console, curves and plots fill.
pub async fn attach(
    service: &Service,
    task: &ServiceTask,
    logging: &Logging,
    prices: Arc<dyn Hourly>,
) -> Reporter {
    logging.feed().never_tell(service.secrets());
    let first = match task.client.task(&task.id).await {
        // A task that is run again goes on behind what it has.
        Ok(known) => known.last_iteration.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1)),
        Err(error) => {
            tracing::warn!("the curves begin at 0: {error}");
            0
        }
    };
    let book = service.book();
    Reporter::start(task, service.published(), logging, service.boot_logs(), (prices, book), first)
}

impl Reporter {
    /// Begins to report; the curves begin at `first`, the total of what was spent where the book is.
    fn start(
        task: &ServiceTask,
        published: channel::Receiver<Arc<Published>>,
        logging: &Logging,
        boot_logs: BootLogs,
        (prices, book): (Arc<dyn Hourly>, Book),
        first: i64,
    ) -> Self {
        let feed = match task.started_by {
            StartedBy::Operator => {
                logging.feed().open();
                logging.feed()
            }
            // What goes to stdout is sent by the agent: there is nothing to take.
            StartedBy::Agent => {
                logging.speak_to_agent();
                ConsoleFeed::default()
            }
        };
        let worker = format!("{}-autoscaler", published.borrow().policy.prefix);
        let (last_look, told_to_look) = channel::channel(false);
        let (last_batch, told_to_send) = channel::channel(false);
        let outbox = Outbox::default();
        let sender = Sender {
            client: task.client.clone(),
            task: task.id.clone(),
            worker,
            feed,
            outbox: outbox.clone(),
            ending: told_to_send,
        };
        let watcher = Watcher::new(published, outbox, boot_logs, prices, book, first);
        let watching = tokio::spawn(watcher.run(told_to_look));
        Self { last_look, watching, last_batch, sending: tokio::spawn(sender.run()) }
    }

    /// Reports the last state, sends what is left as far as ClearML takes it within 10 s, and ends.
    pub async fn stop(self) {
        let Self { last_look, mut watching, last_batch, mut sending } = self;
        let both = async {
            // A task that panicked has nothing left to say.
            last_look.send_replace(true);
            let _ = (&mut watching).await;
            last_batch.send_replace(true);
            let _ = (&mut sending).await;
        };
        if tokio::time::timeout(LAST_WORDS, both).await.is_err() {
            tracing::warn!("the end of the report did not reach ClearML");
        }
        watching.abort();
        sending.abort();
    }
}
