//! The operator's will: written into the journal, and then known to the loop. What is answered is what the
//! last pass knew of each instance; the drains themselves are the planner's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Published;
use engine::ports::{Clock as _, JournalError};
use planner::{Instance, InstanceId, Operator, Pause, SidecarMode, State};
use tokio::sync::watch;

use crate::admin::{Awaiting, DrainAnswer, DrainRequest, Drained, LaunchesAnswer, UndrainAnswer, Undrained};
use crate::journal::Store;
use crate::live::LiveClock;

/// Takes the operator's wishes of one run.
pub struct Wishes {
    store: Arc<Store>,
    clock: LiveClock,
    published: watch::Receiver<Arc<Published>>,
    will: watch::Sender<Arc<Operator>>,
}

/// A wish that is not granted; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// The operator must correct it; one by one.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
    /// It may work later.
    #[error("the wish could not be kept: {0}")]
    Journal(#[from] JournalError),
}

impl Wishes {
    /// Grants wishes to whom `will` is followed by.
    pub(super) fn new(
        store: Arc<Store>,
        clock: LiveClock,
        published: watch::Receiver<Arc<Published>>,
        will: watch::Sender<Arc<Operator>>,
    ) -> Self {
        Self { store, clock, published, will }
    }

    /// Drains instances: by name, or all that are idle at this moment.
    ///
    /// # Errors
    /// An unknown instance, queue or resource, or no sidecars to tell; then none is drained.
    pub async fn drain(&self, request: DrainRequest) -> Result<DrainAnswer, WishError> {
        let seen = self.seen();
        if seen.policy.sidecar == SidecarMode::Off {
            return Err(WishError::Wrong(vec![
                "no instance can be drained: without sidecars (sidecar: off) there is no way in to tell one; \
                 each powers itself off at its idle limit, and `pause` keeps others from being launched"
                    .to_owned(),
            ]));
        }
        let asked = match request {
            DrainRequest::Instances { instances } => known(&seen, instances)?,
            DrainRequest::Idle { queue, resource } => idle(&seen, queue.as_deref(), resource.as_deref())?,
        };
        if !asked.is_empty() {
            self.store.ask_drains(asked.keys().cloned().collect(), self.clock.now()).await?;
            self.tell();
        }
        let instances = asked
            .into_iter()
            .map(|(id, instance)| {
                tracing::info!(instance = %id, "the operator drains it");
                Drained {
                    instance: id.to_string(),
                    state: instance.state.word().to_owned(),
                    awaiting: awaiting(instance),
                }
            })
            .collect();
        Ok(DrainAnswer { instances, paused: self.store.operator().paused.is_some() })
    }

    /// Takes drains back.
    ///
    /// # Errors
    /// An instance that is unknown, that nobody drains, or for which it is too late; then none is taken back.
    pub async fn undrain(&self, instances: Vec<String>) -> Result<UndrainAnswer, WishError> {
        let seen = self.seen();
        let asked = known(&seen, instances)?;
        let drains = self.store.operator().drains;
        let mut faults = Vec::new();
        for (id, instance) in &asked {
            match instance.state {
                State::Retiring | State::Retired => faults.push(format!(
                    "{id}: too late: it is retired, for good; another is launched if tasks need it"
                )),
                State::Terminating | State::Gone => faults.push(format!("{id}: too late: it is gone")),
                _ if !drains.contains_key(id) => faults.push(format!(
                    "{id}: no operator drains it{}",
                    match instance.state {
                        State::Draining | State::Drained =>
                            "; it goes by the policy, and is called back if tasks wait",
                        _ => "",
                    }
                )),
                _ => {}
            }
        }
        if !faults.is_empty() {
            return Err(WishError::Wrong(faults));
        }
        self.store.drop_drains(asked.keys().cloned().collect()).await?;
        self.tell();
        let undrained = |(id, instance): (InstanceId, &Instance)| {
            tracing::info!(instance = %id, "the operator takes the drain back");
            Undrained { instance: id.to_string(), state: instance.state.word().to_owned() }
        };
        Ok(UndrainAnswer { instances: asked.into_iter().map(undrained).collect() })
    }

