//! The operator's configuration: the YAML file that ClearML's `aws_autoscaler.py` writes, with keys of
//! our own beside the script's.
//!
//! [`load`] reads a file into a [`Config`] that nothing later needs to doubt, or reports every fault at
//! once: file, position, key path, what is wrong, what is allowed. No secret is ever in a message.
//! A [`Document`] is the same configuration before anything was judged, be it of a file or of a task.

mod aws;
mod budget;
pub mod clearml;
mod difference;
mod document;
mod faults;
mod fixed;
mod image;
mod json;
mod places;
mod policy;
mod prices;
mod read;
mod resources;
mod section;
mod tags;
#[cfg(test)]
mod tests;
mod values;
mod variables;
mod yaml;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use planner::{InstanceType, Market, Placement, Pool, Requeue, ResourceName, ShutdownAction};
use secrecy::SecretString;

pub use difference::{Change, Sealed, Shown};
pub use document::{Document, create_private, write_private, write_private_text};
pub use faults::{Fault, Faults, task_origin};
pub use image::ImageRef;
pub use policy::USER_DATA_LIMIT;
pub use prices::{PriceEntry, PriceFile};
pub(crate) use section::nearest;
pub use variables::Variables;

/// Everything that the file says, validated, with defaults filled in. Debug shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read.
    pub file: PathBuf,
    /// What an operator should know though nothing is wrong enough to stop: one sentence each.
    pub warnings: Vec<String>,
    /// For private repositories; the environment's CLEARML_AUTOSCALER_GIT_* win over the file's.
    pub git: Git,
    /// How EC2 is called.
    pub aws: Aws,
    /// The instance profile that instances get.
    pub instance_profile: Option<InstanceProfile>,
    /// `default_docker_image`, with arguments as `clearml-agent daemon --docker` takes them. `None`: tasks run
    /// in virtual environments, without docker.
    pub docker_image: Option<String>,
    /// `max_idle_time_min`. Zero ends an instance as soon as it is idle.
    pub max_idle: Duration,
    /// `polling_interval_time_min`: how often EC2 is asked, at least every [`Config::CLOUD_INTERVAL`].
    pub cloud_interval: Duration,
    /// `max_spin_up_time_min`.
    pub max_spin_up: Duration,
    /// `workers_prefix`: free of `:`, `/`, blanks and control characters, at most 64 bytes.
    pub prefix: String,
    /// `tags` of `hyper_params`, for the instances of every resource.
    pub tags: Vec<Tag>,
    /// `max_launches_per_minute`, over all pools.
    pub launches_per_minute: u32,
    /// `queue_polling_interval_sec`.
    pub queue_interval: Duration,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// How instances reach the gateway, where that is not the controller's own address on `listen`'s port.
    pub advertise: Option<Advertise>,
    /// What instances are to use in place of the controller's own addresses of ClearML.
    pub agent_servers: AgentServers,
    /// `sidecar`, not yet resolved: see [`Config::sidecar_mode`].
    pub sidecar: SidecarSetting,
    /// `shutdown_action`.
    pub shutdown: ShutdownAction,
    /// `requeue_interrupted_tasks` and `reset_requeued_tasks`.
    pub requeue: Requeue,
    /// The journal's directory, absolute.
    pub state_dir: PathBuf,
    /// Where `sidecar-x86_64` and `sidecar-aarch64` lie. `None`: beside the controller's executable.
    pub sidecar_dir: Option<PathBuf>,
    /// `prices_file`, absolute. It is read by [`PriceFile::load`].
    pub prices_file: Option<PathBuf>,
    /// `resource_configurations`, in the file's order.
    pub resources: Vec<Resource>,
    /// `queues`, queue by queue and pool by pool in the file's order.
    pub pools: Vec<Pool>,
    /// Run on an instance before its agent starts.
    pub extra_vm_bash_script: String,
    /// Appended to an instance's clearml.conf: `extra_clearml_conf`, or `extra_trains_conf` if only that is set.
    pub extra_clearml_conf: String,
}

/// A git user.
#[derive(Clone, Debug, Default)]
pub struct Git {
    /// `git_user`.
    pub user: Option<String>,
    /// `git_pass`.
    pub password: Option<SecretString>,
}

/// How EC2 is called.
#[derive(Clone, Debug)]
pub struct Aws {
    /// `cloud_credentials_region`; `None` leaves it to the standard chain.
    pub region: Option<String>,
    /// Whose rights are used.
    pub credentials: Credentials,
}

