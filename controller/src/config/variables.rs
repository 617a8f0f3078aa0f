//! The environment variables that a configuration depends on, as they were when it was first read: what is
//! read again later is read in the same light.

use std::collections::BTreeMap;

/// Every variable that the reader of a configuration looks up.
const NAMES: [&str; 5] = [
    "HOME",
    "XDG_STATE_HOME",
    "STATE_DIRECTORY",
    "CLEARML_AUTOSCALER_GIT_USER",
    "CLEARML_AUTOSCALER_GIT_PASSWORD",
];

/// A part of an environment. Not for showing: a password may be in it.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<&'static str, String>);

impl Variables {
    /// What `env` says of them now.
    pub fn of(env: &dyn Fn(&str) -> Option<String>) -> Self {
        Self(NAMES.into_iter().filter_map(|name| Some((name, env(name)?))).collect())
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}
