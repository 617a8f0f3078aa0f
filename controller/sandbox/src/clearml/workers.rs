//! `workers.*`. A worker lives for its time-out after the last report, whether its machine does or not.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::document::{self, Doc, now};
use super::endpoints::{Endpoint, V1, V2_4};
use super::error::ApiError;
use super::state::{State, Worker};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("workers.get_all", V2_4, get_all),
    Endpoint::new("workers.get_count", V1, get_count),
    Endpoint::new("workers.register", V2_4, register),
    Endpoint::new("workers.unregister", V2_4, unregister),
    Endpoint::new("workers.status_report", V2_4, status_report),
];

impl State {
    /// The time-outs are kept here: whoever reads workers calls this first.
    pub(crate) fn forget_silent_workers(&mut self) {
        self.workers.retain(|_, worker| worker.seen.elapsed() < worker.timeout);
    }

    /// As `queues.get_all_ex` shows them.
    pub(crate) fn workers_of_queue(&self, queue: &str) -> Vec<Value> {
        let serving = self.workers.iter().filter(|(_, worker)| worker.queues.iter().any(|id| id == queue));
        serving
            .map(|((_, id), worker)| {
                let mut doc = Doc::new();
                doc.insert("name".into(), id.clone().into());
                doc.insert("ip".into(), worker.doc.get("ip").cloned().unwrap_or_default());
                doc.insert("key".into(), worker.doc.get("key").cloned().unwrap_or_default());
                if let Some(task) = &worker.task {
                    doc.insert("task".into(), self.task_reference(task));
                }
                doc.into()
            })
            .collect()
    }

    fn worker(&mut self, call: &Call, id: &str) -> &mut Worker {
        let (company, timeout) = (self.company.clone(), self.worker_timeout);
        let user = State::reference(&call.user, Some(self.user_name(&call.user)));
        self.workers.entry((call.user.clone(), id.to_owned())).or_insert_with(|| {
            let doc = json!({
                "id": id,
                "key": format!("worker_{company}_{}_{id}", call.user),
                "company": { "id": company, "name": "clearml" },
                "user": user,
                "ip": call.ip,
                "tags": [],
                "system_tags": [],
                "register_time": now(),
                "register_timeout": timeout.as_secs(),
                "last_activity_time": now(),
            });
            Worker {
                doc: doc.as_object().cloned().unwrap_or_default(),
                queues: Vec::new(),
                queue: None,
                task: None,
                timeout,
                seen: Instant::now(),
            }
        })
    }

    fn shown_queue(&self, id: &str) -> Value {
        let Some(queue) = self.queues.get(id) else { return json!({ "id": id }) };
        let mut shown = json!({ "id": id, "name": queue.doc.get("name"), "num_tasks": queue.entries.len() });
        if let Some(first) = queue.entries.front() {
            shown["next_task"] = self.task_reference(&first.task);
        }
        shown
    }

    fn shown_worker(&self, worker: &Worker) -> Doc {
        let mut doc = worker.doc.clone();
        let queues: Vec<Value> = worker.queues.iter().map(|id| self.shown_queue(id)).collect();
        document::set(&mut doc, "queues", queues);
        if let Some(queue) = &worker.queue {
            document::set(&mut doc, "queue", self.shown_queue(queue));
        }
        if let Some(id) = &worker.task {
            let mut shown = self.task_reference(id);
            if let Some(task) = self.tasks.get(id) {
                let seconds = task.doc.get("active_duration").and_then(Value::as_u64).unwrap_or(0);
                shown["running_time"] = json!(seconds * 1000);
                shown["last_iteration"] = task.doc.get("last_iteration").cloned().unwrap_or_default();
            }
            document::set(&mut doc, "task", shown);
        }
        doc
    }
}

fn get_all(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    state.forget_silent_workers();
    let workers: Vec<Doc> = seen_lately(state, call).map(|worker| state.shown_worker(worker)).collect();
    Ok(json!({ "workers": workers }))
}

fn get_count(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    state.forget_silent_workers();
    Ok(json!({ "count": seen_lately(state, call).count() }))
}

fn seen_lately<'a>(state: &'a State, call: &Call) -> impl Iterator<Item = &'a Worker> {
    let limit = match call.number("last_seen") {
        None | Some(0) => Duration::MAX,
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1)),
    };
    state.workers.values().filter(move |worker| worker.seen.elapsed() <= limit)
}

fn register(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("worker")?.to_owned();
    let queues = call.texts("queues");
    if let Some(unknown) = queues.iter().find(|queue| state.queues.get(queue).is_none()) {
        return Err(ApiError::no_queue(unknown, &state.company));
    }
    let seconds =
        call.number("timeout").and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let timeout = seconds.map_or(state.worker_timeout, Duration::from_secs);
    // A registration starts afresh, whatever the worker of that name did before.
    state.workers.remove(&(call.user.clone(), id.clone()));
    let worker = state.worker(call, &id);
    worker.timeout = timeout;
    worker.queues = queues;
    document::set(&mut worker.doc, "register_timeout", timeout.as_secs());
    tag(worker, call);
    Ok(json!({}))
}

fn tag(worker: &mut Worker, call: &Call) {
    for field in ["tags", "system_tags"] {
        if call.data.get(field).is_some_and(Value::is_array) {
            document::set(&mut worker.doc, field, call.texts(field));
        }
    }
}

fn unregister(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    state.workers.remove(&(call.user.clone(), call.text("worker")?.to_owned()));
    Ok(json!({}))
}

fn status_report(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("worker")?;
    if call.number("timestamp").is_none() {
        return Err(ApiError::missing("timestamp"));
    }
    state.forget_silent_workers();
    let task = call.text_or_none("task")?.filter(|task| !task.is_empty()).map(str::to_owned);
    let queue = call.text_or_none("queue")?.map(str::to_owned);
    let queues = call.texts("queues");
    let known = task.as_ref().is_none_or(|task| state.tasks.get(task).is_some());

    let worker = state.worker(call, id);
    worker.seen = Instant::now();
    document::set(&mut worker.doc, "ip", call.ip.clone());
    document::set(&mut worker.doc, "last_activity_time", now());
    tag(worker, call);
    worker.queue = queue;
    if !queues.is_empty() {
        worker.queues = queues;
    }
    if known {
        worker.task.clone_from(&task);
        document::set(&mut worker.doc, "last_report_time", now());
    }

    if let Some(task) = task {
        let task = state.task_mut(&task)?;
        document::set(&mut task.doc, "last_worker", id);
        document::set(&mut task.doc, "last_worker_report", now());
        task.touch(&call.user);
    }
    Ok(json!({}))
}
