//! The boot script and the files beside it.

use proto::v1;

use super::quote::{assignments, hocon, unix_lines};
use super::{AgentSetup, BootInputs};

const BOOT: &str = include_str!("boot.sh");
const AGENT: &str = include_str!("agent.sh");
const PREPARE: &str = include_str!("prepare.sh");
/// Between the note of a failure and the end of the machine, in seconds: time to report it.
pub(super) const LINGER: &str = "10";
/// How long the agent may take to come up, in tenths of a second.
const READY_WAIT: &str = "3000";

/// The boot script of one instance, with its files, secrets included.
pub fn boot_script(inputs: &BootInputs<'_>) -> v1::BootScript {
    let BootInputs { setup, instance, worker, queue } = inputs;
    let prefix = worker.as_str().strip_suffix(instance.as_str()).and_then(|head| head.strip_suffix(':'));
    let identity = Identity {
        worker_prefix: prefix.unwrap_or(worker.as_str()),
        instance: instance.as_str(),
        queue: queue.as_str(),
        self_idle_limit: String::new(),
    };
    v1::BootScript {
        script: script(setup, &identity),
        files: files(setup),
        worker_ids: vec![worker.as_str().to_owned()],
    }
}

/// Which agent it is to be.
pub(super) struct Identity<'a> {
    pub(super) worker_prefix: &'a str,
    /// Empty: it asks IMDS.
    pub(super) instance: &'a str,
    pub(super) queue: &'a str,
    /// Seconds; empty: the sidecar sees to it.
    pub(super) self_idle_limit: String,
}

pub(super) fn script(setup: &AgentSetup, identity: &Identity<'_>) -> String {
    let flag = |set: bool| if set { "1" } else { "" }.to_owned();
    let package = setup.agent_version.as_ref().map(|version| format!("clearml-agent=={version}"));
    let values = [
        ("WORKER_PREFIX", identity.worker_prefix.to_owned()),
        ("INSTANCE_ID", identity.instance.to_owned()),
        ("QUEUE", identity.queue.to_owned()),
        ("SELF_IDLE_LIMIT", identity.self_idle_limit.clone()),
        ("DOCKER_IMAGE", setup.docker_image.trim().to_owned()),
        ("CPU_ONLY", flag(setup.cpu_only)),
        ("SKIP_BASHRC", flag(setup.skip_bashrc)),
        ("AGENT_PACKAGE", package.unwrap_or_else(|| "clearml-agent".to_owned())),
        ("AUTH_TOKEN", setup.auth_token.clone()),
        ("WORKER_TAG", setup.worker_tag.clone()),
        ("LINGER", LINGER.to_owned()),
        ("READY_WAIT_TENTHS", READY_WAIT.to_owned()),
    ];
    format!("#!/bin/bash\n{}{BOOT}", assignments(values))
}

pub(super) fn files(setup: &AgentSetup) -> Vec<v1::File> {
    let file = |name: &str, content: String, mode| v1::File {
        name: name.to_owned(),
        content: content.into_bytes(),
        mode,
    };
    vec![
        file("agent.sh", AGENT.to_owned(), 0o700),
        file("agent_shim.py", sidecar::AGENT_SHIM.to_owned(), 0o600),
        file("prepare.sh", PREPARE.to_owned(), 0o700),
        file("clearml.conf", clearml_conf(setup), 0o600),
        file("extra.sh", unix_lines(&setup.extra_vm_bash_script), 0o600),
    ]
}

/// The part of `clearml.conf` that is ours. The user's own lines come last and win.
fn clearml_conf(setup: &AgentSetup) -> String {
    let keys = [
        ("api.api_server", &setup.api_server),
        ("api.web_server", &setup.web_server),
        ("api.files_server", &setup.files_server),
        ("api.credentials.access_key", &setup.access_key),
        ("api.credentials.secret_key", &setup.secret_key),
        ("agent.git_user", &setup.git_user),
        ("agent.git_pass", &setup.git_pass),
    ];
    let set = keys.iter().filter(|(_, value)| !value.is_empty());
    let mut text: String = set.map(|(key, value)| format!("{key} = {}\n", hocon(value))).collect();
    for extra in [&setup.extra_trains_conf, &setup.extra_clearml_conf] {
        text.push_str(&unix_lines(extra));
        text.push('\n');
    }
    text
}
