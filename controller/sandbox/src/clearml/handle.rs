//! The sandbox's back door: set up work, plan faults, read what happened. In process, without HTTP.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::API_VERSION;
use super::auth::Credential;
use super::call::Call;
use super::document;
use super::endpoints;
use super::error::ApiError;
use super::faults::Fault;
use super::record::{Pop, RequestRecord, StatusChange};
use super::state::{State, Task, id_of};
use super::status::Status;

/// Cheap to clone; all clones mean the same server.
#[derive(Clone)]
pub struct Handle {
    state: Arc<Mutex<State>>,
    /// Counts what clients did, so that tests can wait for it.
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct TaskInfo {
    pub id: String,
    pub name: String,
    pub status: Status,
    pub status_reason: String,
    pub status_message: String,
    /// The queue it was last put into, even after it left it.
    pub queue: Option<String>,
    pub last_worker: Option<String>,
    /// How often it went into `in_progress` from something else: 1 for a task that ran once.
    pub starts: usize,
    pub history: Vec<StatusChange>,
}

#[derive(Debug, Clone, Serialize)]
pub struct QueueInfo {
    pub id: String,
    pub name: String,
    /// Ids of the waiting tasks, the next one first.
    pub entries: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct WorkerInfo {
    pub id: String,
    pub user: String,
    pub task: Option<String>,
    pub queues: Vec<String>,
}

/// What was waited for did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("nothing of the kind within {0:?}")]
pub struct TimedOut(pub Duration);

impl Handle {
    pub(super) fn new(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), changes: Arc::new(watch::Sender::new(0)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Calls an endpoint as the server's first user. The reply is what HTTP shows as `data`.
    pub fn call(&self, endpoint: &str, data: Value) -> Result<Value, ApiError> {
        let Some((endpoint, _)) = endpoints::find(endpoint, API_VERSION) else {
            return Err(ApiError::no_endpoint(endpoint, "the newest"));
        };
        let Value::Object(data) = data else {
            return Err(ApiError::new(500, 0, "Data should be a dict"));
        };
        let reply = {
            let mut state = self.state();
            let user = state.users.first().map(|(id, _)| id.clone()).unwrap_or_default();
            let ip = Ipv4Addr::LOCALHOST.to_string();
            let call = Call { endpoint: endpoint.name, user, worker: None, ip, data, batch: None };
            (endpoint.run)(&mut state, &call)
        };
        self.changed();
        reply
    }

    /// Makes a queue; returns its id. The name needs three characters and must be new.
    pub fn create_queue(&self, name: &str) -> Result<String, ApiError> {
        self.call("queues.create", json!({ "name": name })).map(|reply| text(&reply, "id"))
    }

    /// Makes a task that takes so long, both for a real agent (a shell script) and for a stand-in (the
    /// hyperparameter `Args/seconds`), and puts it into a queue (by id) if one is given. Returns its id.
    pub fn create_task(&self, name: &str, seconds: f64, queue: Option<&str>) -> Result<String, ApiError> {
        let id = self.create_script(name, &format!("echo started\nsleep {seconds}\necho done\n"))?;
        let param = json!({ "section": "Args", "name": "seconds", "value": seconds.to_string() });
        self.call("tasks.edit_hyper_params", json!({ "task": id, "hyperparams": [param] }))?;
        if let Some(queue) = queue {
            self.enqueue(&id, queue)?;
        }
        Ok(id)
    }

    /// Makes a task that runs a shell script, without a Python environment of its own. Returns its id.
    pub fn create_script(&self, name: &str, script: &str) -> Result<String, ApiError> {
        let task = json!({
            "name": name,
            "type": "training",
            "script": {
                "binary": "bash",
                "entry_point": "run.sh",
                "working_dir": ".",
                "requirements": { "pip": "" },
                "diff": script,
            },
        });
        self.call("tasks.create", task).map(|reply| text(&reply, "id"))
    }

    /// Both by id.
    pub fn enqueue(&self, task: &str, queue: &str) -> Result<(), ApiError> {
        self.call("tasks.enqueue", json!({ "task": task, "queue": queue })).map(|_| ())
    }

    pub fn task(&self, id: &str) -> Option<TaskInfo> {
        self.state().tasks.get(id).map(task_info)
    }

    /// In the order of their creation.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.state().tasks.values().map(task_info).collect()
    }

