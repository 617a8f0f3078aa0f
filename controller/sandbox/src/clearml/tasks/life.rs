//! The life of a task: queued, started, stopped, completed, failed, put back.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::call::Call;
use super::super::document::{self, Doc, now};
use super::super::endpoints::{Endpoint, V1};
use super::super::error::ApiError;
use super::super::record::StatusChange;
use super::super::state::State;
use super::super::status::Status;
use super::create::keep_input_artifacts;

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.enqueue", V1, enqueue),
    Endpoint::new("tasks.dequeue", V1, dequeue),
    Endpoint::new("tasks.started", V1, started),
    Endpoint::new("tasks.ping", V1, ping),
    Endpoint::new("tasks.stop", V1, stop),
    Endpoint::new("tasks.stopped", V1, stopped),
    Endpoint::new("tasks.completed", V1, completed),
    Endpoint::new("tasks.failed", V1, failed),
    Endpoint::new("tasks.close", V1, close),
    Endpoint::new("tasks.publish", V1, publish),
    Endpoint::new("tasks.reset", V1, reset),
    Endpoint::new("tasks.delete", V1, delete),
];

/// What the watchdog writes, and whoever acts in its stead.
const NOT_RESPONSIVE: &str = "Forced stop (non-responsive)";
/// A worker that let a task be silent for longer does not run it.
const WORKER_SILENCE: Duration = Duration::from_secs(600);

/// One change of status, by whom and why.
struct Change<'a> {
    to: Status,
    force: bool,
    reason: &'a str,
    message: &'a str,
    by: &'a str,
    user: &'a str,
    worker: Option<String>,
    extra: Doc,
}

impl<'a> Change<'a> {
    fn of(call: &'a Call, to: Status) -> Result<Self, ApiError> {
        Ok(Self {
            to,
            force: call.flag("force"),
            reason: call.text_or_none("status_reason")?.unwrap_or_default(),
            message: call.text_or_none("status_message")?.unwrap_or_default(),
            by: call.endpoint,
            user: &call.user,
            worker: call.worker.clone(),
            extra: Doc::new(),
        })
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(field.to_owned(), value.into());
        self
    }
}

/// Changes the status if that is allowed; returns the fields that changed.
fn change(state: &mut State, id: &str, change: Change<'_>) -> Result<Doc, ApiError> {
    let task = state.task_mut(id)?;
    let from = task.status;
    if !change.force {
        from.check_change(change.to)?;
    }
    let time = now();
    let mut fields = Doc::new();
    for (field, value) in [
        ("status", json!(change.to)),
        ("status_reason", json!(change.reason)),
        ("status_message", json!(change.message)),
        ("status_changed", json!(time)),
    ] {
        fields.insert(field.to_owned(), value);
    }
    fields.extend(change.extra);
    for (field, value) in &fields {
        if value.is_null() {
            document::unset(&mut task.doc, field);
        } else {
            document::set(&mut task.doc, field, value.clone());
        }
    }
    task.touch(change.user);
    task.status = change.to;
    if from != change.to {
        task.started = (change.to == Status::InProgress).then(Instant::now);
        task.history.push(StatusChange {
            at: SystemTime::now(),
            from,
            to: change.to,
            by: change.by.to_owned(),
            worker: change.worker,
        });
    }
    for field in ["last_update", "last_change", "last_changed_by"] {
        fields.insert(field.to_owned(), task.doc.get(field).cloned().unwrap_or_default());
    }
    Ok(fields)
}

pub(super) fn enqueue(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let task = state.task(id)?;
    let before = match document::text(&task.doc, "enqueue_status") {
        Some(before) if task.status == Status::Queued => before.to_owned(),
        Some(_) | None => task.status.as_str().to_owned(),
    };
    let queue = target_queue(state, call)?;
    if !call.flag("force") {
        task_status(state, id)?.check_change(Status::Queued)?;
    }
    state.queue_mut(&queue)?.push(id)?;
    let wanted = Change::of(call, Status::Queued)?.with("enqueue_status", before);
    let fields = change(state, id, wanted.with("execution.queue", queue.clone()))?;
    for other in state.queues.values_mut() {
        if document::text(&other.doc, "id") != Some(&queue) {
            other.remove(id);
        }
    }
    let task = state.task_mut(id)?;
    document::list(&mut task.doc, "system_tags").retain(|tag| tag != "development");
    Ok(json!({ "queued": 1, "updated": 1, "fields": fields }))
}

fn task_status(state: &State, id: &str) -> Result<Status, ApiError> {
    Ok(state.task(id)?.status)
}

/// By id, by name (made if missing), or the default one.
fn target_queue(state: &mut State, call: &Call) -> Result<String, ApiError> {
    if let Some(id) = call.text_or_none("queue")?.filter(|id| !id.is_empty()) {
        state.queue(id)?;
        return Ok(id.to_owned());
    }
    let wanted = call.text_or_none("queue_name")?.unwrap_or("default");
    let known = state.queues.values().find(|queue| document::text(&queue.doc, "name") == Some(wanted));
    if let Some(queue) = known {
        return Ok(super::super::state::id_of(&queue.doc));
    }
    document::check_name(wanted)?;
    let doc = state.new_doc(&call.user, wanted);
    Ok(state.insert_queue(doc))
}

