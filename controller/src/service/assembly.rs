//! From a configuration to the parts of a run that are made of it, and where those parts are in force.
//! All of them are replaced together, so that no launch is made of two configurations.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Intervals;
use planner::{FleetId, Policy, ShutdownAction, SidecarMode};
use tokio::sync::watch;

use super::artifacts::missing_sidecars;
use super::boot_scripts::{AgentSetups, Setups};
use super::fleet::{Door, user_data};
use super::run::intervals;
use crate::config::{self, Config, Faults};
use crate::gateway::Artifacts;
use crate::live::Recipe;

/// What stays the same through a run, and every configuration is put together with.
pub(super) struct Assembly {
    pub(super) fleet: FleetId,
    pub(super) mode: SidecarMode,
    /// The ClearML task that the run is.
    pub(super) task: Option<String>,
    pub(super) clearml: config::clearml::Settings,
    pub(super) launches: Arc<Setups>,
    /// `None` without sidecars.
    pub(super) door: Option<Arc<Door>>,
    /// The sidecars at hand, and where they lie.
    pub(super) sidecars: Option<(Artifacts, PathBuf)>,
}

/// A configuration, put together.
pub(super) struct Parts {
    pub(super) recipe: Arc<Recipe>,
    setups: Arc<AgentSetups>,
}

impl Assembly {
    /// The parts of a configuration.
    ///
    /// # Errors
    /// All resources whose user data EC2 would not take.
    pub(super) fn parts(&self, config: &Arc<Config>) -> Result<Parts, Faults> {
        let setups = Arc::new(AgentSetups::new(Arc::clone(config), &self.clearml, self.task.as_deref()));
        let blocked = match &self.sidecars {
            Some((artifacts, dir)) => missing_sidecars(config, artifacts, dir),
            None => BTreeMap::new(),
        };
        let policy = config.policy(self.fleet.clone(), self.mode, |resource| blocked.get(resource).cloned());
        let user_data = user_data(config, &setups, &self.launches, self.door.as_ref())?;
        let recipe = Recipe { config: Arc::clone(config), policy: Arc::new(policy), user_data };
        Ok(Parts { recipe: Arc::new(recipe), setups })
    }
}

/// The parts in force, each where it is looked for.
pub(super) struct InForce {
    recipe: watch::Sender<Arc<Recipe>>,
    policy: watch::Sender<Arc<Policy>>,
    intervals: watch::Sender<Intervals>,
    silent_idle_limit: watch::Sender<Duration>,
    launches: Arc<Setups>,
}

/// Where the parts in force are looked for.
pub(super) struct Views {
    pub(super) recipe: watch::Receiver<Arc<Recipe>>,
    pub(super) policy: watch::Receiver<Arc<Policy>>,
    pub(super) intervals: watch::Receiver<Intervals>,
}

impl InForce {
    /// Puts the first parts into force.
    pub(super) fn new(
        parts: Parts,
        launches: Arc<Setups>,
        silent_idle_limit: watch::Sender<Duration>,
    ) -> (Self, Views) {
        let Parts { recipe, setups } = parts;
        let (policy, policy_view) = watch::channel(Arc::clone(&recipe.policy));
        let (intervals, intervals_view) = watch::channel(intervals(&recipe.config));
        let (recipe, recipe_view) = watch::channel(recipe);
        launches.set(setups);
        let views = Views { recipe: recipe_view, policy: policy_view, intervals: intervals_view };
        (Self { recipe, policy, intervals, silent_idle_limit, launches }, views)
    }

    /// Puts others into their places. The recipe comes first: a launch that the old policy planned is made
    /// by it if it offers that very launch, and else left to the next pass.
    /// A run that shuts down goes on doing so.
    pub(super) fn set(&self, parts: Parts) {
        let Parts { recipe, setups } = parts;
        let (policy, config) = (Arc::clone(&recipe.policy), Arc::clone(&recipe.config));
        self.recipe.send_replace(recipe);
        self.policy.send_modify(|in_force| {
            let shutdown = in_force.shutdown;
            *in_force = policy;
            if shutdown.is_some() {
                Arc::make_mut(in_force).shutdown = shutdown;
            }
        });
        self.launches.set(setups);
        self.silent_idle_limit.send_replace(config.max_idle);
        self.intervals.send_replace(intervals(&config));
    }
    /// From now on the fleet is shut down.
    pub(super) fn shut_down(&self, action: ShutdownAction) {
        self.policy.send_modify(|policy| Arc::make_mut(policy).shutdown = Some(action));
    }
}
