//! Another configuration for a run that goes on: read again where it is written, judged, and put into force
//! as a whole, or refused as a whole.

use std::sync::{Arc, Mutex, PoisonError};

use clearml::Client;

use super::assembly::{Assembly, InForce};
use super::source::{Source, SourceError};
use crate::admin::{InUse, Reloaded};
use crate::config::{Config, Document, Faults, Sealed, Variables};

/// Reads a run's configuration again.
pub struct Reloader {
    pub(super) source: Source,
    pub(super) variables: Variables,
    pub(super) clearml: Client,
    pub(super) runs_on_ec2: bool,
    pub(super) assembly: Assembly,
    pub(super) in_force: InForce,
    pub(super) running: Mutex<Running>,
    /// One at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What a run goes by.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) document: Document,
    pub(super) config: Arc<Config>,
}

/// The old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Something must be corrected.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// ClearML did not give the task, or did not make a queue.
    #[error(transparent)]
    ClearMl(#[from] clearml::Error),
}

impl From<SourceError> for ReloadError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Faults(faults) => Self::Faults(faults),
            SourceError::ClearMl(error) => Self::ClearMl(error),
        }
    }
}

impl Reloader {
    /// Takes what the file or the task says now. Queues that are new are made first.
    ///
    /// # Errors
    /// All faults at once; nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        let outcome = self.take().await;
        match &outcome {
            Ok(Reloaded { source, changes, warnings }) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                for change in changes {
                    tracing::info!("{change}");
                }
                tracing::info!(source, changes = changes.len(), "configuration reloaded");
            }
            Err(error) => {
                tracing::warn!("the configuration stays as it was: {error}");
            }
        }
        outcome
    }

    /// What is in force, secrets as digests by this key.
    pub fn in_use(&self, key: &[u8]) -> InUse {
        InUse { source: self.source.to_string(), keys: Sealed::of(&self.running().document, key) }
    }

    async fn take(&self) -> Result<Reloaded, ReloadError> {
        let env = |name: &str| self.variables.get(name);
        let (document, config) = self.source.read(&self.clearml, &env).await?;
        let before = self.running();
        before.config.check_change(&config, self.runs_on_ec2)?;
        let changes = changes(&before.document, &document);
        let warnings = config.warnings.clone();
        let config = Arc::new(config);
        let parts = self.assembly.parts(&config)?;
        let queues: Vec<&str> = config.pools.iter().map(|pool| pool.queue.as_str()).collect();
        self.clearml.ensure_queues(&queues).await?;
        self.in_force.set(parts);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Running { document, config };
        Ok(Reloaded { source: self.source.to_string(), changes, warnings })
    }

    pub(super) fn running(&self) -> Running {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Digests for this one comparison only.
fn changes(before: &Document, after: &Document) -> Vec<crate::config::Change> {
    let key: [u8; 32] = rand::random();
    Sealed::of(before, &key).changes(&Sealed::of(after, &key))
}
