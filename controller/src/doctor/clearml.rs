//! The ClearML server: address, keys, version, queues, and whether another autoscaler has the prefix.

use std::collections::BTreeSet;
use std::time::Duration;

use clearml::{Client, Error, Options, ServerInfo, Timing};

use super::{Check, limited};
use crate::admin;
use crate::config::{self, Config};
use crate::service::lease::Registry as _;

const SERVER: &str = "clearml.server";
const QUEUES: &str = "clearml.queues";
const LEASE: &str = "clearml.lease";

/// Shorter than a run's own patience, so that its reason is told within a check's limit.
const PATIENCE: Timing = Timing {
    attempt: Duration::from_secs(5),
    overall: Duration::from_secs(10),
    pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(2),
};
/// What this program was tested against.
const TESTED_API: (u32, u32) = (2, 34);

pub(super) async fn examine(config: &Config, settings: &config::clearml::Settings) -> Vec<Check> {
    let options = Options::new(settings.api_server.clone(), settings.credentials.clone());
    let options = Options { trust: settings.trust.clone(), timing: PATIENCE, ..options };
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "see verify_certificate in clearml.conf, and the machine's root certificates";
            return vec![Check::error(SERVER, error.to_string(), remedy)];
        }
    };
    let remedy = "is the server up, and reachable from here?";
    let server = limited(SERVER, remedy, async { server(settings, client.login().await) });
    let queues = limited(QUEUES, remedy, queues(config, &client));
    let lease = limited(LEASE, remedy, lease(config, &client));
    let (server, queues, lease) = tokio::join!(server, queues, lease);
    vec![server, queues, lease]
}

fn server(settings: &config::clearml::Settings, login: Result<ServerInfo, Error>) -> Check {
    let info = match login {
        Ok(info) => info,
        Err(error) => return failed(SERVER, &error),
    };
    let version = info.server_version.as_deref().unwrap_or("unknown");
    let api = info.api_version.as_deref().unwrap_or("unknown");
    let detail = format!(
        "{} answers and takes the keys; server {version}, API {api}; {}",
        settings.api_server, settings.source
    );
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    let mut parts = api.split('.');
    match (number(parts.next()), number(parts.next())) {
        (Some(major), Some(minor)) if (major, minor) < TESTED_API => {
            let (major, minor) = TESTED_API;
            Check::warning(
                SERVER,
                detail,
                format!("this was tested with API {major}.{minor}; consider an update"),
            )
        }
        (Some(_) | None, Some(_) | None) => Check::ok(SERVER, detail),
    }
}

async fn queues(config: &Config, client: &Client) -> Check {
    let listed = match client.queues().await {
        Ok(queues) => queues,
        Err(error) => return failed(QUEUES, &error),
    };
    let wanted: BTreeSet<&str> = config.pools.iter().map(|pool| pool.queue.as_str()).collect();
    let known = |name: &&&str| listed.iter().any(|queue| queue.name.as_deref() == Some(**name));
    let there: Vec<&str> = wanted.iter().filter(known).copied().collect();
    let missing: Vec<&str> = wanted.iter().filter(|name| !known(name)).copied().collect();
    let mut parts = Vec::new();
    if !there.is_empty() {
        parts.push(format!("{} there", there.join(", ")));
    }
    if !missing.is_empty() {
        parts.push(format!("{} to be made at the start", missing.join(", ")));
    }
    Check::ok(QUEUES, parts.join("; "))
}

/// A run of this very configuration may well be there already.
async fn lease(config: &Config, client: &Client) -> Check {
    let entries = match client.list(&format!("{}-autoscaler:", config.prefix)).await {
        Ok(entries) => entries,
        Err(error) => return failed(LEASE, &error),
    };
    let Some(holder) = entries.into_iter().min_by_key(|entry| entry.registered) else {
        return Check::ok(LEASE, format!("nobody runs with workers_prefix {}", config.prefix));
    };
    if admin::ask(&config.state_dir.join(admin::SOCKET)).await.is_ok() {
        return Check::ok(LEASE, format!("{} runs on this machine with this configuration", holder.id));
    }
    let detail =
        format!("{} runs with the same workers_prefix, or has died within the last minute", holder.id);
    Check::error(LEASE, detail, "end that one, or use another workers_prefix")
}

fn failed(name: &str, error: &Error) -> Check {
    let remedy = match error {
        Error::Unavailable { .. } => {
            "is the server up, and reachable from here? the address is CLEARML_API_HOST, or api.api_server in clearml.conf"
        }
        Error::Unauthorized { .. } => {
            "create new credentials in ClearML's web application (settings, workspace) and put them into clearml.conf or \
             the environment"
        }
        Error::Refused { .. } => "see the server's reason",
        Error::Malformed { .. } => {
            "the address must be that of the API server: port 8008, or api.*, and not the web server's"
        }
    };
    Check::error(name, error.to_string(), remedy)
}
