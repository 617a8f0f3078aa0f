//! The autoscaler as a ClearML task: one that an operator starts (`--run`), or one that an agent took from a
//! queue.

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use planner::ShutdownAction;
use serde_json::json;

use super::{BadInput, complain, env, exit_code, print};
use crate::config::Document;
use crate::config::clearml::Settings;
use crate::config::{self, Config, task_origin};
use crate::service::life::Life;
use crate::service::report::{self, Logging};
use crate::service::task::{
    self, Begun, Binaries, Blueprint, ConfigureError, ContainerOptions, Secrets, ServiceTask, Shown,
    SidecarsMissing,
};
use crate::service::{Input, Service, Source};

/// How a configuration becomes a task.
#[derive(Clone, Debug, Default, Args)]
pub struct TaskOptions {
    /// Write AWS keys and the git password into the task's parameters, where everybody who sees it can read them.
    #[arg(long)]
    pub store_secrets: bool,
}

impl TaskOptions {
    pub(super) fn secrets(&self) -> Secrets {
        if self.store_secrets { Secrets::Stored } else { Secrets::Withheld }
    }
}

/// How a run came to its end, short of an error, and what is to become of the fleet.
enum Ending {
    /// A signal.
    ToldToStop(ShutdownAction),
    /// Its user.
    Aborted(ShutdownAction),
}

/// `--run`: the autoscaler as a task, until it is told to stop.
///
/// # Errors
/// [`BadInput`] for what the operator must correct.
pub async fn run(
    document: &Document,
    file: &Path,
    options: &TaskOptions,
    logging: &Logging,
) -> anyhow::Result<ExitCode> {
    let (config, settings) = checked(document, file)?;
    let container = ContainerOptions::default();
    let shown = shown(document, file, &settings, &config, options, &container);
    // One and the same from here to the end: a signal that comes between two of them would be lost.
    let told = super::stopped();
    tokio::pin!(told);
    let begun = tokio::select! {
        begun = task::begin(&settings, &config.state_dir, shown) => begun?,
        told = &mut told => return told.map(|()| ExitCode::SUCCESS),
    };
    let Begun { task, continued, .. } = &begun;
    let publishing = tokio::spawn(publish(task.clone(), settings.clone(), config.clone(), container));
    let input = Input::new(Source::File(file.to_path_buf()), document.clone(), config, settings, &env);
    let outcome = match print(&announcement(task, Some(*continued))) {
        Ok(()) => serve(task, input, logging, told).await,
        Err(error) => Err(error.into()),
    };
    publishing.abort();
    Ok(conclude(task, outcome).await)
}

/// A run that an agent started: its configuration is the task's.
///
/// # Errors
/// If ClearML can't be asked for the task; afterwards the task itself tells what went wrong.
pub(crate) async fn by_agent(id: &str, logging: &Logging) -> anyhow::Result<ExitCode> {
    let settings = settings()?;
    let task = task::taken(&settings, id)
        .await
        .map_err(|error| {
            if error.is_transient() { error.into() } else { anyhow::Error::from(BadInput(error.to_string())) }
        })
        .with_context(|| format!("read task {id} (CLEARML_TASK_ID)"))?;
    let outcome = async {
        let input = task::configured(&task, settings, &env).await.map_err(for_operator)?;
        print(&announcement(&task, None))?;
        serve(&task, input, logging, std::pin::pin!(super::stopped())).await
    };
    Ok(conclude(&task, outcome.await).await)
}

fn for_operator(error: ConfigureError) -> anyhow::Error {
    match error {
        ConfigureError::Source(error) => error.for_operator(),
        ConfigureError::Unreachable(fault) => BadInput(fault).into(),
    }
}

/// Until it is `told` to stop, its user aborts it, or it fails. The task's page fills meanwhile.
async fn serve(
    task: &ServiceTask,
    mut input: Input,
    logging: &Logging,
    mut told: Pin<&mut impl Future<Output = anyhow::Result<()>>>,
) -> anyhow::Result<Served> {
    let action = input.config.shutdown;
    input.task = Some(task.id.clone());
    let mut life = Life::begin(task, action, logging);
    let service = tokio::select! {
        service = Service::start(input) => service?,
        told = &mut told => return told.map(|()| Served { life, ending: Ending::ToldToStop(action) }),
        action = life.aborted() => return Ok(Served { life, ending: Ending::Aborted(action) }),
    };
    let reporter = report::attach(&service, task, logging, Arc::new(service.prices())).await;
    let mut published = service.published();
    let ended = async { while published.changed().await.is_ok() {} };
    let hangups = super::reload::on_hangup(service.reloader());
    let outcome = tokio::select! {
        told = &mut told => told.map(|()| Ending::ToldToStop(life.shutdown_action())),
        watched = hangups => watched.map(|()| Ending::ToldToStop(life.shutdown_action())),
        action = life.aborted() => Ok(Ending::Aborted(action)),
        () = ended => Err(anyhow::anyhow!("the autoscaler's loop ended by itself")),
    };
    if let Ok(Ending::ToldToStop(action) | Ending::Aborted(action)) = &outcome {
        tracing::info!(task = task.id, shutdown_action = %action, "told to stop");
        super::run::shut_down(&service, *action).await?;
    }
    service.stop().await;
    reporter.stop().await;
    outcome.map(|ending| Served { life, ending })
}

