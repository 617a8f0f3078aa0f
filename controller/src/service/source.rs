//! Where a run's configuration is written, so that it can be read again.

use std::fmt;
use std::path::PathBuf;

use clearml::Client;

use crate::cli::BadInput;
use crate::config::{self, Config, Document, Faults};

/// The section of parameters, and the configuration object, that a task keeps its configuration in.
const GENERAL: &str = "General";

/// A file or a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// YAML, or JSON by its name.
    File(PathBuf),
    /// The id of a task of this ClearML server.
    Task(String),
}

/// A configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Something in it must be corrected.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The server that has it does not give it.
    #[error(transparent)]
    ClearMl(#[from] clearml::Error),
}

impl Source {
    /// What stands there now, and what it means.
    ///
    /// # Errors
    /// Every fault at once.
    pub async fn read(
        &self,
        clearml: &Client,
        env: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<(Document, Config), SourceError> {
        match self {
            Self::File(path) => Ok(config::load_written(path, env)?),
            Self::Task(id) => {
                let task = clearml.task(id).await?;
                let (parameters, general) = (task.parameters(GENERAL), task.configuration(GENERAL));
                let origin = config::task_origin(id);
                let document =
                    Document::from_task(&parameters, general).map_err(|faults| faults.named(&origin))?;
                let config = document.check(&origin, env)?;
                Ok((document, config))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Task(id) => write!(f, "{}", config::task_origin(id).display()),
        }
    }
}

impl SourceError {
    /// For a command: faults, and what the server refuses, are the operator's to correct.
    pub fn for_operator(self) -> anyhow::Error {
        match &self {
            Self::ClearMl(cause) if cause.is_transient() => self.into(),
            Self::ClearMl(_) | Self::Faults(_) => BadInput(self.to_string()).into(),
        }
    }
}
