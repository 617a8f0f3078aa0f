//! What every command needs before it can look at anything: both servers contacted, the fleet's name, how
//! instances are reached, and what a run's parts are put together from.

use std::sync::{Arc, Mutex};

use clearml::ServerInfo;
use planner::{FleetId, SidecarMode};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use super::artifacts::sidecar_dir;
use super::assembly::{Assembly, InForce};
use super::boot_scripts::Setups;
use super::fleet::{Door, Reach, runs_on_ec2};
use super::input::Input;
use super::reload::{Reloader, Running};
use super::source::Source;
use crate::cli::BadInput;
use crate::config::{self, Config, Document, Variables};
use crate::gateway::Gateway;

/// What every command needs before it can look at anything.
pub(super) struct Foundation {
    pub(super) source: Source,
    pub(super) document: Document,
    pub(super) config: Arc<Config>,
    pub(super) variables: Variables,
    pub(super) settings: config::clearml::Settings,
    pub(super) clearml: clearml::Client,
    pub(super) server: ServerInfo,
    pub(super) ec2: ec2::Client,
    pub(super) fleet: FleetId,
    pub(super) mode: SidecarMode,
    pub(super) runs_on_ec2: bool,
    pub(super) reach: Option<Reach>,
    pub(super) task: Option<String>,
    pub(super) secrets: Vec<SecretString>,
}

impl Foundation {
    /// Contacts ClearML and EC2.
    pub(super) async fn lay(input: Input) -> anyhow::Result<Self> {
        let Input { source, document, config, variables, clearml: settings, aws_endpoint, aws_keys, task } =
            input;
        let secrets = secrets_of(&config, &settings);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let clearml = settings.client()?;
        let server = clearml.login().await.map_err(|error| refused(&error))?;
        let project = clearml.ensure_project("DevOps").await.map_err(|error| refused(&error))?;
        let fleet = fleet_id(&project, &config.prefix);
        let on_ec2 = match (config.sidecar, &config.advertise) {
            (config::SidecarSetting::Off, _) | (_, Some(_)) => None,
            (config::SidecarSetting::Auto | config::SidecarSetting::Required, None) => runs_on_ec2().await,
        };
        let runs_on_ec2 = on_ec2.is_some();
        let (mode, warning) = config.sidecar_mode(runs_on_ec2);
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let reach = Reach::of(&config, mode, on_ec2)?;
        let ec2 = ec2::Client::connect(super::fleet::ec2_settings(&config, aws_endpoint, aws_keys))
            .await
            .map_err(|error| BadInput(error.to_string()))?;
        let config = Arc::new(config);
        Ok(Self {
            source,
            document,
            config,
            variables,
            settings,
            clearml,
            server,
            ec2,
            fleet,
            mode,
            runs_on_ec2,
            reach,
            task,
            secrets,
        })
    }

    pub(super) fn assembly(
        &self,
        gateway: Option<&Gateway>,
        launches: &Arc<Setups>,
    ) -> anyhow::Result<Assembly> {
        let door =
            gateway.zip(self.reach.as_ref()).map(|(gateway, reach)| Arc::new(Door::of(gateway, reach)));
        let sidecars = match gateway {
            Some(gateway) => Some((gateway.artifacts().clone(), sidecar_dir(&self.config)?)),
            None => None,
        };
        Ok(Assembly {
            fleet: self.fleet.clone(),
            task: self.task.clone(),
            mode: self.mode,
            clearml: self.settings.clone(),
            launches: Arc::clone(launches),
            door,
            sidecars,
        })
    }

    pub(super) fn reloader(self, assembly: Assembly, in_force: InForce) -> Reloader {
        Reloader {
            source: self.source,
            variables: self.variables,
            clearml: self.clearml,
            runs_on_ec2: self.runs_on_ec2,
            assembly,
            in_force,
            running: Mutex::new(Running { document: self.document, config: self.config }),
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

/// ClearML's, AWS's and git's secrets, as far as they are known here.
fn secrets_of(config: &Config, settings: &config::clearml::Settings) -> Vec<SecretString> {
    let mut secrets = vec![match &settings.credentials {
        clearml::Credentials::Keys { access: _, secret } => secret.clone(),
        clearml::Credentials::Token(token) => token.clone(),
    }];
    secrets.extend(config.git.password.clone());
    if let config::Credentials::Keys { access_key: _, secret_key, session_token } = &config.aws.credentials {
        secrets.push(secret_key.clone());
        secrets.extend(session_token.clone());
    }
    secrets
}

/// Tells this server's fleet of this prefix from every other in the AWS account.
fn fleet_id(project: &str, prefix: &str) -> FleetId {
    let digest = Sha256::digest(format!("{project}\n{prefix}"));
    FleetId(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// What ClearML refuses an operator must correct; what may work later is no such thing.
pub(crate) fn refused(error: &clearml::Error) -> anyhow::Error {
    if error.is_transient() { anyhow::anyhow!("{error}") } else { BadInput(error.to_string()).into() }
}
