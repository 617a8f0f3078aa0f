//! One read of one source: begun at an instant, bounded in time, stored in its view whatever came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use planner::{InstanceId, Loss, QueueName, Source, TaskId, Time};

use crate::apply::{Ports, spread, within};
use crate::ports::{
    ClearMl, ClearMlError, Clock, Cloud, CloudError, CloudInstance, Gone, Journal, Sessions, TaskList,
    TaskScope, Workers,
};
use crate::views::Views;

/// No source is asked less often than this while it fails.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What a read gave.
pub(crate) struct Read {
    began: Time,
    found: Found,
}

enum Found {
    Queues(Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError>),
    Workers(Result<Workers, ClearMlError>),
    Tasks(Result<TaskList, ClearMlError>),
    Cloud(Result<BTreeMap<InstanceId, CloudInstance>, CloudError>),
    Gone(Result<BTreeMap<InstanceId, Gone>, CloudError>),
}

/// A read in flight.
pub(crate) struct Reading;

impl Reading {
    /// Reads one source; of the tasks, what is asked for.
    pub(crate) fn of<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
        ports: &Ports<C, E, S, J, K>,
        source: Source,
        scope: TaskScope,
    ) -> BoxFuture<'static, Read> {
        let ports = ports.clone();
        Box::pin(async move {
            let began = ports.clock.now();
            let late = || ClearMlError::Unavailable(format!("reading {source}: no answer in time"));
            let found = match source {
                Source::Queues => Found::Queues(
                    within(&ports.clock, ports.clearml.queues()).await.unwrap_or_else(|| Err(late())),
                ),
                Source::Workers => Found::Workers(
                    within(&ports.clock, ports.clearml.workers()).await.unwrap_or_else(|| Err(late())),
                ),
                Source::Tasks => Found::Tasks(
                    within(&ports.clock, ports.clearml.tasks(&scope)).await.unwrap_or_else(|| Err(late())),
                ),
                Source::Cloud => Found::Cloud(
                    within(&ports.clock, ports.cloud.describe())
                        .await
                        .unwrap_or_else(|| Err(CloudError::Other("describe: no answer in time".to_owned()))),
                ),
            };
            Read { began, found }
        })
    }

    /// Asks EC2 about machines by id.
    pub(crate) fn gone<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock>(
        ports: &Ports<C, E, S, J, K>,
        ids: BTreeSet<InstanceId>,
    ) -> BoxFuture<'static, Read> {
        let ports = ports.clone();
        Box::pin(async move {
            let began = ports.clock.now();
            let found = within(&ports.clock, ports.cloud.gone(&ids))
                .await
                .unwrap_or_else(|| Err(CloudError::Other("describe by id: no answer in time".to_owned())));
            Read { began, found: Found::Gone(found) }
        })
    }
}

impl Read {
    /// Whether it is one of the queues.
    pub(crate) fn is_of_queues(&self) -> bool {
        matches!(self.found, Found::Queues(Ok(_)))
    }

    /// Stores what came of it; which source it was, if it was one that is read regularly.
    pub(crate) fn store(self, views: &mut Views) -> Option<Source> {
        let began = self.began;
        let (source, error) = match self.found {
            Found::Queues(Ok(queues)) => {
                views.queues.succeed(queues, began);
                (Source::Queues, None)
            }
            Found::Queues(Err(error)) => {
                views.queues.fail(began);
                (Source::Queues, Some(error.to_string()))
            }
            Found::Workers(Ok(workers)) => {
                views.workers.succeed(workers, began);
                (Source::Workers, None)
            }
            Found::Workers(Err(error)) => {
                views.workers.fail(began);
                (Source::Workers, Some(error.to_string()))
            }
            Found::Tasks(Ok(tasks)) => {
                views.tasks.succeed(tasks, began);
                (Source::Tasks, None)
            }
            Found::Tasks(Err(error)) => {
                views.tasks.fail(began);
                (Source::Tasks, Some(error.to_string()))
            }
            Found::Cloud(Ok(instances)) => {
                views.cloud.succeed(instances, began);
                (Source::Cloud, None)
            }
            Found::Cloud(Err(error)) => {
                views.cloud.fail(began);
                (Source::Cloud, Some(error.to_string()))
            }
            Found::Gone(Ok(gone)) => {
                for (id, gone) in gone {
                    let loss = views.losses.entry(id).or_insert(Loss {
                        first_seen: began,
                        by_spot: false,
                        was_ours: false,
                    });
                    loss.by_spot |= gone.by_spot;
                    loss.was_ours |= gone.ours;
                }
                return None;
            }
            Found::Gone(Err(error)) => {
                tracing::debug!("instances could not be looked up: {error}");
                return None;
            }
        };
        if let Some(error) = error {
            // Once when it begins to fail: an outage of hours is not thousands of lines.
            if views.failures(source) == 1 {
                tracing::warn!(%source, "{error}");
            } else {
                tracing::debug!(%source, "{error}");
            }
        }
        Some(source)
    }
}

/// How long until a source is read again: its interval, doubled with every failure in a row up to a
/// minute, and never in step with other controllers when it fails.
pub(crate) fn next_delay(interval: Duration, failures: u32, now: Time) -> Duration {
    if failures == 0 {
        return interval;
    }
    let grown = interval.saturating_mul(1 << failures.min(6)).min(LONGEST_DELAY).max(interval);
    grown.mul_f64(1.0 - spread(Duration::from_millis(now.0)))
}
