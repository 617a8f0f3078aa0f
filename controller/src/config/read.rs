//! The whole file, section by section. Every part is read even if an earlier one is at fault, so that one
//! run shows all there is to mend.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use planner::{Requeue, RequeueWhen, ShutdownAction};
use secrecy::SecretString;

use super::faults::{Faults, Findings};
use super::section::Section;
use super::{AgentServers, Config, Git, SidecarSetting};
use super::{aws, budget, places, resources, tags, yaml};

/// Minutes in a month: whatever is meant by a longer limit, it is not a limit.
const MONTH_MIN: f64 = 43_200.0;
const DAY_MIN: f64 = 1_440.0;
const DEFAULT_PREFIX: &str = "dynamic_worker";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8790);

/// What holds where nothing is written.
mod default {
    use std::time::Duration;

    pub(super) const MAX_IDLE: Duration = Duration::from_secs(15 * 60);
    pub(super) const MAX_SPIN_UP: Duration = Duration::from_secs(30 * 60);
    pub(super) const LAUNCHES_PER_MINUTE: u32 = 600;
    pub(super) const QUEUE_INTERVAL: Duration = Duration::from_secs(5);
    pub(super) const IMDS_HOP_LIMIT: u8 = 2;
}

/// Keys that the schema has and this version does not implement.
const NOT_YET: [&str; 8] = [
    "max_hourly_cost",
    "max_daily_cost",
    "max_monthly_cost",
    "spot_fallback_after_min",
    "spot_blackout_min",
    "docker_mode",
    "skip_bashrc",
    "idle_policy",
];

/// Reads the text of a configuration file.
pub(super) fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let findings = Findings::new(path);
    let root = tree(path, text, &findings)?;
    validate(path, &root, findings, env)
}

/// The text of a file as a tree.
pub(super) fn tree(path: &Path, text: &str, findings: &Findings) -> Result<yaml::Node, Faults> {
    match yaml::parse(text, &mut |at, key, message| findings.fault(at, key, message)) {
        Ok(Some(root)) if !root.is_absent() => Ok(root),
        Ok(_) => Err(Faults::whole_file(path, "is empty; it must hold hyper_params and configurations")),
        Err(malformed) => Err(Faults::one(path, malformed.at, malformed.message)),
    }
}

/// Reads the tree of a configuration, wherever it came from.
pub(super) fn validate(
    path: &Path,
    root: &yaml::Node,
    findings: Findings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let config = Section::root(root, &findings).and_then(|root| document(path, &root, &findings, env));
    let warnings = findings.settle()?;
    // Without a fault there is a configuration; the other arm can't be reached, and says so politely.
    let config = config.ok_or_else(|| Faults::whole_file(path, "cannot be read"))?;
    Ok(Config { warnings, ..config })
}

