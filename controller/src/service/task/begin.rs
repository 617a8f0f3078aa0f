//! The task of a run that an operator starts: the one of the run before, if that has ended, else a new one.

use std::path::Path;

use anyhow::Context as _;
use clearml::{Configurations, Error, NewTask, Others, Parameters, StatusNote, Task, subcode};
use serde_json::Value;

use super::memory::{Memory, MemoryError, Remembered};
use super::parameters::sections;
use super::{Blueprint, KIND, NAME, PROJECT, ServiceTask, StartedBy, client, page};
use crate::cli::BadInput;
use crate::config::clearml::Settings;

/// A task that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The task.
    pub task: ServiceTask,
    /// It is the one of an earlier run.
    pub continued: bool,
    /// Locked while this run lasts.
    _memory: Memory,
}

/// What the task shows of this run.
#[derive(Debug)]
pub struct Shown {
    /// Section `General`.
    pub general: Parameters,
    /// The configuration object `General`.
    pub configurations: Configurations,
    /// Section `Args`.
    pub flags: Vec<(&'static str, Value)>,
    /// What an agent would run, of a clone.
    pub blueprint: Blueprint,
}

/// Makes the task, or continues the one of before, and says that it runs.
///
/// # Errors
/// [`BadInput`] for what an operator must correct, a run with the same state directory included.
pub async fn begin(settings: &Settings, state_dir: &Path, shown: Shown) -> anyhow::Result<Begun> {
    let mut memory = Memory::open(state_dir).await.map_err(|error| match error {
        MemoryError::Running(_) | MemoryError::Failed(..) => BadInput(error.to_string()),
    })?;
    let client = client(settings)?;
    let refused = |error: Error| crate::service::refused(&error);
    let project = client.ensure_project(PROJECT).await.map_err(refused)?;
    let server = settings.api_server.to_string();
    let earlier = match memory.recall(&server) {
        Some(id) => earlier(&client, &id, &project).await.map_err(refused)?,
        None => None,
    };
    let continued = earlier.is_some();
    let Shown { general, configurations, flags, blueprint } = shown;
    let parameters = sections(general, &flags);
    let note = StatusNote { reason: Some("started by an operator"), message: None, force: true };
    let id = match earlier {
        Some(id) => {
            // Only what runs may be edited: the parameters are those of this run.
            client.task_started(&id, &note).await.map_err(refused)?;
            client.edit_parameters(&id, &parameters, Others::DropInSection, true).await.map_err(refused)?;
            client.edit_configurations(&id, &configurations, true).await.map_err(refused)?;
            id
        }
        None => {
            let Blueprint { script, container, artifacts: _ } = blueprint;
            let task = NewTask {
                name: NAME.to_owned(),
                kind: KIND.to_owned(),
                project: Some(project.clone()),
                // As the SDK marks what no agent runs: the server then stops it without asking an agent.
                system_tags: vec!["development".to_owned()],
                script: Some(script),
                container: Some(container),
                hyperparams: parameters,
                configuration: configurations,
                ..NewTask::default()
            };
            let id = client.create_task(&task).await.map_err(refused)?;
            client.task_started(&id, &note).await.map_err(refused)?;
            id
        }
    };
    let page = page(settings, &project, &id);
    memory
        .remember(&Remembered { server, task: id.clone(), page: page.clone() })
        .context("remember the task for the next run")?;
    let task = ServiceTask { id, client, page, started_by: StartedBy::Operator };
    Ok(Begun { task, continued, _memory: memory })
}

/// The task of before, unless it has gone, was put away, or belongs to an agent by now.
async fn earlier(client: &clearml::Client, id: &str, project: &str) -> Result<Option<String>, Error> {
    match client.task(id).await {
        Ok(task) if may_continue(&task, project) => Ok(Some(task.id)),
        Ok(_) => Ok(None),
        Err(error) if error.is_refusal(subcode::NO_SUCH_TASK) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Its lock is ours, so a task that is called running is that of a run which died.
fn may_continue(task: &Task, project: &str) -> bool {
    let alive = ["created", "in_progress", "stopped", "failed", "completed"];
    let status = task.status.as_deref().is_some_and(|status| alive.contains(&status));
    let archived = task.system_tags.iter().any(|tag| tag == "archived");
    status && !archived && task.execution.queue.is_none() && task.project.as_deref() == Some(project)
}
