//! What the loop learns from the calls that it made, and the lines that tell an operator of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use planner::{
    InstanceId, Offering, QueueName, Refusal, ResourceName, State, TerminateReason, Time, pause_after,
};

use crate::apply::Outcome;
use crate::history::{Event, EventKind};
use crate::ports::{ClearMl, Clock, Cloud, CloudError, Journal, Launch, Sessions};
use crate::publish::Published;
use crate::reasons;
use crate::run::Engine;

/// A launch that could not be written down or made a request of is tried again after this.
const NOT_BEGUN_PAUSE: Duration = Duration::from_secs(10);

/// What the planner reckons the pause by.
fn refusal(error: &CloudError) -> Refusal {
    match error {
        CloudError::NoCapacity(_) => Refusal::NoCapacity,
        CloudError::Throttled(_) => Refusal::Throttled,
        CloudError::Gone(_) => Refusal::Gone,
        // `Other` is never a refusal: it may have gone through, and is asked again with the same token.
        CloudError::Denied(_) | CloudError::Invalid(_) | CloudError::Other(_) => Refusal::Wrong,
    }
}

impl<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock> Engine<C, E, S, J, K> {
    /// Takes one outcome; whether it was a failure.
    pub(crate) fn absorb_outcome(&mut self, outcome: Outcome, now: Time) -> bool {
        match outcome {
            Outcome::Launched { launch, intent, request, instances } => {
                let ids: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                let told = reasons::launched(&self.last_pass(), &launch, &ids.join(", "), ids.len());
                tracing::info!(intent = %launch.intent, "{told}");
                let count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
                self.memory.asked_for(&launch.intent, count, now);
                self.memory.refusals.remove(&launch.offering);
                let reason = reasons::launched(&self.last_pass(), &launch, "", ids.len());
                self.note_launch(&launch, EventKind::Launched, reason, &instances, now);
                self.memory.remember_launch(&launch, &instances, now);
                self.remember_intent(launch.intent, intent, request);
                self.look_at_cloud(now);
                false
            }
            Outcome::Refused { launch, error } => {
                let pause = self.refused(&launch.offering, &error, now);
                let told = format!(
                    "launch of {} {} for queue {} refused: {error}: left alone for {}",
                    launch.count,
                    launch.offering,
                    launch.queue,
                    reasons::span(pause)
                );
                tracing::warn!(resource = %launch.resource, "{told}");
                self.note_launch(&launch, EventKind::Refused, told, &BTreeSet::new(), now);
                self.memory.intents.remove(&launch.intent);
                self.memory.launches.remove(&launch.intent);
                self.leave_alone(launch.offering, pause, error.to_string(), now);
                // The next pass tries the next pool at once: this one is left alone by name.
                false
            }
            Outcome::Unanswered { launch, intent, request, error } => {
                tracing::warn!(
                    resource = %launch.resource, intent = %launch.intent,
                    "launch unanswered, to be asked for again with the same token: {error}"
                );
                self.memory.asked_for(&launch.intent, launch.count, now);
                self.note_launch(&launch, EventKind::Unanswered, error, &BTreeSet::new(), now);
                self.remember_intent(launch.intent, intent, request);
                self.look_at_cloud(now);
                false
            }
            Outcome::NotBegun { launch, error } => {
                tracing::error!(resource = %launch.resource, "launch not begun: {error}");
                self.begin_failed(launch, error, now);
                true
            }
            Outcome::Settled { intent } => {
                self.memory.intents.remove(&intent);
                false
            }
            Outcome::Sent { instance, order, delivered, at } => {
                if !delivered {
                    tracing::debug!(%instance, kind = %order.kind, "no session to take the order");
                    return true;
                }
                let told = reasons::ordered(&self.last_pass(), &instance, order.kind, at);
                tracing::info!(%instance, generation = order.generation, "{told}");
                if let Some(known) = self.memory.instances.get_mut(&instance) {
                    known.last_order = Some((order, at));
                    known.answer_noted = false;
                    let event = known.event(&instance, at, EventKind::of_order(order.kind), told);
                    self.ports.journal.note(event);
                }
                false
            }
            Outcome::Terminated { instances, reason, at } => {
                let ids: Vec<&str> = instances.iter().map(InstanceId::as_str).collect();
                tracing::info!("{}", reasons::terminated(&self.last_pass(), &ids.join(", "), reason));
                self.note_termination(&instances, reason, at);
                for instance in &instances {
                    if let Some(known) = self.memory.instances.get_mut(instance) {
                        known.terminated_at = Some(at);
                        known.ended_by_operator = match reason {
                            TerminateReason::Shutdown | TerminateReason::Orphan => true,
                            TerminateReason::Retired
                            | TerminateReason::NeverReady
                            | TerminateReason::Lost => false,
                        };
                        known.enter(State::Terminating, planner::Signal::None, at);
                    }
                }
                self.look_at_cloud(now);
                false
            }
            Outcome::Unregistered { worker } => {
                let told = format!("unregistered worker {worker}: its machine is gone");
                tracing::info!("{told}");
                let instance = worker.instance(&self.last_pass().policy.prefix);
                let event = Event::new(now, EventKind::Unregistered, told).of_instances(&instance);
                self.ports.journal.note(event);
                self.views.workers.data.ours.remove(&worker);
                false
            }
            Outcome::Stepped { task, step, result, at } => {
                let pause = self.tasks.stepped(&task, result.is_ok(), at);
                match result {
                    Ok(()) => {
                        let told = step.describe(&task);
                        tracing::info!("done: {told}");
                        self.ports.journal.note(Event::new(now, EventKind::Task, told).about(&task));
                    }
                    // A task that cannot be helped is tried again ever more seldom, and holds nobody up.
                    Err(error) => tracing::warn!(
                        "{}: {error}: tried again in {}",
                        step.describe(&task),
                        reasons::span(pause)
                    ),
                }
                self.look_at_tasks(now);
                false
            }
            Outcome::Failed { what, error } => {
                tracing::warn!("{what}: {error}");
                true
            }
        }
    }

