//! What an instance runs: the bootstrap in its user data, and the boot script that its sidecar is sent.
//!
//! [`user_data`] fetches the sidecar and carries no secret but the launch call's; [`boot_script`] does
//! what ClearML's own script does, and starts the agent behind its gate; [`standalone_user_data`] is both
//! in one, where instances can't reach the controller. The scripts themselves are the `.sh` files here:
//! values go in as quoted assignments at their head, never into their text.

pub(crate) mod quote;
mod script;
#[cfg(test)]
mod tests;
mod user_data;

use std::collections::BTreeMap;
use std::time::Duration;

use planner::{InstanceId, IntentId, QueueName, WorkerId};

use crate::gateway::Arch;

pub use script::boot_script;
pub use user_data::{standalone_user_data, user_data};

/// The most that EC2 takes as user data, before its base64, in bytes.
pub const MAX_USER_DATA: usize = 16 * 1024;

/// The user data would not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "user data is {size} bytes, and EC2 takes {MAX_USER_DATA}: shorten the extra scripts and configuration"
)]
pub struct TooLarge {
    /// What it came to, in bytes.
    pub size: usize,
}

/// What the bootstrap needs to know. It holds the launch secret: no Debug.
pub struct Bootstrap<'a> {
    /// `https://HOST:PORT`, as instances reach the controller.
    pub controller: &'a str,
    /// `sha256//BASE64`, of the gateway's key.
    pub pin: &'a str,
    /// The launch call's.
    pub launch_secret: &'a [u8],
    /// The launch.
    pub intent: &'a IntentId,
    /// SHA-256 of the sidecars that the gateway serves, in hexadecimal.
    pub sidecars: &'a BTreeMap<Arch, String>,
    /// The machine powers itself off if its sidecar has not attached by then. Whole minutes, rounded up.
    pub max_spin_up: Duration,
}

/// How agents are to be set up, alike for all instances of a resource. It holds secrets: no Debug.
#[derive(Clone, Default)]
pub struct AgentSetup {
    /// As instances reach it.
    pub api_server: String,
    /// As instances reach it.
    pub web_server: String,
    /// As instances reach it.
    pub files_server: String,
    /// ClearML's key; empty if a token is used.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// In place of the two; else empty.
    pub auth_token: String,
    /// Empty if tasks are cloned without a password.
    pub git_user: String,
    /// Its password.
    pub git_pass: String,
    /// HOCON, appended to the agent's configuration after everything else.
    pub extra_clearml_conf: String,
    /// The same by its older name.
    pub extra_trains_conf: String,
    /// Bash, run before the agent; what it exports the agent gets.
    pub extra_vm_bash_script: String,
    /// `IMAGE ARGUMENTS...` for tasks that name none; empty: tasks run without docker.
    pub docker_image: String,
    /// The instance's GPUs, if any, are left alone.
    pub cpu_only: bool,
    /// ClearML shows it beside the worker, if it is not empty. Without blanks.
    pub worker_tag: String,
    /// `~/.bashrc` is not run.
    pub skip_bashrc: bool,
    /// The clearml-agent to install where the image has none; the newest if unset.
    pub agent_version: Option<String>,
}

/// What an instance's boot script needs to know.
pub struct BootInputs<'a> {
    /// Of its resource.
    pub setup: &'a AgentSetup,
    /// The instance.
    pub instance: &'a InstanceId,
    /// Its worker: `PREFIX:RESOURCE:TYPE:INSTANCE`.
    pub worker: &'a WorkerId,
    /// The queue that its agent serves.
    pub queue: &'a QueueName,
}

/// What an instance needs to know that has no way to the controller.
pub struct Standalone<'a> {
    /// Of its resource.
    pub setup: &'a AgentSetup,
    /// `PREFIX:RESOURCE:TYPE`; the instance adds its own id.
    pub worker_prefix: &'a str,
    /// The queue that its agent serves.
    pub queue: &'a QueueName,
    /// The machine powers itself off if its agent is not up by then. Whole minutes, rounded up.
    pub max_spin_up: Duration,
    /// The machine powers itself off if its agent has been idle for this long.
    pub max_idle: Duration,
}
