//! Workers: agents, and whoever else wants to be listed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::types::{Worker, or_default};

/// A worker that wants to be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration<'a> {
    /// Chosen by the worker.
    pub worker: &'a str,
    /// How long it stays listed without a report; whole seconds.
    pub timeout: Duration,
    /// User tags.
    pub tags: &'a [&'a str],
    /// The ids of the queues that it serves.
    pub queues: &'a [&'a str],
}

impl Client {
    /// The workers that reported within the last `seen` and are still listed, those of every user.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn workers(&self, seen: Duration) -> Result<Vec<Worker>, Error> {
        let query = json!({"last_seen": seen.as_secs()});
        let Listing { workers } = self.call("workers.get_all", &query, Repeat::Always).await?;
        Ok(workers)
    }

    /// Lists a worker. Doing it again sets its register time anew.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register_worker(&self, registration: &Registration<'_>) -> Result<(), Error> {
        let Registration { worker, timeout, tags, queues } = registration;
        let body = json!({"worker": worker, "timeout": timeout.as_secs(), "tags": tags, "queues": queues});
        self.call::<IgnoredAny>("workers.register", &body, Repeat::Always).await?;
        Ok(())
    }

    /// Reports that a worker is there and idle. One that is not listed is registered by that, for the
    /// server's usual 600 s.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn report_worker(&self, worker: &str, queues: &[&str]) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let body = json!({"worker": worker, "timestamp": now, "queues": queues});
        self.call::<IgnoredAny>("workers.status_report", &body, Repeat::Always).await?;
        Ok(())
    }

    /// Removes a worker of this client's user from the list. One that is not there is no fault.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unregister_worker(&self, worker: &str) -> Result<(), Error> {
        self.call::<IgnoredAny>("workers.unregister", &json!({"worker": worker}), Repeat::Always).await?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "or_default")]
    workers: Vec<Worker>,
}
