//! A run that an agent started: its whole configuration is in its task.

use super::parameters::GENERAL;
use super::{ServiceTask, StartedBy, check_api_server, client, page};
use crate::config::clearml::Settings;
use crate::config::task_origin;
use crate::service::{Input, Source, SourceError};

/// The task that an agent named.
///
/// # Errors
/// If ClearML does not answer, or has no such task.
pub async fn taken(settings: &Settings, id: &str) -> Result<ServiceTask, TakeError> {
    let client = client(settings)?;
    let project = client.task(id).await?.project;
    let page = page(settings, project.as_deref().unwrap_or("*"), id);
    Ok(ServiceTask { id: id.to_owned(), client, page, started_by: StartedBy::Agent })
}

/// A task could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// No client could be made.
    #[error(transparent)]
    Client(#[from] clearml::BuildError),
    /// ClearML refused, or did not answer.
    #[error(transparent)]
    ClearMl(#[from] clearml::Error),
}

impl TakeError {
    /// Whether it may work later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(_) => false,
            Self::ClearMl(error) => error.is_transient(),
        }
    }
}

/// The configuration that a task holds. An address of ClearML's that only this machine knows is a fault of it,
/// since no instance could work with it.
///
/// # Errors
/// Every fault, with the parameter's name.
pub async fn configured(
    task: &ServiceTask,
    settings: Settings,
    env: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Input, ConfigureError> {
    let source = Source::Task(task.id.clone());
    let (document, config) = source.read(&task.client, env).await?;
    check_api_server(config.agent_servers.api.as_deref(), &settings.api_server.to_string()).map_err(
        |fault| {
            ConfigureError::Unreachable(format!("{}: {GENERAL}/{fault}", task_origin(&task.id).display()))
        },
    )?;
    Ok(Input::new(source, document, config, settings, env))
}

/// A task's configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It holds faults, or ClearML does not give it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Instances would not reach ClearML.
    #[error("{0}")]
    Unreachable(String),
}
