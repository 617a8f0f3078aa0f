//! What goes over the admin socket besides the status. No field ever holds a secret.

use serde::{Deserialize, Serialize};

use crate::config::{Change, Sealed};

/// The answer to `GET /configuration?digest_key=KEY`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InUse {
    /// The file or the task that it was read from.
    pub source: String,
    /// Key by key; secrets are digests by the asker's key.
    pub keys: Sealed,
}

/// The answer to `POST /reload` when the configuration was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file or the task that was read.
    pub source: String,
    /// What is different now.
    pub changes: Vec<Change>,
    /// What an operator should know though nothing is wrong enough to refuse it.
    pub warnings: Vec<String>,
}

/// The answer to `POST /reload` when it was not: 422 if something must be corrected, 503 if it may work later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// One by one.
    pub faults: Vec<String>,
}

/// The query of `GET /history` and `GET /costs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Since {
    /// So far back from now, in milliseconds.
    pub(super) past_ms: u64,
    /// At most so many events.
    pub(super) limit: Option<u32>,
}

/// Of the query of `GET /configuration`.
#[derive(Deserialize)]
pub(super) struct DigestKey {
    /// Any text; the asker keeps it.
    pub(super) digest_key: String,
}
