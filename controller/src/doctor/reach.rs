//! The addresses that instances will use: ClearML's servers as they are told, and the controller's own.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;

use super::{Check, limited};
use crate::admin;
use crate::cli::BadInput;
use crate::config::Config;
use crate::service::fleet::{AgentAddresses, Reach};

const CONTROLLER: &str = "instances.controller";
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Names of ClearML's containers for each other, which nobody else knows.
const CONTAINERS: [&str; 7] = [
    "apiserver",
    "clearml-apiserver",
    "webserver",
    "clearml-webserver",
    "fileserver",
    "clearml-fileserver",
    "host.docker.internal",
];

pub(super) async fn examine(
    config: &Config,
    addresses: &AgentAddresses,
    reach: Result<Option<&Reach>, &BadInput>,
) -> Vec<Check> {
    let AgentAddresses { api, web, files } = addresses;
    let remedy = "is there a name server?";
    let (api, web, files, controller) = tokio::join!(
        limited("instances.api_server", remedy, server("api_server", api)),
        limited("instances.web_server", remedy, server("web_server", web)),
        limited("instances.files_server", remedy, server("files_server", files)),
        limited(CONTROLLER, remedy, controller(config, reach)),
    );
    vec![api, web, files, controller]
}

/// One of ClearML's servers, by the URL that instances get.
async fn server(key: &str, url: &str) -> Check {
    let name = format!("instances.{key}");
    let remedy = format!("set hyper_params.agent_{key} to the URL by which instances reach it");
    if url.is_empty() {
        return Check::warning(name, "not known: it does not follow from the API server's address", remedy);
    }
    let Some(host) = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)) else {
        // `s3://bucket` and the like are no matter of networks.
        return Check::ok(name, format!("{url}: no host in it to be looked up"));
    };
    match judge(&host).await {
        Verdict::Fine(seen) => {
            Check::ok(name, format!("{url}: {seen}; whether instances get there can't be told from here"))
        }
        Verdict::Doubtful(why) => Check::warning(name, format!("{url}: {why}"), remedy),
        Verdict::Wrong(why) => Check::error(name, format!("{url}: {why}"), remedy),
    }
}

async fn controller(config: &Config, reach: Result<Option<&Reach>, &BadInput>) -> Check {
    const REMEDY: &str =
        "set hyper_params.advertise_address to the host or address by which instances reach this machine";
    let reach = match reach {
        Ok(Some(reach)) => reach,
        Ok(None) => return Check::ok(CONTROLLER, "sidecar is off: instances do not dial the controller"),
        Err(error) => return Check::error(CONTROLLER, error.0.clone(), REMEDY),
    };
    let url = reach.url(config.listen.port());
    let seen = match judge(reach.host()).await {
        Verdict::Fine(seen) => seen,
        Verdict::Doubtful(why) => return Check::warning(CONTROLLER, format!("{url}: {why}"), REMEDY),
        Verdict::Wrong(why) => return Check::error(CONTROLLER, format!("{url}: {why}"), REMEDY),
    };
    if config.listen.ip().is_loopback() {
        let detail =
            format!("{url} is advertised, but listen is {}, where only this machine gets", config.listen);
        return Check::error(CONTROLLER, detail, "set hyper_params.listen to 0.0.0.0:PORT");
    }
    let listening = match listening(config).await {
        Ok(listening) => listening,
        Err(check) => return *check,
    };
    let blind =
        "whether firewalls and the security group of this machine let instances in can't be told from here";
    Check::ok(CONTROLLER, format!("{url}: {seen}; {listening}; {blind}"))
}

/// Whether the gateway can listen, or does.
async fn listening(config: &Config) -> Result<String, Box<Check>> {
    let listen: SocketAddr = config.listen;
    match TcpListener::bind(listen).await {
        Ok(_) => Ok(format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if admin::ask(&config.state_dir.join(admin::SOCKET)).await.is_ok() {
                return Ok(format!("a controller of this configuration listens on {listen}"));
            }
            let detail = format!("another program listens on {listen}");
            Err(Box::new(Check::error(
                CONTROLLER,
                detail,
                "end it, or set hyper_params.listen to another port",
            )))
        }
        Err(error) => {
            let remedy = "set hyper_params.listen to an address of this machine and a port that it may use";
            Err(Box::new(Check::error(CONTROLLER, format!("{listen} can't be listened on: {error}"), remedy)))
        }
    }
}

enum Verdict {
    Fine(String),
    Doubtful(String),
    Wrong(String),
}

/// Whether instances could mean the same machine by this host.
async fn judge(host: &str) -> Verdict {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if CONTAINERS.contains(&bare) {
        return Verdict::Wrong(format!("{bare} is a name among the server's own containers"));
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match trouble(address) {
            Some(why) => Verdict::Wrong(why.to_owned()),
            None => Verdict::Fine("an address".to_owned()),
        };
    }
    let found = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((bare, 0))).await;
    let addresses: Vec<IpAddr> = match found {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            let why = format!(
                "{bare} does not resolve from here ({error}); instances may have another name server"
            );
            return Verdict::Doubtful(why);
        }
        Err(_) => return Verdict::Doubtful(format!("no name server answers for {bare} from here")),
    };
    match addresses.iter().find_map(|address| trouble(*address)) {
        Some(why) => Verdict::Wrong(format!("{bare} resolves to {}: {why}", listed(&addresses))),
        None if addresses.is_empty() => Verdict::Doubtful(format!("{bare} has no address")),
        None => Verdict::Fine(format!("resolves to {}", listed(&addresses))),
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let mut texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.dedup();
    texts.truncate(4);
    texts.join(", ")
}

/// Why no other machine gets there.
fn trouble(address: IpAddr) -> Option<&'static str> {
    let (loopback, link_local) = match address {
        IpAddr::V4(address) => (address.is_loopback(), address.is_link_local()),
        IpAddr::V6(address) => {
            let mapped = address.to_ipv4_mapped();
            let loopback = mapped.map_or(address == Ipv6Addr::LOCALHOST, |address| address.is_loopback());
            (loopback, address.is_unicast_link_local())
        }
    };
    if loopback {
        Some("a loopback address: an instance would dial itself")
    } else if address.is_unspecified() {
        Some("no address of any machine")
    } else if link_local {
        Some("a link-local address, which other machines do not reach")
    } else {
        None
    }
}
