//! What happened, for tests that prove that no task was lost, killed or run twice.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use serde::Serialize;

use super::status::Status;

/// The newest requests and pops that are kept; counters go on.
const KEPT: usize = 100_000;

/// One request, after its answer.
#[derive(Debug, Clone, Serialize)]
pub struct RequestRecord {
    pub at: SystemTime,
    /// `queues.get_next_task`; for what is no endpoint, the path.
    pub endpoint: String,
    /// The HTTP status of the answer, 0 if the connection was dropped on purpose.
    pub status: u16,
    /// What the client called itself (`X-ClearML-Worker`).
    pub worker: Option<String>,
}

/// One call of `queues.get_next_task` that the server carried out.
#[derive(Debug, Clone, Serialize)]
pub struct Pop {
    pub at: SystemTime,
    pub queue: String,
    /// None: the queue was empty.
    pub task: Option<String>,
    pub worker: Option<String>,
}

/// One change of a task's status.
#[derive(Debug, Clone, Serialize)]
pub struct StatusChange {
    pub at: SystemTime,
    pub from: Status,
    pub to: Status,
    /// The endpoint that did it, or `watchdog`.
    pub by: String,
    /// What the client called itself (`X-ClearML-Worker`).
    pub worker: Option<String>,
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) requests: VecDeque<RequestRecord>,
    pub(crate) counts: HashMap<String, u64>,
    pub(crate) pops: VecDeque<Pop>,
}

impl Record {
    pub(crate) fn request(&mut self, endpoint: &str, status: u16, worker: Option<String>) {
        *self.counts.entry(endpoint.to_owned()).or_default() += 1;
        push(
            &mut self.requests,
            RequestRecord { at: SystemTime::now(), endpoint: endpoint.to_owned(), status, worker },
        );
    }

    pub(crate) fn pop(&mut self, queue: &str, task: Option<&str>, worker: Option<String>) {
        let (queue, task) = (queue.to_owned(), task.map(str::to_owned));
        push(&mut self.pops, Pop { at: SystemTime::now(), queue, task, worker });
    }
}

fn push<T>(kept: &mut VecDeque<T>, item: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(item);
}
