//! All that the sandbox's EC2 remembers, behind one lock.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::time::Instant;

use super::error::ApiError;
use super::instance::{Cause, Instance, State};
use super::ledger::{Counts, Ledger};
use super::options::{Market, Options, Pool};
use super::params::Params;
use super::xml::Xml;

/// A call's answer: the XML inside its envelope, and the instances that it was about.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) xml: Xml,
    pub(crate) instances: Vec<String>,
}

/// What a RunInstances token stands for.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) params: Params,
    pub(crate) instances: Vec<String>,
}

/// The account.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) ledger: Ledger,
    /// By order of launch.
    instances: BTreeMap<u64, Instance>,
    order_of: BTreeMap<String, u64>,
    tokens: BTreeMap<String, Launched>,
    next: u64,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            ledger: Ledger::default(),
            instances: BTreeMap::new(),
            order_of: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Instance> {
        self.instances.get(self.order_of.get(id)?)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Instance> {
        self.instances.get_mut(self.order_of.get(id)?)
    }

    /// Those launched after the given place, with their places, in order.
    pub(crate) fn after(&self, place: u64) -> impl Iterator<Item = (u64, &Instance)> {
        self.instances.range(place.saturating_add(1)..).map(|(place, instance)| (*place, instance))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// The place that the next launched instance will have; counts from 1.
    pub(crate) fn next_place(&self) -> u64 {
        self.next + 1
    }

    pub(crate) fn add(&mut self, instance: Instance) {
        self.next += 1;
        self.ledger.launched += 1;
        self.order_of.insert(instance.id.clone(), self.next);
        self.instances.insert(self.next, instance);
    }

    pub(crate) fn token(&self, token: &str) -> Option<&Launched> {
        self.tokens.get(token)
    }

    pub(crate) fn remember(&mut self, token: String, launched: Launched) {
        self.tokens.insert(token, launched);
    }

    pub(crate) fn set_state(&mut self, id: &str, state: State, cause: Option<Cause>) {
        let Some(instance) = self.get_mut(id) else { return };
        if instance.state == State::Terminated {
            return;
        }
        instance.state = state;
        if instance.cause.is_none() && cause.is_some() {
            instance.cause = cause;
            instance.cause_at = Some(Timestamp::now());
        }
        if state == State::Terminated {
            instance.ended_at = Some(Instant::now());
            self.ledger.terminated += 1;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let (launched, terminated) = (self.ledger.launched, self.ledger.terminated);
        Counts { launched, terminated, left: launched - terminated }
    }

    /// How many more instances a pool can hold.
    pub(crate) fn room(&self, pool: &Pool) -> u32 {
        let Some(capacity) = self.options.capacity.get(pool) else { return u32::MAX };
        let in_pool = |instance: &&Instance| {
            instance.state.is_live()
                && instance.zone == pool.zone
                && instance.market == pool.market
                && instance.instance_type == pool.instance_type
        };
        capacity.saturating_sub(count(self.all().filter(in_pool)))
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Instance> {
        self.all().filter(|instance| instance.state.is_live())
    }

    pub(crate) fn vcpu_limit(&self, market: Market) -> Option<u32> {
        match market {
            Market::Spot => self.options.spot_vcpus,
            Market::OnDemand => self.options.on_demand_vcpus,
        }
    }

    /// Forgets what was terminated longer ago than the retention; the forgotten ids.
    pub(crate) fn forget_old(&mut self, now: Instant) -> Vec<String> {
        let retention = self.options.retention;
        let old: Vec<(u64, String)> = self
            .instances
            .iter()
            .filter(|(_, instance)| {
                instance.ended_at.is_some_and(|at| now.saturating_duration_since(at) > retention)
            })
            .map(|(place, instance)| (*place, instance.id.clone()))
            .collect();
        for (place, id) in &old {
            self.instances.remove(place);
            self.order_of.remove(id);
        }
        if !old.is_empty() {
            let order_of = &self.order_of;
            self.tokens.retain(|_, launched| launched.instances.iter().any(|id| order_of.contains_key(id)));
        }
        old.into_iter().map(|(_, id)| id).collect()
    }

    /// `InvalidInstanceID.*` for whatever is not there, all of it in one message.
    pub(crate) fn check_ids(
        &self,
        ids: &[&str],
        visible: impl Fn(&Instance) -> bool,
    ) -> Result<(), ApiError> {
        if let Some(bad) = ids.iter().find(|id| !well_formed(id)) {
            return Err(ApiError::bad("InvalidInstanceID.Malformed", format!("Invalid id: \"{bad}\"")));
        }
        let missing: Vec<&str> =
            ids.iter().copied().filter(|id| !self.get(id).is_some_and(&visible)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ApiError::not_found("InvalidInstanceID.NotFound", "instance ID", &missing))
    }
}

/// `i-` and 8 or 17 hexadecimal digits.
fn well_formed(id: &str) -> bool {
    id.strip_prefix("i-")
        .is_some_and(|rest| [8, 17].contains(&rest.len()) && rest.chars().all(|c| c.is_ascii_hexdigit()))
}

pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
