//! Applying: each action becomes calls, each call an outcome. Nothing is decided and nothing retried
//! here; one failure never stops the others.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use planner::{
    Action, Boots, InstanceId, Intent, IntentId, Order, ResourceName, Seen, TaskId, TaskStep, Time, WorkerId,
};

use crate::ports::{ClearMl, ClearMlError, Clock, Cloud, CloudError, Journal, Launch, Prepared, Sessions};

/// Calls in flight at once.
const CONCURRENCY: usize = 16;
/// No call may take longer, whatever its transport thinks.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);

/// The ports, shared by the loop and the calls that it has in flight.
pub struct Ports<C, E, S, J, K> {
    /// ClearML.
    pub clearml: Arc<C>,
    /// EC2.
    pub cloud: Arc<E>,
    /// The sidecars.
    pub sessions: Arc<S>,
    /// What survives.
    pub journal: Arc<J>,
    /// Time.
    pub clock: K,
}

impl<C, E, S, J, K: Clone> Clone for Ports<C, E, S, J, K> {
    fn clone(&self) -> Self {
        Self {
            clearml: Arc::clone(&self.clearml),
            cloud: Arc::clone(&self.cloud),
            sessions: Arc::clone(&self.sessions),
            journal: Arc::clone(&self.journal),
            clock: self.clock.clone(),
        }
    }
}

/// What came of an action.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// EC2 answered a launch.
    Launched { launch: Launch, intent: Intent, request: Prepared, instances: BTreeSet<InstanceId> },
    /// EC2 refused a launch, surely.
    Refused { launch: Launch, error: CloudError },
    /// Whether the launch went through is not known; it is on record.
    Unanswered { launch: Launch, intent: Intent, request: Prepared, error: String },
    /// The launch could not even be written down.
    NotBegun { launch: Launch, error: String },
    /// An intent was closed.
    Settled { intent: IntentId },
    /// An order was handed to a session, or there was none.
    Sent { instance: InstanceId, order: Order, delivered: bool, at: Time },
    /// Instances were ended.
    Terminated { instances: Vec<InstanceId>, reason: planner::TerminateReason, at: Time },
    /// A worker's entry was removed.
    Unregistered { worker: WorkerId },
    /// A step with a task was taken, or not.
    Stepped { task: TaskId, step: TaskStep, result: Result<(), ClearMlError>, at: Time },
    /// A call failed; the next pass decides anew.
    Failed { what: String, error: String },
}

/// What the journal is to know besides what the calls bring.
pub(crate) struct Notes {
    /// Instances whose agent is up.
    pub(crate) ready: Vec<(InstanceId, Time)>,
    /// How boots ended.
    pub(crate) boots: Vec<(ResourceName, Boots)>,
}

impl Notes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.boots.is_empty()
    }
}

/// Applies all actions at once, so far as they may run side by side; then writes the notes.
pub(crate) async fn apply<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    actions: Vec<Action>,
    known: BTreeMap<IntentId, (Intent, Prepared)>,
    notes: Notes,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(actions.len());
    let mut running: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
    for action in actions {
        while running.len() >= CONCURRENCY {
            outcomes.extend(running.next().await);
        }
        match action {
            Action::Send { instance, order } => {
                let delivered = ports.sessions.send(&instance, order);
                outcomes.push(Outcome::Sent { instance, order, delivered, at: ports.clock.now() });
            }
            Action::Launch { intent, resource, queue, offering, count, token } => {
                let written = known.get(&intent).cloned();
                let launch = Launch { intent, resource, queue, offering, count, token };
                running.push(Box::pin(launch_once(ports.clone(), launch, written)));
            }
            Action::Settle { intent } => running.push(Box::pin(settle(ports.clone(), intent))),
            Action::Terminate { instances, reason } => {
                running.push(Box::pin(terminate(ports.clone(), instances, reason)));
            }
            Action::Unregister { worker } => running.push(Box::pin(unregister(ports.clone(), worker))),
            Action::Task { task, seen, step } => {
                running.push(Box::pin(take_step(ports.clone(), task, seen, step)));
            }
        }
    }
    while let Some(outcome) = running.next().await {
        outcomes.push(outcome);
    }
    for (instance, at) in notes.ready {
        if let Err(error) = ports.journal.mark_ready(&instance, at).await {
            tracing::warn!(%instance, "{error}");
        }
    }
    for (resource, boots) in notes.boots {
        if let Err(error) = ports.journal.note_boots(&resource, &boots).await {
            tracing::warn!(%resource, "{error}");
        }
    }
    outcomes
}

