//! The ClearML task that a run of the autoscaler is.

mod addresses;
mod agent;
mod begin;
mod binaries;
mod blueprint;
mod bootstrap;
mod known;
mod memory;
mod parameters;
mod template;

use std::time::Duration;

use clearml::StatusNote;

pub use addresses::{check_api_server, fill_agent_servers};
pub use agent::{ConfigureError, TakeError, configured, taken};
pub use begin::{Begun, Shown, begin};
pub use binaries::{Binaries, SidecarsMissing, Upload};
pub use blueprint::{Blueprint, ContainerOptions, Network, attach, create};
pub use parameters::{Secrets, general, parameters};
pub use template::{Made, TEMPLATE_PROJECT, make_template, template};

use crate::config;

/// The project of every task that runs.
pub const PROJECT: &str = "DevOps";
/// The name of every one of them, templates included.
pub const NAME: &str = "AWS Auto-Scaler";
/// Their type.
pub const KIND: &str = "service";
/// For a call with all its repetitions: a server that is silent is told of well before half a minute is over.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an agent looks at its task, unless its environment says otherwise.
const AGENT_POLL: Duration = Duration::from_secs(5);
/// What an agent's look may take.
const AGENT_LOOK: Duration = Duration::from_secs(3);

/// The task that this run is.
#[derive(Clone, Debug)]
pub struct ServiceTask {
    /// ClearML's id.
    pub id: String,
    /// Logged in with the rights that the task is reported with.
    pub client: clearml::Client,
    /// The web page of its log.
    pub page: String,
    /// Who started it, and so who fills its console.
    pub started_by: StartedBy,
}

/// Who started the task's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    /// `--run`: the console is filled from here.
    Operator,
    /// An agent sends stdout to the console itself.
    Agent,
}

impl ServiceTask {
    /// Says that it failed, and why: words for the web UI, without a secret. What was logged must be out by
    /// now, as an agent ends this process when it sees the status.
    pub async fn fail(&self, reason: &str) {
        let note = StatusNote { reason: Some(reason), message: Some("the autoscaler failed"), force: true };
        if let Err(error) = self.client.task_failed(&self.id, &note).await {
            tracing::warn!(task = self.id, "the task's failure could not be told to ClearML: {error}");
            return;
        }
        match self.started_by {
            StartedBy::Operator => {}
            // An agent that sees the process end before it sees the status puts its own reason over ours.
            StartedBy::Agent => tokio::time::sleep(agent_patience()).await,
        }
    }
}

/// A client with the patience of a start.
///
/// # Errors
/// As [`clearml::Client::new`].
pub fn client(settings: &config::clearml::Settings) -> Result<clearml::Client, clearml::BuildError> {
    let options = clearml::Options::new(settings.api_server.clone(), settings.credentials.clone());
    let timing = clearml::Timing { overall: PATIENCE, ..clearml::Timing::default() };
    clearml::Client::new(clearml::Options { trust: settings.trust.clone(), timing, ..options })
}

/// The web page of a task's log.
pub(crate) fn page(settings: &config::clearml::Settings, project: &str, task: &str) -> String {
    let path = format!("projects/{project}/experiments/{task}/output/log");
    match &settings.web_server {
        Some(web) => format!("{web}/{path}"),
        None => format!("{path} (on the web server, whose address is not known: set api.web_server)"),
    }
}

/// Long enough for an agent to look at its task twice.
fn agent_patience() -> Duration {
    let set = std::env::var("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC").ok();
    let poll =
        set.and_then(|text| text.parse().ok()).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    2 * poll.unwrap_or(AGENT_POLL).min(AGENT_POLL) + AGENT_LOOK
}
