//! ClearML behind the engine's port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clearml::{Client, LIFE_FIELDS, Task, TaskQuery, Timestamp};
use engine::ports::{ClearMl, ClearMlError, Clock, TaskList, TaskScope, Workers};
use planner::{OtherWorker, QueueName, Seen, TaskId, TaskStep, Time, Worker, WorkerId};

use super::clock::LiveClock;
use super::tasks::{self, TAG, millis};

/// Longer than any agent stays listed after its last report.
const SEEN: Duration = Duration::from_secs(3600);
/// Tasks that are asked for by id in one call.
const BATCH: usize = 200;

/// ClearML, for one prefix.
#[derive(Debug)]
pub struct LiveClearMl {
    client: Client,
    prefix: String,
    clock: LiveClock,
    /// Queues' names by their ids, as the last read of them gave them.
    queues: Mutex<BTreeMap<String, QueueName>>,
}

impl LiveClearMl {
    /// The workers of this prefix are ours.
    pub fn new(client: Client, prefix: String, clock: LiveClock) -> Self {
        Self { client, prefix, clock, queues: Mutex::default() }
    }

    /// By how many milliseconds the server's clock is ahead.
    fn server_ahead_ms(&self) -> Option<i64> {
        let server = millis(self.client.server_time()?)?;
        i64::try_from(i128::from(server.0) - i128::from(self.clock.now().0)).ok()
    }

    fn queues_by_id(&self) -> BTreeMap<String, QueueName> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An instant of our clock on the server's.
    fn on_servers_clock(&self, time: Time) -> Option<Timestamp> {
        let ahead = self.server_ahead_ms()?;
        Timestamp::from_millisecond(i64::try_from(time.0).ok()?.checked_add(ahead)?).ok()
    }

    async fn listed(&self, query: &TaskQuery<'_>) -> Result<Vec<Task>, ClearMlError> {
        let query = TaskQuery { only_fields: LIFE_FIELDS, ..query.clone() };
        self.client.tasks(&query).await.map_err(|error| by_meaning(&error))
    }
}

impl ClearMl for LiveClearMl {
    async fn queues(&self) -> Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError> {
        let queues = self.client.queues().await.map_err(|error| by_meaning(&error))?;
        let mut by_id = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for queue in queues {
            let Some(name) = queue.name.map(QueueName) else { continue };
            waiting.insert(name.clone(), queue.entries.into_iter().map(|entry| TaskId(entry.task)).collect());
            by_id.insert(queue.id, name);
        }
        *self.queues.lock().unwrap_or_else(PoisonError::into_inner) = by_id;
        Ok(waiting)
    }

    async fn workers(&self) -> Result<Workers, ClearMlError> {
        let listed = self.client.workers(SEEN).await.map_err(|error| by_meaning(&error))?;
        let mut workers = Workers::default();
        for worker in listed {
            let ours = worker.id.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(':'));
            let task = worker.task.map(|task| TaskId(task.id));
            if ours {
                workers.ours.insert(WorkerId(worker.id), Worker { task });
            } else {
                let queues = worker.queues.into_iter().filter_map(|queue| queue.name.map(QueueName));
                let queues = queues.collect();
                workers.others.insert(WorkerId(worker.id), OtherWorker { queues, task });
            }
        }
        Ok(workers)
    }

    async fn tasks(&self, scope: &TaskScope) -> Result<TaskList, ClearMlError> {
        let mut found = self.listed(&TaskQuery { status: &["in_progress"], ..TaskQuery::default() }).await?;
        found.extend(self.listed(&TaskQuery { tags: &[TAG], ..TaskQuery::default() }).await?);
        match scope.queued_since.and_then(|since| self.on_servers_clock(since)) {
            Some(since) => {
                let queued = self.client.queued_since(since, LIFE_FIELDS).await;
                found.extend(queued.map_err(|error| by_meaning(&error))?);
            }
            None => {
                found.extend(self.listed(&TaskQuery { status: &["queued"], ..TaskQuery::default() }).await?);
            }
        }
        let ids: Vec<&str> = scope.ids.iter().map(TaskId::as_str).collect();
        for batch in ids.chunks(BATCH) {
            found.extend(self.listed(&TaskQuery { id: batch, ..TaskQuery::default() }).await?);
        }
        // What changed between two of these calls is there twice: the later one has the last word.
        let mut seen = BTreeSet::new();
        let by_id = self.queues_by_id();
        let latest = found.into_iter().rev().filter(|task| seen.insert(task.id.clone()));
        let tasks = latest.map(|task| tasks::task_ref(task, &by_id)).collect();
        Ok(TaskList { tasks, server_ahead_ms: self.server_ahead_ms() })
    }

    async fn step(&self, task: &TaskId, seen: &Seen, step: &TaskStep) -> Result<(), ClearMlError> {
        let by_id = self.queues_by_id();
        let queue_id =
            |wanted: &QueueName| by_id.iter().find(|(_, name)| *name == wanted).map(|(id, _)| id.clone());
        tasks::take(&self.client, task, seen, step, queue_id).await
    }

    async fn unregister(&self, worker: &WorkerId) -> Result<(), ClearMlError> {
        self.client.unregister_worker(worker.as_str()).await.map_err(|error| by_meaning(&error))
    }
}

pub(super) fn by_meaning(error: &clearml::Error) -> ClearMlError {
    if error.is_transient() {
        ClearMlError::Unavailable(error.to_string())
    } else {
        ClearMlError::Refused(error.to_string())
    }
}
