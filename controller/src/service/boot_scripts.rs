//! What each instance's agent is set up with: ClearML's keys, git, docker, the operator's own lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clearml::Credentials;
use engine::Published;
use planner::{InstanceId, IntentId};
use proto::v1;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fleet::{AgentAddresses, agent_addresses};
use crate::boot::{self, AgentSetup, BootInputs};
use crate::config::{self, Config, Resource};
use crate::gateway::BootScripts;

/// Agents' setups by resource, of one configuration.
pub(crate) struct AgentSetups {
    config: Arc<Config>,
    common: AgentSetup,
}

impl AgentSetups {
    pub(crate) fn new(config: Arc<Config>, settings: &config::clearml::Settings, task: Option<&str>) -> Self {
        let AgentAddresses { api, web, files } = agent_addresses(&config, settings);
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
        Self { config, common }
    }

    /// The setup of a resource's agents.
    pub(crate) fn of(&self, resource: &Resource) -> AgentSetup {
        AgentSetup { cpu_only: resource.cpu_only, ..self.common.clone() }
    }

    fn script(&self, instance: &InstanceId, known: &planner::Instance) -> Option<v1::BootScript> {
        let setup = self.of(self.config.resource(&known.resource)?);
        let inputs = BootInputs { setup: &setup, instance, worker: &known.worker, queue: &known.queue };
        Some(boot::boot_script(&inputs))
    }
}

/// The setups in force, and those that launches of before were made with: an instance boots by the
/// configuration that launched it, whatever came meanwhile.
pub(crate) struct Setups {
    current: Mutex<Arc<AgentSetups>>,
    launched: Mutex<BTreeMap<IntentId, Launched>>,
    fleet: OnceLock<watch::Receiver<Arc<Published>>>,
}

struct Launched {
    by: Arc<AgentSetups>,
    at: Instant,
}

impl Setups {
    pub(crate) fn new(current: Arc<AgentSetups>) -> Self {
        Self { current: Mutex::new(current), launched: Mutex::default(), fleet: OnceLock::new() }
    }

    /// Other setups from now on, for launches to come and for those of earlier runs.
    pub(super) fn set(&self, setups: Arc<AgentSetups>) {
        *lock(&self.current) = setups;
    }

    /// A launch is being made with these.
    pub(super) fn note(&self, intent: &IntentId, by: &Arc<AgentSetups>) {
        let now = Instant::now();
        let mut launched = lock(&self.launched);
        // What has not booted by then is replaced.
        launched.retain(|_, launch| now.duration_since(launch.at) < 2 * launch.by.config.max_spin_up);
        launched.insert(intent.clone(), Launched { by: Arc::clone(by), at: now });
    }

    /// Which instance is of which resource is known to the loop alone.
    pub(crate) fn follow(&self, fleet: watch::Receiver<Arc<Published>>) {
        // A second call would mean a second loop; the first one stays.
        let _ = self.fleet.set(fleet);
    }

    fn of_launch(&self, intent: &IntentId) -> Arc<AgentSetups> {
        let noted = lock(&self.launched).get(intent).map(|launch| Arc::clone(&launch.by));
        noted.unwrap_or_else(|| Arc::clone(&lock(&self.current)))
    }
}

impl BootScripts for Setups {
    fn script(&self, instance: &InstanceId, intent: &IntentId) -> Option<v1::BootScript> {
        let published = self.fleet.get()?.borrow().clone();
        let known = published.snapshot.instances.get(instance)?;
        self.of_launch(intent).script(instance, known)
    }
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn setups(image: &str) -> Arc<AgentSetups> {
        let text = format!(
            "hyper_params: {{default_docker_image: {image}}}\nconfigurations: {{resource_configurations: {{t4: \
             {{instance_type: g4dn.xlarge, ami_id: ami-1}}}}, queues: {{gpu: [[t4, 1]]}}}}"
        );
        let document = config::Document::from_yaml(Path::new("file"), &text).unwrap();
        let config = document.check(Path::new("file"), &|_| None).unwrap();
        let clearml = |name: &str| name.ends_with("_KEY").then(|| "key".to_owned());
        let settings = config::clearml::load(&clearml, None).unwrap();
        Arc::new(AgentSetups::new(Arc::new(config), &settings, None))
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_boots_by_the_configuration_that_launched_it() {
        let (old, new) = (setups("old"), setups("new"));
        let registry = Setups::new(Arc::clone(&old));
        let (before, after) = (IntentId::from("1-1"), IntentId::from("1-2"));
        registry.note(&before, &old);
        registry.set(Arc::clone(&new));
        registry.note(&after, &new);
        let image = |intent: &IntentId| registry.of_launch(intent).common.docker_image.clone();
        assert_eq!((image(&before).as_str(), image(&after).as_str()), ("old", "new"));
        assert_eq!(image(&IntentId::from("0-7")), "new", "of an earlier run");

        tokio::time::advance(3 * new.config.max_spin_up).await;
        registry.note(&IntentId::from("1-3"), &new);
        assert_eq!(image(&before), "new", "it has booted or was replaced by then");
    }
}