    /// The pass whose actions these are: the next one waits for their outcomes.
    fn last_pass(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// Counts a refusal; how long the offering is to be left alone for it.
    fn refused(&mut self, offering: &Offering, error: &CloudError, now: Time) -> Duration {
        let (times, last) = self.memory.refusals.entry(offering.clone()).or_insert((0, now));
        *times = times.saturating_add(1);
        *last = now;
        let fleet = self.last_pass().policy.fleet.clone();
        let times = self.memory.refusals.get(offering).map_or(1, |(times, _)| *times);
        pause_after(refusal(error), times, offering, fleet.as_str())
    }

    fn note_launch(
        &self,
        launch: &Launch,
        kind: EventKind,
        reason: String,
        instances: &BTreeSet<InstanceId>,
        now: Time,
    ) {
        let event = Event::new(now, kind, reason).in_pool(&launch.resource, &launch.queue);
        self.ports.journal.note(event.of_instances(instances));
    }

    /// One event for each pool.
    fn note_termination(&self, instances: &[InstanceId], reason: TerminateReason, at: Time) {
        let why = reasons::why_terminated(&self.last_pass(), reason);
        let mut pools: BTreeMap<Option<(&ResourceName, &QueueName)>, Vec<&InstanceId>> = BTreeMap::new();
        for id in instances {
            let known = self.memory.instances.get(id);
            pools.entry(known.map(|known| (&known.seen.resource, &known.seen.queue))).or_default().push(id);
        }
        for (pool, ids) in pools {
            let event = Event::new(at, EventKind::Terminated, why.clone()).of_instances(ids);
            self.ports.journal.note(match pool {
                Some((resource, queue)) => event.in_pool(resource, queue),
                None => event,
            });
        }
    }

    fn begin_failed(&mut self, launch: Launch, error: String, now: Time) {
        self.leave_alone(launch.offering, NOT_BEGUN_PAUSE, error, now);
    }

    fn leave_alone(&mut self, offering: Offering, pause: Duration, reason: String, now: Time) {
        self.memory.unavailable.insert(offering, (now.after(pause), reason));
    }
}