    pub fn queues(&self) -> Vec<QueueInfo> {
        let state = self.state();
        let queues = state.queues.values().map(|queue| QueueInfo {
            id: id_of(&queue.doc),
            name: document::text(&queue.doc, "name").unwrap_or_default().to_owned(),
            entries: queue.entries.iter().map(|entry| entry.task.clone()).collect(),
        });
        queues.collect()
    }

    /// Those that the server would list now, ghosts included.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let mut state = self.state();
        state.forget_silent_workers();
        let workers = state.workers.iter().map(|((user, id), worker)| WorkerInfo {
            id: id.clone(),
            user: user.clone(),
            task: worker.task.clone(),
            queues: worker.queues.clone(),
        });
        workers.collect()
    }

    /// The lines of a task's console.
    pub fn console(&self, task: &str) -> Vec<String> {
        let state = self.state();
        let lines = state.events.get(task).into_iter().flat_map(|events| &events.console);
        lines.map(|line| document::text(line, "msg").unwrap_or_default().to_owned()).collect()
    }

    /// How often clients called an endpoint over HTTP, failures included.
    pub fn count(&self, endpoint: &str) -> u64 {
        self.state().record.counts.get(endpoint).copied().unwrap_or(0)
    }

    /// Calls over HTTP by endpoint, since the start.
    pub fn counts(&self) -> HashMap<String, u64> {
        self.state().record.counts.clone()
    }

    /// The newest 100,000 requests over HTTP, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state().record.requests.iter().cloned().collect()
    }

    /// The newest 100,000 pops, oldest first, those of empty queues included.
    pub fn pops(&self) -> Vec<Pop> {
        self.state().record.pops.iter().cloned().collect()
    }

    /// Plans a fault for an endpoint (`tasks.started`), a service (`tasks.*`) or all (`*`): so many times,
    /// or until the faults are cleared. Of several that fit, the first planned comes first.
    pub fn inject(&self, endpoint: &str, fault: Fault, times: Option<u32>) {
        self.state().faults.plan(endpoint, fault, times);
    }

    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Adds a user with keys of its own.
    pub fn add_user(&self, id: &str, access_key: &str, secret_key: &str) {
        let mut state = self.state();
        state.users.push((id.to_owned(), id.to_owned()));
        state.credentials.push(Credential::new(access_key, secret_key, id));
    }

    /// Makes every token worthless that was given so far, as a restart with a new secret does.
    pub fn expire_tokens(&self) {
        self.state().token_key = rand::random();
    }

    /// Makes one worker's silence long enough for the server to forget it. Returns false if there is none.
    pub fn forget_worker(&self, id: &str) -> bool {
        let mut state = self.state();
        let before = state.workers.len();
        state.workers.retain(|(_, known), _| known != id);
        before != state.workers.len()
    }

    /// Waits until something is true of the server; it is looked at after every call that a client makes.
    pub async fn wait(&self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<(), TimedOut> {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !done(self) {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| TimedOut(limit))
    }
}

fn text(reply: &Value, field: &str) -> String {
    reply[field].as_str().unwrap_or_default().to_owned()
}

fn task_info(task: &Task) -> TaskInfo {
    let text = |field: &str| document::text(&task.doc, field).map(str::to_owned);
    TaskInfo {
        id: id_of(&task.doc),
        name: text("name").unwrap_or_default(),
        status: task.status,
        status_reason: text("status_reason").unwrap_or_default(),
        status_message: text("status_message").unwrap_or_default(),
        queue: text("execution.queue"),
        last_worker: text("last_worker"),
        starts: task.history.iter().filter(|change| change.to == Status::InProgress).count(),
        history: task.history.clone(),
    }
}