/// Writes the intent, then asks EC2, then writes the answer: a crash between any two leaves a note
/// from which the next run asks again with the same token.
async fn launch_once<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    launch: Launch,
    written: Option<(Intent, Prepared)>,
) -> Outcome {
    let asked_before = written.is_some();
    let (mut intent, request) = match written {
        Some((intent, _)) if planner::fault!("token-per-attempt") => {
            let token = format!("{}-{}", launch.token, intent.retry_at.0).into();
            match ports.cloud.prepare(&Launch { token, ..launch.clone() }) {
                Ok(request) => (intent, request),
                Err(error) => return Outcome::NotBegun { launch, error: error.to_string() },
            }
        }
        Some(written) => written,
        None => match begin(&ports, &launch).await {
            Ok(begun) => begun,
            Err(error) => return Outcome::NotBegun { launch, error },
        },
    };
    let answer = within(&ports.clock, ports.cloud.launch(&request))
        .await
        .unwrap_or_else(|| Err(CloudError::Other("run instances: no answer in time".to_owned())));
    match answer {
        Ok(instances) => {
            // Should this write fail, the intent stays open: asking again gives the same instances.
            if let Err(error) = ports.journal.answer(&launch.intent, &instances).await {
                tracing::warn!(intent = %launch.intent, "{error}");
            }
            intent.answered = Some(instances.clone());
            Outcome::Launched { launch, intent, request, instances }
        }
        Err(error) if is_refused(&error, asked_before) => {
            if let Err(error) = ports.journal.close(&launch.intent).await {
                tracing::warn!(intent = %launch.intent, "{error}");
            }
            Outcome::Refused { launch, error }
        }
        Err(error) => {
            let now = ports.clock.now();
            intent.retry_at = now.after(retry_delay(now.since(intent.created_at)));
            if let Err(error) = ports.journal.postpone(&launch.intent, intent.retry_at).await {
                tracing::warn!(intent = %launch.intent, "{error}");
            }
            Outcome::Unanswered { launch, intent, request, error: error.to_string() }
        }
    }
}

/// Whether surely nothing came of the launch. What EC2 says before it looks at the token (too many calls, no
/// permission, a fault in the request) says nothing of an earlier try with the same one.
fn is_refused(error: &CloudError, asked_before: bool) -> bool {
    match error {
        CloudError::NoCapacity(_) | CloudError::Gone(_) => true,
        CloudError::Throttled(_) | CloudError::Denied(_) | CloudError::Invalid(_) => !asked_before,
        CloudError::Other(_) => false,
    }
}

async fn begin<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: &Ports<C, E, S, J, K>,
    launch: &Launch,
) -> Result<(Intent, Prepared), String> {
    let request = ports.cloud.prepare(launch).map_err(|error| error.to_string())?;
    let now = ports.clock.now();
    let intent = Intent {
        resource: launch.resource.clone(),
        queue: launch.queue.clone(),
        offering: launch.offering.clone(),
        count: launch.count,
        token: launch.token.clone(),
        created_at: now,
        retry_at: now,
        answered: None,
    };
    if !planner::fault!("no-intent") {
        ports.journal.begin(&launch.intent, &intent, &request).await.map_err(|error| error.to_string())?;
    }
    Ok((intent, request))
}

async fn settle<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    intent: IntentId,
) -> Outcome {
    match ports.journal.close(&intent).await {
        Ok(()) => Outcome::Settled { intent },
        Err(error) => Outcome::Failed { what: format!("settle launch {intent}"), error: error.to_string() },
    }
}

async fn terminate<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    instances: Vec<InstanceId>,
    reason: planner::TerminateReason,
) -> Outcome {
    let what = || format!("terminate {} instances", instances.len());
    match within(&ports.clock, ports.cloud.terminate(&instances)).await {
        Some(Ok(())) => Outcome::Terminated { instances, reason, at: ports.clock.now() },
        Some(Err(error)) => Outcome::Failed { what: what(), error: error.to_string() },
        None => Outcome::Failed { what: what(), error: "no answer in time".to_owned() },
    }
}

async fn unregister<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    worker: WorkerId,
) -> Outcome {
    match within(&ports.clock, ports.clearml.unregister(&worker)).await {
        Some(Ok(())) => Outcome::Unregistered { worker },
        Some(Err(error)) => {
            Outcome::Failed { what: format!("unregister {worker}"), error: error.to_string() }
        }
        None => {
            Outcome::Failed { what: format!("unregister {worker}"), error: "no answer in time".to_owned() }
        }
    }
}

async fn take_step<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
    ports: Ports<C, E, S, J, K>,
    task: TaskId,
    seen: Seen,
    step: TaskStep,
) -> Outcome {
    let late = || Err(ClearMlError::Unavailable("no answer in time".to_owned()));
    let result = within(&ports.clock, ports.clearml.step(&task, &seen, &step)).await.unwrap_or_else(late);
    Outcome::Stepped { task, step, result, at: ports.clock.now() }
}

/// The longer a launch has been unanswered, the longer until it is asked for again: 5 s to 60 s, never in step.
fn retry_delay(age: Duration) -> Duration {
    let base = age.clamp(Duration::from_secs(5), Duration::from_secs(60));
    base + base.mul_f64(spread(age))
}

/// A fraction between 0 and 0.3 that differs from case to case and is the same when a run is repeated.
pub(crate) fn spread(seed: Duration) -> f64 {
    (seed.as_millis() % 97) as f64 / 97.0 * 0.3
}

/// The call's result, or `None` when [`CALL_LIMIT`] has passed.
pub(crate) async fn within<K: Clock, F: Future>(clock: &K, call: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        result = call => Some(result),
        () = clock.sleep(CALL_LIMIT) => None,
    }
}
