//! What belongs to a task and lies elsewhere, on the file server for example.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Client, Repeat};
use crate::error::Error;

/// Something that belongs to a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name, unique in the task for each mode.
    pub key: String,
    /// `custom`, ...
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `input` survives a reset and goes along with a clone, and deleting the task leaves the file alone;
    /// `output` does not.
    #[serde(default)]
    pub mode: String,
    /// Where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// SHA-256 in hexadecimal, where it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_size: Option<u64>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
}

impl Client {
    /// Registers artifacts on a task, in place of others with their names. `force` is for a task that runs.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn add_artifacts(&self, task: &str, artifacts: &[Artifact], force: bool) -> Result<(), Error> {
        let edit = json!({"task": task, "artifacts": artifacts, "force": force});
        self.call::<IgnoredAny>("tasks.add_or_update_artifacts", &edit, Repeat::Always).await?;
        Ok(())
    }
}
