//! What goes over the admin socket besides the status. No field ever holds a secret.

use planner::Pause;
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

/// The answer to any `POST` that was refused: 422 if something must be corrected, 503 if it may work later.
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

/// What `POST /drain` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainRequest {
    /// These.
    Instances {
        /// By EC2's ids.
        instances: Vec<String>,
    },
    /// All that are idle at this moment.
    Idle {
        /// Of this queue alone.
        queue: Option<String>,
        /// Of this resource alone.
        resource: Option<String>,
    },
}

/// The answer to `POST /drain`: which instances are drained now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// By id.
    pub instances: Vec<Drained>,
    /// Whether launches are paused: if not, what tasks need is replaced.
    pub paused: bool,
}

/// An instance that is drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// EC2's id.
    pub instance: String,
    /// What it was when that was asked for, in the words of `status`.
    pub state: String,
    /// What it waits for before it goes.
    #[serde(flatten)]
    pub awaiting: Awaiting,
}

/// What an instance waits for before it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "awaits")]
pub enum Awaiting {
    /// Nothing: it goes at once.
    Nothing,
    /// The end of its boot.
    Boot,
    /// The end of its task.
    Task {
        /// Which, where it is known.
        task: Option<String>,
    },
    /// A word of its sidecar.
    Sidecar,
    /// It goes already.
    Gone,
}

/// What `POST /undrain` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndrainRequest {
    /// By EC2's ids.
    pub instances: Vec<String>,
}

/// The answer to `POST /undrain`: which drains were taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndrainAnswer {
    /// By id.
    pub instances: Vec<Undrained>,
}

/// An instance whose drain was taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undrained {
    /// EC2's id.
    pub instance: String,
    /// What it was when that was asked for.
    pub state: String,
}

/// What `POST /pause` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PauseRequest {
    /// The operator's words, for whoever looks at `status`.
    pub reason: Option<String>,
}

/// The answer to `POST /pause` and `POST /resume`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchesAnswer {
    /// The pause that stands now: its instant in milliseconds since the Unix epoch, and its reason.
    pub paused: Option<Pause>,
    /// Whether it was otherwise before.
    pub changed: bool,
}

/// Of the query of `GET /configuration`.
#[derive(Deserialize)]
pub(super) struct DigestKey {
    /// Any text; the asker keeps it.
    pub(super) digest_key: String,
}
