//! ClearML behind the engine's port.

use std::collections::BTreeMap;
use std::time::Duration;

use clearml::Client;
use engine::ports::{ClearMl, ClearMlError};
use planner::{QueueName, TaskId, TaskRef, Worker, WorkerId};

/// Longer than any agent stays listed after its last report.
const SEEN: Duration = Duration::from_secs(3600);

/// ClearML, for one prefix.
#[derive(Clone, Debug)]
pub struct LiveClearMl {
    client: Client,
    prefix: String,
}

impl LiveClearMl {
    /// The workers of this prefix are ours.
    pub fn new(client: Client, prefix: String) -> Self {
        Self { client, prefix }
    }
}

impl ClearMl for LiveClearMl {
    async fn queues(&self) -> Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError> {
        let queues = self.client.queues().await.map_err(|error| by_meaning(&error))?;
        Ok(queues
            .into_iter()
            .filter_map(|queue| {
                let waiting = queue.entries.into_iter().map(|entry| TaskId(entry.task)).collect();
                Some((QueueName(queue.name?), waiting))
            })
            .collect())
    }

    async fn workers(&self) -> Result<BTreeMap<WorkerId, Worker>, ClearMlError> {
        let workers = self.client.workers(SEEN).await.map_err(|error| by_meaning(&error))?;
        let ours = workers
            .into_iter()
            .filter(|worker| worker.id.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(':')));
        Ok(ours
            .map(|worker| (WorkerId(worker.id), Worker { task: worker.task.map(|task| TaskId(task.id)) }))
            .collect())
    }

    async fn running_tasks(&self) -> Result<Vec<TaskRef>, ClearMlError> {
        let tasks = self.client.running_tasks().await.map_err(|error| by_meaning(&error))?;
        Ok(tasks
            .into_iter()
            .map(|task| TaskRef { task: TaskId(task.id), last_worker: task.last_worker.map(WorkerId) })
            .collect())
    }

    async fn unregister(&self, worker: &WorkerId) -> Result<(), ClearMlError> {
        self.client.unregister_worker(worker.as_str()).await.map_err(|error| by_meaning(&error))
    }
}

fn by_meaning(error: &clearml::Error) -> ClearMlError {
    if error.is_transient() {
        ClearMlError::Unavailable(error.to_string())
    } else {
        ClearMlError::Refused(error.to_string())
    }
}
