//! `sidecar.json`, which the user data writes, and the places of an instance's files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::gate::Gate;
use crate::link::{Pin, Target};

/// Puts all of an instance's files below another directory: for tests and the sandbox.
pub const ROOT_VARIABLE: &str = "CLEARML_AUTOSCALER_ROOT";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    controller: String,
    pin: String,
    launch_secret: String,
    #[serde(default)]
    intent: String,
    #[serde(default)]
    root: Option<PathBuf>,
}

/// What the sidecar is told at its start.
pub struct Config {
    /// Where the controller listens, and which key it must have.
    pub target: Target,
    /// Shared by the instances of one launch call.
    pub launch_secret: Vec<u8>,
    /// The launch that this instance came of.
    pub intent: String,
    /// Where the instance's files are.
    pub layout: Layout,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, launch_secret: _, intent, layout } = self;
        f.debug_struct("Config")
            .field("target", target)
            .field("intent", intent)
            .field("layout", layout)
            .finish_non_exhaustive()
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read the configuration")]
    Unreadable(#[source] std::io::Error),
    /// Its syntax or its keys. The message quotes no value.
    #[error("the configuration is not as it should be, at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// One of its values.
    #[error("the configuration's `{key}` must be {allowed}")]
    Invalid {
        /// Which.
        key: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads the file; the environment's root counts where the file names none.
    ///
    /// # Errors
    /// The file cannot be read, or is not as it should be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(ConfigError::Unreadable)?;
        let root = std::env::var_os(ROOT_VARIABLE).map(PathBuf::from);
        Self::parse(&text, root)
    }

    fn parse(text: &[u8], environment_root: Option<PathBuf>) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(text)
            .map_err(|error| ConfigError::Malformed { line: error.line(), column: error.column() })?;
        let pin = Pin::parse(&raw.pin)
            .ok_or(ConfigError::Invalid { key: "pin", allowed: "sha256//BASE64 of 32 bytes" })?;
        let target = Target::parse(&raw.controller, pin)
            .ok_or(ConfigError::Invalid { key: "controller", allowed: "https://HOST:PORT" })?;
        let launch_secret = STANDARD
            .decode(raw.launch_secret.trim())
            .ok()
            .filter(|secret| !secret.is_empty())
            .ok_or(ConfigError::Invalid { key: "launch_secret", allowed: "base64, and not empty" })?;
        let root = raw.root.or(environment_root).unwrap_or_default();
        Ok(Self { target, launch_secret, intent: raw.intent, layout: Layout::new(root) })
    }
}

/// Where the files of an instance are; the root is empty on a real machine.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below this root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// As it was given: empty on a real machine.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `/var/lib/clearml-autoscaler`.
    pub fn home(&self) -> PathBuf {
        self.under("/var/lib/clearml-autoscaler")
    }

    /// The instance's own token.
    pub fn token(&self) -> PathBuf {
        self.home().join("token")
    }

    /// What survives a restart of the sidecar.
    pub fn standing(&self) -> PathBuf {
        self.home().join("standing.json")
    }

    /// The boot script, its files and its log.
    pub fn boot(&self) -> PathBuf {
        self.home().join("boot")
    }

    /// The phases that the boot script names.
    pub fn phase(&self) -> PathBuf {
        self.home().join("phase")
    }

    /// The gate of the agent with this index, from 0.
    pub fn gate(&self, index: usize) -> Gate {
        Gate::new(self.under("/run/clearml-autoscaler").join(format!("agent-{index}")))
    }

    /// Exists where systemd runs the machine.
    pub fn systemd(&self) -> PathBuf {
        self.under("/run/systemd/system")
    }

    /// Below another root: its directory was removed. What `shutdown` is found then is the host's.
    pub fn is_gone(&self) -> bool {
        !self.root.as_os_str().is_empty() && !self.root.is_dir()
    }

    fn under(&self, absolute: &str) -> PathBuf {
        if self.root.as_os_str().is_empty() {
            PathBuf::from(absolute)
        } else {
            self.root.join(absolute.trim_start_matches('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text.as_bytes(), None)
    }

    #[test]
    fn a_whole_configuration_is_understood_and_keeps_its_secret() {
        let text = format!(
            r#"{{"controller":"https://10.0.0.1:8790","pin":"{PIN}","launch_secret":"c2VjcmV0","intent":"i-7","root":"/r"}}"#
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.launch_secret, b"secret");
        assert_eq!(config.layout.token(), Path::new("/r/var/lib/clearml-autoscaler/token"));
        assert_eq!(config.layout.gate(0).directory(), Path::new("/r/run/clearml-autoscaler/agent-0"));
        assert!(!format!("{config:?}").contains("115"), "the secret's bytes are not shown");
    }

    #[test]
    fn a_fault_is_named_without_its_value() {
        let wrong =
            r#"{"controller":"http://h:1","pin":"PIN","launch_secret":"c2VjcmV0"}"#.replace("PIN", PIN);
        assert_eq!(
            parse(&wrong).unwrap_err().to_string(),
            "the configuration's `controller` must be https://HOST:PORT"
        );
        assert!(matches!(parse("{\"pin\": 3}"), Err(ConfigError::Malformed { line: 1, .. })));
    }

    #[test]
    fn a_real_machine_has_no_root() {
        assert_eq!(Layout::new("").gate(1).directory(), Path::new("/run/clearml-autoscaler/agent-1"));
    }
}
