//! What the loop learns from the calls that it made, and the lines that tell an operator of them.

use std::time::Duration;

use planner::{Offering, State, Time};

use crate::apply::Outcome;
use crate::ports::{ClearMl, Clock, Cloud, CloudError, Journal, Launch, Sessions};
use crate::run::Engine;

/// How long an offering is left alone after EC2 refused it, by what it said.
fn refusal_pause(error: &CloudError) -> Duration {
    Duration::from_secs(match error {
        CloudError::NoCapacity(_) => 180,
        CloudError::Throttled(_) => 5,
        CloudError::Gone(_) => 1,
        CloudError::Denied(_) | CloudError::Invalid(_) => 300,
        CloudError::Other(_) => 10,
    })
}

impl<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock> Engine<C, E, S, J, K> {
    /// Takes one outcome; whether it was a failure.
    pub(crate) fn absorb_outcome(&mut self, outcome: Outcome, now: Time) -> bool {
        match outcome {
            Outcome::Launched { launch, intent, request, instances } => {
                let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
                tracing::info!(
                    resource = %launch.resource, queue = %launch.queue, offering = %launch.offering,
                    asked = launch.count, launched = ids.len(), instances = ids.join(","), "launched"
                );
                self.memory.remember_launch(&launch, &instances, now);
                self.remember_intent(launch.intent, intent, request);
                self.look_at_cloud(now);
                false
            }
            Outcome::Refused { launch, error } => {
                tracing::warn!(resource = %launch.resource, offering = %launch.offering, "launch refused: {error}");
                self.memory.intents.remove(&launch.intent);
                self.leave_alone(launch.offering, refusal_pause(&error), error.to_string(), now);
                // The next pass tries the next pool at once: this one is left alone by name.
                false
            }
            Outcome::Unanswered { launch, intent, request, error } => {
                tracing::warn!(
                    resource = %launch.resource, intent = %launch.intent,
                    "launch unanswered, to be asked for again with the same token: {error}"
                );
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
                tracing::info!(%instance, kind = %order.kind, generation = order.generation, "ordered");
                if let Some(known) = self.memory.instances.get_mut(&instance) {
                    known.last_order = Some((order, at));
                }
                false
            }
            Outcome::Terminated { instances, reason, at } => {
                let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
                tracing::info!(instances = ids.join(","), ?reason, "terminated");
                for instance in &instances {
                    if let Some(known) = self.memory.instances.get_mut(instance) {
                        known.terminated_at = Some(at);
                        known.enter(State::Terminating, planner::Signal::None, at);
                    }
                }
                self.look_at_cloud(now);
                false
            }
            Outcome::Unregistered { worker } => {
                tracing::debug!(%worker, "unregistered");
                self.views.workers.data.remove(&worker);
                false
            }
            Outcome::Failed { what, error } => {
                tracing::warn!("{what}: {error}");
                true
            }
        }
    }

    fn begin_failed(&mut self, launch: Launch, error: String, now: Time) {
        self.leave_alone(launch.offering, Duration::from_secs(10), error, now);
    }

    fn leave_alone(&mut self, offering: Offering, pause: Duration, reason: String, now: Time) {
        self.memory.unavailable.insert(offering, (now.after(pause), reason));
    }
}