    /// Launches nothing from now on. A second pause renews the reason and keeps the instant.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn pause(&self, reason: Option<String>) -> Result<LaunchesAnswer, WishError> {
        let before = self.store.operator().paused;
        let since = before.as_ref().map_or_else(|| self.clock.now(), |pause| pause.since);
        let pause = Pause { since, reason };
        self.store.set_pause(Some(pause.clone())).await?;
        self.tell();
        tracing::info!(reason = pause.reason, "the operator pauses launches");
        Ok(LaunchesAnswer { paused: Some(pause), changed: before.is_none() })
    }

    /// Launches again.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn resume(&self) -> Result<LaunchesAnswer, WishError> {
        let before = self.store.operator().paused;
        self.store.set_pause(None).await?;
        self.tell();
        tracing::info!("the operator resumes launches");
        Ok(LaunchesAnswer { paused: None, changed: before.is_some() })
    }

    fn seen(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    fn tell(&self) {
        self.will.send_replace(Arc::new(self.store.operator()));
    }
}

type Asked<'a> = BTreeMap<InstanceId, &'a Instance>;

/// The instances by these names, or every name that is none, with those that there are.
fn known(seen: &Published, names: Vec<String>) -> Result<Asked<'_>, WishError> {
    let live = || seen.snapshot.instances.iter().filter(|(_, known)| known.state != State::Gone);
    let names: BTreeSet<String> = names.into_iter().collect();
    let mut asked = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in names {
        match live().find(|(id, _)| id.as_str() == name) {
            Some((id, instance)) => {
                asked.insert(id.clone(), instance);
            }
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(asked);
    }
    let ids: Vec<&str> = live().map(|(id, _)| id.as_str()).collect();
    let there =
        if ids.is_empty() { "there are none".to_owned() } else { format!("there are {}", ids.join(", ")) };
    Err(WishError::Wrong(unknown.iter().map(|name| format!("no instance {name}: {there}")).collect()))
}

/// What is idle at this moment, of a queue or a resource if one is named.
fn idle<'a>(
    seen: &'a Published,
    queue: Option<&str>,
    resource: Option<&str>,
) -> Result<Asked<'a>, WishError> {
    let pools = &seen.policy.pools;
    let mut faults = Vec::new();
    let instances = &seen.snapshot.instances;
    if let Some(queue) = queue
        && !pools.iter().any(|pool| pool.queue.as_str() == queue)
        && !instances.values().any(|known| known.queue.as_str() == queue)
    {
        let names: BTreeSet<&str> = pools.iter().map(|pool| pool.queue.as_str()).collect();
        faults.push(format!(
            "no queue {queue}: there are {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some(resource) = resource
        && !pools.iter().any(|pool| pool.resource.as_str() == resource)
        && !instances.values().any(|known| known.resource.as_str() == resource)
    {
        let names: Vec<&str> = pools.iter().map(|pool| pool.resource.as_str()).collect();
        faults.push(format!("no resource {resource}: there are {}", names.join(", ")));
    }
    if !faults.is_empty() {
        return Err(WishError::Wrong(faults));
    }
    let of = |known: &Instance| {
        known.state == State::Idle
            && queue.is_none_or(|queue| known.queue.as_str() == queue)
            && resource.is_none_or(|resource| known.resource.as_str() == resource)
    };
    Ok(instances.iter().filter(|(_, known)| of(known)).map(|(id, known)| (id.clone(), known)).collect())
}

fn awaiting(instance: &Instance) -> Awaiting {
    match &instance.state {
        State::Requested | State::Pending | State::Booting { .. } => Awaiting::Boot,
        State::Idle | State::Draining | State::Drained | State::Retiring | State::Retired => {
            Awaiting::Nothing
        }
        State::Busy { task } => Awaiting::Task { task: task.as_ref().map(ToString::to_string) },
        State::Lost { .. } => Awaiting::Sidecar,
        State::Terminating | State::Gone => Awaiting::Gone,
    }
}
