//! The addresses and keys of one fleet: how the controller reaches ClearML and EC2, and how instances
//! reach the controller.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use planner::SidecarMode;
use reqwest::header::{HeaderMap, HeaderValue};

use super::boot_scripts::AgentSetups;
use crate::boot::{self, Bootstrap, Standalone};
use crate::cli::BadInput;
use crate::config::{self, Config, Credentials};
use crate::gateway::Gateway;
use crate::http;
use crate::live::UserData;

/// The metadata service is one hop away, or not there at all.
const IMDS_PATIENCE: Duration = Duration::from_secs(1);
const IMDS: &str = "http://169.254.169.254";

/// Whose rights EC2 is asked with, and where.
pub(crate) fn ec2_settings(
    config: &Config,
    endpoint: Option<String>,
    keys: Option<ec2::Keys>,
) -> ec2::Settings {
    let of_file = match &config.aws.credentials {
        Credentials::Chain => None,
        Credentials::Keys { access_key, secret_key, session_token } => Some(ec2::Keys {
            key: secrecy::ExposeSecret::expose_secret(access_key).to_owned(),
            secret: secret_key.clone(),
            token: session_token.clone(),
        }),
    };
    ec2::Settings { region: config.aws.region.clone(), endpoint, keys: keys.or(of_file) }
}

/// ClearML's servers, as instances reach them; an empty one is not known.
#[derive(Clone)]
pub(crate) struct AgentAddresses {
    pub(crate) api: String,
    pub(crate) web: String,
    pub(crate) files: String,
}

/// `agent_*_server` where they are set, else the controller's own.
pub(crate) fn agent_addresses(config: &Config, settings: &config::clearml::Settings) -> AgentAddresses {
    let config::AgentServers { api, web, files } = config.agent_servers.clone();
    AgentAddresses {
        api: api.unwrap_or_else(|| settings.api_server.to_string()),
        web: web.or_else(|| settings.web_server.clone()).unwrap_or_default(),
        files: files.or_else(|| settings.files_server.clone()).unwrap_or_default(),
    }
}

/// How instances reach the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    host: String,
    /// `None`: the port that the gateway listens on.
    port: Option<u16>,
}

impl Reach {
    /// From `advertise_address`, or from this machine's own address in EC2; `None` without sidecars.
    ///
    /// # Errors
    /// If sidecars are required and nothing says how.
    pub(crate) fn of(
        config: &Config,
        mode: SidecarMode,
        own: Option<IpAddr>,
    ) -> Result<Option<Self>, BadInput> {
        match (mode, &config.advertise, own) {
            (SidecarMode::Off, _, _) => Ok(None),
            (SidecarMode::Required, Some(advertise), _) => {
                Ok(Some(Self { host: advertise.host.clone(), port: advertise.port }))
            }
            (SidecarMode::Required, None, Some(own)) => Ok(Some(Self { host: own.to_string(), port: None })),
            (SidecarMode::Required, None, None) => Err(BadInput(format!(
                "{}: hyper_params.advertise_address: sidecar is required and this machine is not in EC2: \
                 give the host name or address by which instances reach port {} of this machine",
                config.file.display(),
                config.listen.port()
            ))),
        }
    }

    /// The host that instances dial.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port that instances dial, of a gateway that listens on this port.
    pub(crate) fn port(&self, listening: u16) -> u16 {
        self.port.unwrap_or(listening)
    }

    /// `https://HOST:PORT`, of a gateway that listens on this port.
    pub(crate) fn url(&self, listening: u16) -> String {
        let port = self.port(listening);
        if self.host.contains(':') {
            format!("https://[{}]:{port}", self.host)
        } else {
            format!("https://{}:{port}", self.host)
        }
    }
}

/// The private address of the EC2 instance that this runs on; `None` elsewhere.
pub(crate) async fn runs_on_ec2() -> Option<IpAddr> {
    let base = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|_| IMDS.to_owned());
    let client = http::client(IMDS_PATIENCE).build().ok()?;
    let mut lifetime = HeaderMap::new();
    lifetime.insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static("60"));
    let token = client.put(format!("{base}/latest/api/token")).headers(lifetime).send().await.ok()?;
    let token = token.error_for_status().ok()?.text().await.ok()?;
    let address = client
        .get(format!("{base}/latest/meta-data/local-ipv4"))
        .header("x-aws-ec2-metadata-token", token)
        .send()
        .await
        .ok()?;
    address.error_for_status().ok()?.text().await.ok()?.trim().parse().ok()
}

/// What instances run first: the bootstrap that fetches the sidecar, or everything where there is no way in.
///
/// # Errors
/// All resources whose user data EC2 would not take.
pub(crate) fn user_data(
    config: &Arc<Config>,
    setups: &Arc<AgentSetups>,
    gateway: Option<(&Gateway, &Reach)>,
) -> Result<UserData, BadInput> {
    let max_spin_up = config.max_spin_up;
    let Some((gateway, reach)) = gateway else {
        let (config, setups) = (Arc::clone(config), Arc::clone(setups));
        let max_idle = config.max_idle;
        let prefix = config.prefix.clone();
        let make: UserData = Box::new(move |resource, launch, _secret| {
            let standalone = Standalone {
                setup: &setups.of(resource),
                worker_prefix: &format!("{prefix}:{}:{}", resource.name, resource.instance_type),
                queue: &launch.queue,
                max_spin_up,
                max_idle,
            };
            boot::standalone_user_data(&standalone).map_err(|error| error.to_string())
        });
        fits(&config, &make)?;
        return Ok(make);
    };
    let pin = gateway.pin().to_owned();
    let sidecars = gateway.artifacts().hashes();
    let url = reach.url(gateway.local_addr().port());
    Ok(Box::new(move |_resource, launch, secret| {
        let bootstrap = Bootstrap {
            controller: &url,
            pin: &pin,
            launch_secret: secret,
            intent: &launch.intent,
            sidecars: &sidecars,
            max_spin_up,
        };
        boot::user_data(&bootstrap).map_err(|error| error.to_string())
    }))
}

/// User data that carries everything depends on the configuration alone: too long is known before anything runs.
fn fits(config: &Config, make: &UserData) -> Result<(), BadInput> {
    let size = |resource: &config::Resource| {
        let pool = config.pools.iter().find(|pool| pool.resource == resource.name);
        let launch = engine::ports::Launch {
            intent: planner::IntentId::from("0-0"),
            resource: resource.name.clone(),
            queue: pool.map_or_else(|| "queue".into(), |pool| pool.queue.clone()),
            offering: planner::Offering {
                instance_type: resource.instance_type.clone(),
                placement: resource.placement.clone(),
                market: resource.market,
            },
            count: 1,
            token: planner::ClientToken::from("0"),
        };
        match make(resource, &launch, &[0; 32]) {
            Ok(user_data) => user_data.len(),
            Err(_) => usize::MAX,
        }
    };
    config.check_user_data(size).map_err(|faults| BadInput(faults.to_string()))
}
