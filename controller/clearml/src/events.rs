//! Console lines, scalars and plots of a task.

use serde::{Deserialize, Serialize};

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::wire::{Body, Request};

/// Something that a task reports. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Event {
    /// A piece of its console.
    #[serde(rename = "log")]
    Log {
        /// The task's id.
        task: String,
        /// When.
        timestamp: u64,
        /// `info`, `error`, ...
        level: String,
        /// Who.
        worker: String,
        /// What.
        msg: String,
    },
    /// A point of a curve.
    #[serde(rename = "training_stats_scalar")]
    Scalar {
        /// The task's id.
        task: String,
        /// When.
        timestamp: u64,
        /// The point's place.
        iter: i64,
        /// The diagram.
        metric: String,
        /// The curve.
        variant: String,
        /// The point's height; one that is no number is left out, since it would cost the whole batch.
        value: f64,
    },
    /// A diagram of any kind.
    #[serde(rename = "plot")]
    Plot {
        /// The task's id.
        task: String,
        /// When.
        timestamp: u64,
        /// Its place in a series.
        iter: i64,
        /// The diagram.
        metric: String,
        /// Its part.
        variant: String,
        /// Plotly's JSON, as text.
        plot_str: String,
    },
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Added {
    /// Stored.
    #[serde(default)]
    pub added: u64,
    /// Refused, of such tasks as do not exist for example.
    #[serde(default)]
    pub errors: u64,
}

impl Client {
    /// Reports a batch; of some hundred lines, the server's limit being 15 MB. Not repeated once the server
    /// may have seen it, or lines would come twice.
    ///
    /// # Errors
    /// `Refused` if not a single one was stored.
    pub async fn add_events(&self, events: &[Event]) -> Result<Added, Error> {
        const ENDPOINT: &str = "events.add_batch";
        let mut payload = Vec::new();
        for event in events.iter().filter(|event| event.is_sound()) {
            serde_json::to_writer(&mut payload, event).map_err(|error| Error::Malformed {
                endpoint: ENDPOINT,
                reason: format!("an event cannot be written as JSON: {error}"),
            })?;
            payload.push(b'\n');
        }
        if payload.is_empty() {
            return Ok(Added::default());
        }
        self.send(Request { endpoint: ENDPOINT, kind: Body::JsonLines, payload: &payload }, Repeat::Unseen)
            .await
    }
}

impl Event {
    fn is_sound(&self) -> bool {
        match self {
            Self::Scalar { value, .. } => value.is_finite(),
            Self::Log { .. } | Self::Plot { .. } => true,
        }
    }
}
