//! `--remote`: the autoscaler as a task for an agent in services mode, with everything that it needs to run there.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clearml::{Client, Error};
use serde_json::{Value, json};

use super::service::{TaskOptions, announcement, checked, settings, upload};
use super::{BadInput, print};
use crate::config::Document;
use crate::config::SidecarSetting;
use crate::service::refused;
use crate::service::task::{self, ContainerOptions, SidecarsMissing};

/// The server forgets a worker that was silent for longer.
const WORKER_SILENCE: Duration = Duration::from_secs(600);

/// Where and how the task is to run.
#[derive(Clone, Copy, Debug)]
pub struct Remotely<'a> {
    /// The queue of an agent in services mode.
    pub queue: &'a str,
    pub task: &'a TaskOptions,
    pub container: &'a ContainerOptions,
}

/// Makes the task and enqueues it.
///
/// # Errors
/// [`BadInput`] for what the operator must correct.
pub async fn remote(mut document: Document, file: &Path, remotely: Remotely<'_>) -> anyhow::Result<ExitCode> {
    let Remotely { queue, task: how, container } = remotely;
    let settings = settings()?;
    let unreachable = |fault: String| BadInput(format!("{}: hyper_params.{fault}", file.display()));
    let mut warnings = task::fill_agent_servers(&mut document, &settings).map_err(unreachable)?;
    let (config, settings) = checked(&document, file)?;
    if config.advertise.is_none() && config.sidecar != SidecarSetting::Off {
        let why = "is not set, and this machine does not know how instances will reach the one that the agent runs \
                   on: set it, or give --advertise-address; or set sidecar: off, and instances judge for themselves";
        return Err(unreachable(format!("advertise_address: {why}")).into());
    }
    // Of this machine; where the task runs, they lie beside the controller.
    document.hyper_params.remove("sidecar_dir");
    warnings.extend(config.warnings.iter().cloned());
    let (general, remarks) = task::parameters(&document, how.secrets());
    for warning in warnings.iter().chain(&remarks) {
        tracing::warn!("{warning}");
    }

    let client = task::client(&settings)?;
    client.login().await.map_err(|error| refused(&error))?;
    let blueprint = upload(&client, &settings, &config, container, SidecarsMissing::Refuse).await?;
    let flags = [
        ("run", json!(false)),
        ("remote", json!(true)),
        ("config_file", json!(file.display().to_string())),
        ("queue", json!(queue)),
        ("store_secrets", json!(how.store_secrets)),
        ("image", container.image.as_deref().map_or(Value::Null, Value::from)),
    ];
    let task = task::create(&client, &settings, general, task::general(&document), &flags, blueprint).await?;
    print(&announcement(&task, Some(false)))?;
    let (queue_id, served) = enqueue(&client, &task.id, queue).await.map_err(|error| refused(&error))?;
    tracing::info!(task = task.id, queue, queue_id, "enqueued");
    print(&enqueued(queue, served))?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the task into the queue; tells its id and whether an agent serves it.
async fn enqueue(client: &Client, task: &str, queue: &str) -> Result<(String, bool), Error> {
    let ids = client.ensure_queues(&[queue]).await?;
    let id = ids.get(queue).cloned().unwrap_or_default();
    let note = clearml::StatusNote { reason: Some("enqueued by --remote"), message: None, force: false };
    client.enqueue_task(task, &id, &note).await?;
    let workers = client.workers(WORKER_SILENCE).await?;
    let served = workers.iter().any(|worker| worker.queues.iter().any(|served| served.id == id));
    Ok((id, served))
}

fn enqueued(queue: &str, served: bool) -> String {
    let mut text = format!("Enqueued to queue {queue}\n");
    if !served {
        text.push_str(&format!(
            "No agent serves queue {queue} now. Start one on a machine that instances can reach:\n  \
             clearml-agent daemon --services-mode --queue {queue} --docker --detached\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_an_agent_is_told_with_the_remedy() {
        assert_eq!(enqueued("services", true), "Enqueued to queue services\n");
        assert!(enqueued("mine", false).contains("--queue mine"));
    }
}
