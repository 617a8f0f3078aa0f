//! What each instance's agent is set up with: ClearML's keys, git, docker, the operator's own lines.

use std::sync::{Arc, OnceLock};

use clearml::Credentials;
use engine::Published;
use planner::{InstanceId, IntentId};
use proto::v1;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;

use super::fleet::AgentAddresses;
use crate::boot::{self, AgentSetup, BootInputs};
use crate::config::{self, Config, Resource};
use crate::gateway::BootScripts;

/// Agents' setups by resource.
pub(super) struct AgentSetups {
    config: Arc<Config>,
    common: AgentSetup,
    fleet: OnceLock<watch::Receiver<Arc<Published>>>,
}

impl AgentSetups {
    pub(super) fn new(
        config: Arc<Config>,
        settings: &config::clearml::Settings,
        addresses: AgentAddresses,
        task: Option<&str>,
    ) -> Self {
        let AgentAddresses { api, web, files } = addresses;
        let (access_key, secret_key, auth_token) = match &settings.credentials {
            Credentials::Keys { access, secret } => {
                (access.expose_secret().to_owned(), secret.expose_secret().to_owned(), String::new())
            }
            Credentials::Token(token) => (String::new(), String::new(), token.expose_secret().to_owned()),
        };
        let git_pass = config.git.password.as_ref().map(|password| password.expose_secret().to_owned());
        let common = AgentSetup {
            api_server: api,
            web_server: web,
            files_server: files,
            access_key,
            secret_key,
            auth_token,
            git_user: config.git.user.clone().unwrap_or_default(),
            git_pass: git_pass.unwrap_or_default(),
            extra_clearml_conf: config.extra_clearml_conf.clone(),
            extra_vm_bash_script: config.extra_vm_bash_script.clone(),
            docker_image: config.docker_image.clone().unwrap_or_default(),
            worker_tag: task.map(|task| format!("autoscaler:{task}")).unwrap_or_default(),
            ..AgentSetup::default()
        };
        Self { config, common, fleet: OnceLock::new() }
    }

    /// The setup of a resource's agents.
    pub(super) fn of(&self, resource: &Resource) -> AgentSetup {
        AgentSetup { cpu_only: resource.cpu_only, ..self.common.clone() }
    }

    /// Which instance is of which resource is known to the loop alone.
    pub(super) fn follow(&self, fleet: watch::Receiver<Arc<Published>>) {
        // A second call would mean a second loop; the first one stays.
        let _ = self.fleet.set(fleet);
    }
}

impl BootScripts for AgentSetups {
    fn script(&self, instance: &InstanceId, _intent: &IntentId) -> Option<v1::BootScript> {
        let published = self.fleet.get()?.borrow().clone();
        let known = published.snapshot.instances.get(instance)?;
        let resource = self.config.resource(&known.resource)?;
        let setup = self.of(resource);
        let inputs = BootInputs { setup: &setup, instance, worker: &known.worker, queue: &known.queue };
        Some(boot::boot_script(&inputs))
    }
}