/// AWS credentials.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Environment, profile, IAM role: `use_credentials_chain`, or no keys in the file.
    Chain,
    /// The file's keys.
    Keys {
        /// `cloud_credentials_key`.
        access_key: SecretString,
        /// `cloud_credentials_secret`.
        secret_key: SecretString,
        /// `cloud_credentials_token`.
        session_token: Option<SecretString>,
    },
}

/// What instances may do in AWS: one of the two ways to name an instance profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceProfile {
    /// `iam_arn`.
    Arn(String),
    /// `iam_name`.
    Name(String),
}

/// `advertise_address`: a host name or address, with a port if it differs from that of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Without brackets.
    pub host: String,
    /// `None`: the port that the gateway listens on.
    pub port: Option<u16>,
}

/// `agent_api_server`, `agent_web_server`, `agent_files_server`: URLs without a trailing slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentServers {
    /// The API server, as instances reach it.
    pub api: Option<String>,
    /// The web server.
    pub web: Option<String>,
    /// The file server.
    pub files: Option<String>,
}

/// `sidecar`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SidecarSetting {
    /// Required where instances can reach the controller, off elsewhere.
    #[default]
    Auto,
    /// Instances report; nothing is terminated on lesser evidence.
    Required,
    /// Instances judge themselves.
    Off,
}

/// One entry of `resource_configurations`.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its key.
    pub name: ResourceName,
    /// `instance_type`.
    pub instance_type: InstanceType,
    /// `is_spot`.
    pub market: Market,
    /// `subnet_id`, else `availability_zone`, else AWS chooses.
    pub placement: Placement,
    /// `ami_id`.
    pub ami_id: ImageRef,
    /// The volume that is mapped, if `ebs_device_name` names a device.
    pub ebs: Option<Ebs>,
    /// `key_name`.
    pub key_name: Option<String>,
    /// `security_group_ids`; none: the network's default group.
    pub security_group_ids: Vec<String>,
    /// Its own tags and those of `hyper_params`, each key once; its own win. `Name` may be among them.
    pub tags: Vec<Tag>,
    /// No GPU is shown to tasks.
    pub cpu_only: bool,
    /// `enable_monitoring`.
    pub monitoring: bool,
    /// `imds_hop_limit`, 1 to 64: its own, else that of `hyper_params`, else 2 as containers need it.
    pub imds_hop_limit: u8,
    /// `extra_configurations`: RunInstances fields in boto3's spelling, an object. Validated by crate `ec2`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A block device mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ebs {
    /// `ebs_device_name`, `/dev/sda1`.
    pub device_name: String,
    /// What is put there.
    pub volume: Volume,
}

/// As the script has it: a snapshot's volume takes the snapshot's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// `ebs_snapshot_id`.
    Snapshot(String),
    /// A volume of its own.
    New {
        /// `ebs_volume_size`, in GiB; 80 unless it is given.
        size_gib: u32,
        /// `ebs_volume_type`; `gp3` unless it is given.
        kind: String,
    },
}

/// A tag of an instance, within AWS's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// At most 128 characters.
    pub key: String,
    /// At most 256 characters.
    pub value: String,
}

impl Config {
    /// EC2 is asked at least this often, whatever `polling_interval_time_min` says.
    pub const CLOUD_INTERVAL: Duration = Duration::from_secs(30);

    /// The entry of `resource_configurations` with this name.
    pub fn resource(&self, name: &ResourceName) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == *name)
    }
}

/// Reads a configuration file; `env` looks up environment variables.
///
/// # Errors
/// Every fault of the file, in its order.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    load_written(path, env).map(|(_, config)| config)
}

/// Reads what stands in a configuration file, YAML or JSON, and judges none of it.
///
/// # Errors
/// If it can't be read as that.
pub fn read_written(path: &Path) -> Result<Document, Faults> {
    let text = values::read_file(path)?;
    if is_json(path) { Document::from_json(path, &text) } else { Document::from_yaml(path, &text) }
}

/// Reads a configuration file, YAML or JSON, and keeps what stands in it beside what it means.
///
/// # Errors
/// As [`load`].
pub fn load_written(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Document, Config), Faults> {
    let text = values::read_file(path)?;
    if is_json(path) {
        let document = Document::from_json(path, &text)?;
        let config = document.check(path, env)?;
        return Ok((document, config));
    }
    // From the text itself, so that a fault has its line.
    let config = read::parse(path, &text, env)?;
    Ok((Document::from_yaml(path, &text)?, config))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}