/// A run that is over, and the task's life, which ends last.
struct Served {
    life: Life,
    ending: Ending,
}

/// Tells the task how it ended. An error is told on stderr first: an agent ends this process once the task
/// has failed.
async fn conclude(task: &ServiceTask, outcome: anyhow::Result<Served>) -> ExitCode {
    match outcome {
        Ok(Served { life, ending }) => {
            let reason = match ending {
                Ending::ToldToStop(action) => format!("told to stop; shutdown action: {action}"),
                Ending::Aborted(action) => format!("aborted by its user; shutdown action: {action}"),
            };
            life.end(&reason).await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            let origin = format!("{}: ", task_origin(&task.id).display());
            let reason = format!("{error:#}").replace(&origin, "").replace('\n', "; ");
            task.fail(&reason).await;
            exit_code(&error)
        }
    }
}

/// Makes the task one that an agent can run a clone of. It costs nothing but that if it fails.
async fn publish(task: ServiceTask, settings: Settings, config: Config, container: ContainerOptions) {
    let attempt = async {
        let blueprint = upload(&task.client, &settings, &config, &container, SidecarsMissing::Ignore).await?;
        task::attach(&task, blueprint).await?;
        anyhow::Ok(())
    };
    if let Err(error) = attempt.await {
        tracing::warn!("an agent could not run a clone of this task: {error:#}");
    }
}

/// What an agent runs, with the executables on the file server, or in an image.
pub(super) async fn upload(
    client: &clearml::Client,
    settings: &Settings,
    config: &Config,
    container: &ContainerOptions,
    missing: SidecarsMissing,
) -> anyhow::Result<Blueprint> {
    if container.image.is_some() {
        return Ok(Blueprint::image(container, config));
    }
    let local = config.clone();
    let binaries = tokio::task::spawn_blocking(move || Binaries::gather(&local, missing)).await??;
    let uploads = binaries.upload(client, settings).await?;
    Ok(Blueprint::uploaded(&uploads, container, config))
}

fn shown(
    document: &Document,
    file: &Path,
    settings: &Settings,
    config: &Config,
    options: &TaskOptions,
    container: &ContainerOptions,
) -> Shown {
    let mut document = document.clone();
    // For a clone that an agent runs elsewhere; here nothing depends on it.
    if let Err(reason) = task::fill_agent_servers(&mut document, settings) {
        tracing::debug!("{reason}");
    }
    let (general, remarks) = task::parameters(&document, options.secrets());
    remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
    Shown {
        general,
        configurations: task::general(&document),
        flags: vec![
            ("run", json!(true)),
            ("remote", json!(false)),
            ("config_file", json!(file.display().to_string())),
            ("store_secrets", json!(options.store_secrets)),
        ],
        blueprint: Blueprint::missing(container, config),
    }
}

/// The lines of the script, for people who wait for them; `continued` where this process chose the task.
pub(super) fn announcement(task: &ServiceTask, continued: Option<bool>) -> String {
    let ServiceTask { id, page, .. } = task;
    let begun = match continued {
        Some(true) => format!("CLEARML Task: continuing task id={id}\nCLEARML results page: {page}\n"),
        Some(false) => format!("CLEARML Task: created new task id={id}\nCLEARML results page: {page}\n"),
        None => String::new(),
    };
    format!("{begun}Running AWS auto-scaler as a service\nExecution log {page}\n")
}

/// The configuration and ClearML's settings, or all that is wrong with both.
pub(super) fn checked(document: &Document, file: &Path) -> Result<(Config, Settings), BadInput> {
    match (document.check(file, &env), settings()) {
        (Ok(config), Ok(settings)) => Ok((config, settings)),
        (config, settings) => {
            let faults = [config.err().map(|faults| faults.to_string()), settings.err().map(|it| it.0)];
            Err(BadInput(faults.into_iter().flatten().collect::<Vec<_>>().join("\n")))
        }
    }
}

pub(super) fn settings() -> Result<Settings, BadInput> {
    let home = env("HOME").map(std::path::PathBuf::from);
    config::clearml::load(&env, home.as_deref()).map_err(|faults| BadInput(faults.to_string()))
}