/// The document; `None` only where a fault is noted.
fn document(
    file: &Path,
    root: &Section<'_>,
    findings: &Findings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<Config> {
    let hyper = root.section_or_empty("hyper_params");
    let configurations = root.section_or_empty("configurations");

    let aws = aws::aws(&hyper);
    let tags = tags::tags(&hyper);
    let general = resources::General {
        region: aws.region.as_deref(),
        tags: &tags,
        imds_hop_limit: resources::hop_limit(&hyper).unwrap_or(default::IMDS_HOP_LIMIT),
    };
    let read = resources::resources(&configurations, &general);
    let pools = budget::pools(&configurations, &read);
    let prefix = hyper.checked_text("workers_prefix", resources::check_name);
    let prefix = prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
    let polling = hyper.minutes("polling_interval_time_min", 0.01..=DAY_MIN);
    check_provider(&hyper);
    hyper.not_yet(&NOT_YET);

    let config = Config {
        file: file.to_path_buf(),
        warnings: Vec::new(),
        git: git(&hyper, env),
        aws,
        instance_profile: aws::instance_profile(&hyper),
        docker_image: hyper.text("default_docker_image"),
        max_idle: hyper.minutes("max_idle_time_min", 0.0..=MONTH_MIN).unwrap_or(default::MAX_IDLE),
        cloud_interval: polling.map_or(Config::CLOUD_INTERVAL, |given| given.min(Config::CLOUD_INTERVAL)),
        max_spin_up: hyper.minutes("max_spin_up_time_min", 0.05..=DAY_MIN).unwrap_or(default::MAX_SPIN_UP),
        queue_interval: queue_interval(&hyper),
        launches_per_minute: hyper
            .whole("max_launches_per_minute", 1..=100_000)
            .unwrap_or(default::LAUNCHES_PER_MINUTE),
        listen: places::listen(&hyper).unwrap_or(DEFAULT_LISTEN),
        advertise: places::advertise(&hyper),
        agent_servers: AgentServers {
            api: places::server(&hyper, "agent_api_server"),
            web: places::server(&hyper, "agent_web_server"),
            files: places::server(&hyper, "agent_files_server"),
        },
        sidecar: sidecar(&hyper),
        shutdown: shutdown(&hyper),
        requeue: requeue(&hyper),
        state_dir: places::state_dir(&hyper, file, &prefix, env),
        sidecar_dir: places::directory(&hyper, "sidecar_dir", file, env),
        prices_file: places::directory(&hyper, "prices_file", file, env),
        prefix,
        tags,
        resources: read.resources,
        pools,
        extra_vm_bash_script: configurations.raw_text("extra_vm_bash_script").unwrap_or_default(),
        extra_clearml_conf: extra_conf(&configurations),
    };

    let (hyper_keys, configuration_keys) = (hyper.known(), configurations.known());
    let top = ("hyper_params", &hyper_keys);
    let below = ("configurations", &configuration_keys);
    let each = ("configurations.resource_configurations.NAME", &read.keys);
    root.finish(&[top, below]);
    hyper.finish(&[below, each]);
    configurations.finish(&[top, each]);
    for section in &read.sections {
        section.finish(&[top, below]);
    }
    (findings.count() == 0).then_some(config)
}

fn git(hyper: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Git {
    let from_env = |name: &str| env(name).filter(|value| !value.is_empty());
    let (user, password) = (hyper.text("git_user"), hyper.secret("git_pass"));
    Git {
        user: from_env("CLEARML_AUTOSCALER_GIT_USER").or(user),
        password: from_env("CLEARML_AUTOSCALER_GIT_PASSWORD").map(SecretString::from).or(password),
    }
}

fn check_provider(hyper: &Section<'_>) {
    hyper.checked_text("cloud_provider", |provider| {
        if provider.eq_ignore_ascii_case("aws") {
            Ok(())
        } else {
            Err(format!("must be AWS or empty, not {}", yaml::quoted(provider)))
        }
    });
}

fn queue_interval(hyper: &Section<'_>) -> Duration {
    let seconds = hyper.number("queue_polling_interval_sec", 0.2..=3600.0);
    seconds.map_or(default::QUEUE_INTERVAL, Duration::from_secs_f64)
}

fn sidecar(hyper: &Section<'_>) -> SidecarSetting {
    let Some(node) = hyper.node("sidecar") else { return SidecarSetting::default() };
    // PyYAML reads a bare `off` as false, and writes that back.
    let word = if node.as_flag() == Some(false) { Some("off") } else { node.as_text().map(str::trim) };
    match word {
        Some("auto") => SidecarSetting::Auto,
        Some("required") => SidecarSetting::Required,
        Some("off") => SidecarSetting::Off,
        Some(_) | None => {
            hyper.fault(
                "sidecar",
                format!("must be auto, required or off, not {}", super::section::described(node)),
            );
            SidecarSetting::default()
        }
    }
}

fn shutdown(hyper: &Section<'_>) -> ShutdownAction {
    let text = hyper.checked_text("shutdown_action", |text| {
        text.parse::<ShutdownAction>().map(|_| ()).map_err(|error| error.to_string())
    });
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn requeue(hyper: &Section<'_>) -> Requeue {
    let text = hyper.checked_text("requeue_interrupted_tasks", |text| {
        text.parse::<RequeueWhen>().map(|_| ()).map_err(|error| error.to_string())
    });
    Requeue {
        when: text.and_then(|text| text.parse().ok()).unwrap_or_default(),
        reset: hyper.flag("reset_requeued_tasks"),
    }
}

fn extra_conf(configurations: &Section<'_>) -> String {
    let trains = configurations.raw_text("extra_trains_conf");
    match (configurations.raw_text("extra_clearml_conf"), trains) {
        (Some(conf), trains) => {
            if trains.is_some() {
                configurations.warn("extra_trains_conf", "ignored, as extra_clearml_conf is set");
            }
            conf
        }
        (None, trains) => trains.unwrap_or_default(),
    }
}