pub(super) fn dequeue(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let task = state.task(id)?;
    if task.status != Status::Queued {
        let message = format!("Invalid task status: status={}, expected=queued", task.status.as_str());
        return Err(ApiError::new(400, 110, message));
    }
    let back = match document::text(&task.doc, "enqueue_status") {
        Some("stopped") => Status::Stopped,
        Some("failed") => Status::Failed,
        Some("completed") => Status::Completed,
        Some(_) | None => Status::Created,
    };
    leave_queues(state, id);
    let mut wanted = Change::of(call, back)?.with("enqueue_status", Value::Null);
    wanted.force = true;
    let fields = change(state, id, wanted)?;
    Ok(json!({ "dequeued": 1, "updated": 1, "fields": fields }))
}

fn leave_queues(state: &mut State, id: &str) {
    for queue in state.queues.values_mut() {
        queue.remove(id);
    }
}

fn started(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let since = document::text(&state.task(id)?.doc, "started").map(str::to_owned);
    let wanted = Change::of(call, Status::InProgress)?.with("started", since.unwrap_or_else(now));
    let fields = change(state, id, wanted)?;
    Ok(json!({ "started": 1, "updated": 1, "fields": fields }))
}

fn ping(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    state.task_mut(call.text("task")?)?.touch(&call.user);
    Ok(json!({}))
}

/// A task that a worker runs is only told to stop; the worker does it.
pub(super) fn stop(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let task = state.task(id)?;
    let system_tags = task.doc.get("system_tags").and_then(Value::as_array);
    let development = system_tags.is_some_and(|tags| tags.iter().any(|tag| tag == "development"));
    let run_by_worker =
        document::text(&task.doc, "last_worker").is_some() && task.touched.elapsed() < WORKER_SILENCE;
    let mut wanted = Change::of(call, Status::Stopped)?;
    let by_user = format!("Stopped by {}", state.user_name(&call.user));
    if task.status == Status::Queued || development || !run_by_worker {
        wanted.message = &by_user;
        leave_queues(state, id);
    } else {
        wanted.to = task.status;
        wanted.message = "stopping";
    }
    let fields = change(state, id, wanted)?;
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn ended(state: &mut State, call: &Call, to: Status) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let wanted = Change::of(call, to)?.with("completed", now());
    let fields = change(state, id, wanted)?;
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn stopped(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    ended(state, call, Status::Stopped)
}

fn completed(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    ended(state, call, Status::Completed)
}

fn failed(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    ended(state, call, Status::Failed)
}

fn close(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    ended(state, call, Status::Closed)
}

fn publish(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let wanted = Change::of(call, Status::Published)?.with("published", now());
    let fields = change(state, id, wanted)?;
    Ok(json!({ "updated": 1, "committed_versions_results": [], "fields": fields }))
}

/// Back to `created`: what the run left behind goes.
pub(super) fn reset(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let status = task_status(state, id)?;
    if status == Status::Published && !call.flag("force") {
        return Err(ApiError::new(400, 110, format!("Invalid task status: task_id={id}, status=published")));
    }
    if !call.flag("force") {
        status.check_change(Status::Created)?;
    }
    leave_queues(state, id);
    state.events.remove(id);
    let mut wanted = Change::of(call, Status::Created)?;
    wanted.reason = "reset";
    wanted.message = "reset";
    for (field, value) in [
        ("last_iteration", json!(0)),
        ("last_metrics", json!({})),
        ("unique_metrics", json!([])),
        ("metric_stats", json!({})),
        ("models.output", json!([])),
        ("runtime", json!({})),
        ("output.error", Value::Null),
        ("last_worker", Value::Null),
        ("last_worker_report", Value::Null),
        ("started", Value::Null),
        ("completed", Value::Null),
        ("published", Value::Null),
        ("active_duration", Value::Null),
        ("enqueue_status", Value::Null),
        ("execution.queue", Value::Null),
    ] {
        wanted = wanted.with(field, value);
    }
    let fields = change(state, id, wanted)?;
    keep_input_artifacts(&mut state.task_mut(id)?.doc);
    Ok(json!({ "updated": 1, "fields": fields, "dequeued": {}, "deleted_models": 0, "urls": null }))
}

pub(super) fn delete(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let task = state.task(id)?;
    let system_tags = task.doc.get("system_tags").and_then(Value::as_array);
    let archived = system_tags.is_some_and(|tags| tags.iter().any(|tag| tag == "archived"));
    if task.status != Status::Created && !archived && !call.flag("force") {
        let status = task.status.as_str();
        let message = format!(
            "Task cannot be deleted (due to status, use force=True): task={id}, expected=created, current={status}"
        );
        return Err(ApiError::new(400, 123, message));
    }
    leave_queues(state, id);
    state.events.remove(id);
    state.tasks.remove(id);
    Ok(
        json!({ "deleted": true, "updated_children": 0, "updated_models": 0, "deleted_models": 0, "urls": null }),
    )
}

/// Stops the running tasks of which nothing was heard for so long; returns how many.
pub(crate) fn stop_silent(state: &mut State, silence: Duration) -> usize {
    let silent: Vec<String> = state
        .tasks
        .values()
        .filter(|task| task.status == Status::InProgress && task.touched.elapsed() >= silence)
        .map(|task| super::super::state::id_of(&task.doc))
        .collect();
    let mut stopped = 0;
    for id in silent {
        let wanted = Change {
            to: Status::Stopped,
            force: false,
            reason: NOT_RESPONSIVE,
            message: NOT_RESPONSIVE,
            by: "watchdog",
            user: "__watchdog__",
            worker: None,
            extra: Doc::new(),
        };
        stopped += usize::from(change(state, &id, wanted.with("completed", now())).is_ok());
    }
    stopped
}
