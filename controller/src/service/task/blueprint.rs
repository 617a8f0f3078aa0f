//! What an agent is given to run: the bootstrap, and the container around it.

use clap::{Args, ValueEnum};
use clearml::{Artifact, Client, Configurations, Container, Error, NewTask, Parameters, Script, TaskEdit};
use serde_json::{Map, Value};

use super::bootstrap::{self, STATE, Source};
use super::parameters::sections;
use super::{KIND, NAME, PROJECT, ServiceTask, StartedBy, Upload, page};
use crate::config::clearml::Settings;
use crate::config::{Config, SidecarSetting};

/// Small, with Python for the agent, which installs itself into it, with root certificates, and with a C library
/// as new as that of most machines that the controller is built on.
const IMAGE: &str = "python:3.13-slim-trixie";
/// The volume that outlives the container, by docker's name for it.
const VOLUME: &str = "clearml-autoscaler-state";

/// The container that an agent starts.
#[derive(Clone, Debug, Default, Args)]
pub struct ContainerOptions {
    /// A container image that has `controller` and the sidecars in its PATH: nothing is uploaded then.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// How instances reach the autoscaler in its container: its port published, or the host's network.
    #[arg(long, value_enum, default_value_t = Network::Publish, value_name = "HOW")]
    pub container_network: Network,
    /// More arguments for `docker run`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub container_args: String,
}

/// How a container is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// `-p PORT:PORT`.
    #[default]
    Publish,
    /// `--network=host`.
    Host,
}

/// What an agent runs.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The bootstrap.
    pub script: Script,
    /// Around it.
    pub container: Container,
    /// What it fetches.
    pub artifacts: Vec<Artifact>,
}

impl Blueprint {
    /// From executables on the file server.
    pub fn uploaded(uploads: &[Upload], options: &ContainerOptions, config: &Config) -> Self {
        let artifacts = uploads.iter().map(Upload::artifact).collect();
        Self::of(Source::Uploaded(uploads), artifacts, options, config)
    }

    /// From an image that has them.
    pub fn image(options: &ContainerOptions, config: &Config) -> Self {
        Self::of(Source::Image, vec![], options, config)
    }

    /// Without them: whoever enqueues the task is told what to do.
    pub fn missing(options: &ContainerOptions, config: &Config) -> Self {
        Self::of(Source::Missing, vec![], options, config)
    }

    fn of(source: Source<'_>, artifacts: Vec<Artifact>, options: &ContainerOptions, config: &Config) -> Self {
        let script = Script {
            binary: "bash".to_owned(),
            repository: String::new(),
            entry_point: "run.sh".to_owned(),
            working_dir: ".".to_owned(),
            diff: bootstrap::script(source),
            requirements: Map::from_iter([("pip".to_owned(), Value::from(""))]),
        };
        Self { script, container: container(options, config), artifacts }
    }
}

fn container(options: &ContainerOptions, config: &Config) -> Container {
    let ContainerOptions { image, container_network, container_args } = options;
    let port = config.listen.port();
    let reached = match (config.sidecar, container_network) {
        (_, Network::Host) => "--network=host".to_owned(),
        (SidecarSetting::Off, Network::Publish) => String::new(),
        (SidecarSetting::Auto | SidecarSetting::Required, Network::Publish) => format!("-p {port}:{port}"),
    };
    let arguments = [reached, format!("-v {VOLUME}:{STATE}"), container_args.trim().to_owned()];
    let arguments: Vec<String> = arguments.into_iter().filter(|part| !part.is_empty()).collect();
    Container {
        image: image.clone().unwrap_or_else(|| IMAGE.to_owned()),
        arguments: arguments.join(" "),
        setup_shell_script: String::new(),
    }
}

/// Makes the task of a run by an agent, a draft in project `DevOps`.
///
/// # Errors
/// If ClearML refuses or does not answer.
pub async fn create(
    client: &Client,
    settings: &Settings,
    general: Parameters,
    configuration: Configurations,
    flags: &[(&str, Value)],
    blueprint: Blueprint,
) -> anyhow::Result<ServiceTask> {
    let Blueprint { script, container, artifacts } = blueprint;
    let refused = |error: Error| crate::service::refused(&error);
    let project = client.ensure_project(PROJECT).await.map_err(refused)?;
    let task = NewTask {
        name: NAME.to_owned(),
        kind: KIND.to_owned(),
        project: Some(project.clone()),
        script: Some(script),
        container: Some(container),
        hyperparams: sections(general, flags),
        configuration,
        ..NewTask::default()
    };
    let id = client.create_task(&task).await.map_err(refused)?;
    client.add_artifacts(&id, &artifacts, false).await.map_err(refused)?;
    let page = page(settings, &project, &id);
    Ok(ServiceTask { id, client: client.clone(), page, started_by: StartedBy::Agent })
}

/// Gives a task that runs what an agent would need to run a clone of it.
///
/// # Errors
/// See [`Error`].
pub async fn attach(task: &ServiceTask, blueprint: Blueprint) -> Result<(), Error> {
    let Blueprint { script, container, artifacts } = blueprint;
    let edit =
        TaskEdit { script: Some(script), container: Some(container), force: true, ..TaskEdit::default() };
    task.client.edit_task(&task.id, &edit).await?;
    task.client.add_artifacts(&task.id, &artifacts, true).await
}
