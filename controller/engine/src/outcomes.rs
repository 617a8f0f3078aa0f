//! What the loop learns from the calls that it made, and the lines that tell an operator of them.

use std::sync::Arc;
use std::time::Duration;

use planner::{Offering, Refusal, State, TerminateReason, Time, pause_after};

use crate::apply::Outcome;
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
                let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
                let told = reasons::launched(&self.last_pass(), &launch, &ids.join(", "), ids.len());
                tracing::info!(intent = %launch.intent, "{told}");
                let count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
                self.memory.asked_for(&launch.intent, count, now);
                self.memory.refusals.remove(&launch.offering);
                self.memory.remember_launch(&launch, &instances, now);
                self.remember_intent(launch.intent, intent, request);
                self.look_at_cloud(now);
                false
            }
            Outcome::Refused { launch, error } => {
                let pause = self.refused(&launch.offering, &error, now);
                tracing::warn!(
                    resource = %launch.resource,
                    "launch of {} {} for queue {} refused: {error}: left alone for {}",
                    launch.count, launch.offering, launch.queue, reasons::span(pause)
                );
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
                }
                false
            }
            Outcome::Terminated { instances, reason, at } => {
                let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
                tracing::info!("{}", reasons::terminated(&self.last_pass(), &ids.join(", "), reason));
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
                tracing::info!("unregistered worker {worker}: its machine is gone");
                self.views.workers.data.remove(&worker);
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

    fn begin_failed(&mut self, launch: Launch, error: String, now: Time) {
        self.leave_alone(launch.offering, NOT_BEGUN_PAUSE, error, now);
    }

    fn leave_alone(&mut self, offering: Offering, pause: Duration, reason: String, now: Time) {
        self.memory.unavailable.insert(offering, (now.after(pause), reason));
    }
}
