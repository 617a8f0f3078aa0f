//! The table of endpoints: name, versions, and the function that answers.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::call::Call;
use super::error::ApiError;
use super::state::State;
use super::{auth, events, models, projects, queues, tasks, users, workers};

/// Major and minor.
pub(crate) type Version = (u16, u16);
pub(super) type Run = fn(&mut State, &Call) -> Result<Value, ApiError>;

pub(super) const V1: &[Version] = &[(1, 0)];
pub(super) const V2_4: &[Version] = &[(1, 0), (2, 4)];

pub(crate) struct Endpoint {
    pub(crate) name: &'static str,
    /// Ascending.
    versions: &'static [Version],
    pub(crate) needs_credentials: bool,
    pub(crate) run: Run,
}

impl Endpoint {
    pub(super) const fn new(name: &'static str, versions: &'static [Version], run: Run) -> Self {
        Self { name, versions, needs_credentials: true, run }
    }
}

/// An endpoint for anyone.
pub(super) const fn open(name: &'static str, versions: &'static [Version], run: Run) -> Endpoint {
    Endpoint { name, versions, needs_credentials: false, run }
}

/// The endpoint, with its highest version not above the one asked for.
pub(crate) fn find(name: &str, asked: Version) -> Option<(&'static Endpoint, Version)> {
    let endpoint = TABLE.get(name)?;
    let version = endpoint.versions.iter().rev().find(|version| **version <= asked)?;
    Some((endpoint, *version))
}

static TABLE: LazyLock<HashMap<&'static str, &'static Endpoint>> = LazyLock::new(|| {
    [
        auth::ENDPOINTS,
        events::ENDPOINTS,
        models::ENDPOINTS,
        projects::ENDPOINTS,
        queues::ENDPOINTS,
        tasks::create::ENDPOINTS,
        tasks::edit::ENDPOINTS,
        tasks::life::ENDPOINTS,
        tasks::many::ENDPOINTS,
        tasks::outputs::ENDPOINTS,
        tasks::params::ENDPOINTS,
        tasks::read::ENDPOINTS,
        users::ENDPOINTS,
        workers::ENDPOINTS,
    ]
    .into_iter()
    .flatten()
    .map(|endpoint| (endpoint.name, endpoint))
    .collect()
});
