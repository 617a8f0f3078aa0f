//! Tasks on ClearML's wire: how they are read for the loop, and how a step is written on one.
//!
//! Our notes stand in the task's `runtime` under names of our own, where a restarted controller finds them; a
//! tag makes such tasks filterable, for us and for people. The tag goes on last and comes off last, so that
//! what carries it is whole.

use std::collections::BTreeMap;

use clearml::{Client, Error, LIFE_FIELDS, StatusNote, Task, TaskEdit, TaskQuery, Timestamp};
use engine::ports::ClearMlError;
use planner::{
    Cause, InstanceId, Marks, NOT_RESPONSIVE, PutBack, QueueName, REASON, STOPPED_AS_ASKED, Seen, TaskId,
    TaskRef, TaskStatus, TaskStep, Time, WorkerId,
};
use serde_json::{Map, Value, json};

use super::clearml::by_meaning;

/// On every task that is being interrupted or put back.
pub(crate) const TAG: &str = "autoscaler:interrupted";
/// On one that is being reset, with the number of the attempt: a reset clears the runtime, and no tag.
const RESET_TAG: &str = "autoscaler:reset-";

const CAUSE: &str = "_autoscaler_cause";
const INSTANCE: &str = "_autoscaler_instance";
const ABORTING: &str = "_autoscaler_aborting";
const STOPPED_AT: &str = "_autoscaler_stopped_at";
const ATTEMPTS: &str = "_autoscaler_attempts";
/// The SDK's own: seconds that the task's abort callback may take.
const ABORT_TIMEOUT: &str = "_abort_callback_timeout";

/// A task as the loop knows it. Queues are named by `queues`, their names by id.
pub(super) fn task_ref(task: Task, queues: &BTreeMap<String, QueueName>) -> TaskRef {
    let marks = marks(&task);
    TaskRef {
        status: status(task.status.as_deref()),
        status_changed: task.status_changed.and_then(millis),
        last_update: task.last_update.and_then(millis),
        status_message: task.status_message.unwrap_or_default(),
        status_reason: task.status_reason.unwrap_or_default(),
        queue: task.execution.queue.and_then(|id| queues.get(&id).cloned()),
        last_worker: task.last_worker.map(WorkerId),
        abort_timeout: number(&task.runtime, ABORT_TIMEOUT)
            .and_then(|it| u32::try_from(it).ok())
            .unwrap_or(0),
        marks,
        task: TaskId(task.id),
        unchanged_since: Time::default(),
        out_since: None,
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn millis(time: Timestamp) -> Option<Time> {
    u64::try_from(time.as_millisecond()).ok().map(Time)
}

fn status(text: Option<&str>) -> TaskStatus {
    match text {
        Some("created") => TaskStatus::Created,
        Some("queued") => TaskStatus::Queued,
        Some("in_progress") => TaskStatus::InProgress,
        Some("stopped") => TaskStatus::Stopped,
        Some(_) | None => TaskStatus::Ended,
    }
}

fn marks(task: &Task) -> Marks {
    let note = |name| text(&task.runtime, name);
    let resetting = task.tags.iter().find_map(|tag| tag.strip_prefix(RESET_TAG)?.parse().ok());
    Marks {
        tagged: task.tags.iter().any(|tag| tag == TAG),
        cause: note(CAUSE).and_then(|text| match text.as_str() {
            "spot" => Some(Cause::Spot),
            "gone" => Some(Cause::Gone),
            "stranded" => Some(Cause::Stranded),
            _ => None,
        }),
        instance: note(INSTANCE).map(InstanceId),
        aborting: note(ABORTING).is_some(),
        attempts: number(&task.runtime, ATTEMPTS).and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        stopped_at: number(&task.runtime, STOPPED_AT).map(Time),
        resetting,
    }
}

/// A note that says something.
fn text(runtime: &Map<String, Value>, name: &str) -> Option<String> {
    runtime.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The SDK writes some of its numbers as texts.
fn number(runtime: &Map<String, Value>, name: &str) -> Option<u64> {
    match runtime.get(name)? {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(whole)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse().ok().map(whole)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and a task says what it likes"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Looks at the task again, and takes the step if nothing has changed. `queue_id` finds a queue by its name.
pub(super) async fn take(
    client: &Client,
    id: &TaskId,
    seen: &Seen,
    step: &TaskStep,
    queue_id: impl Fn(&QueueName) -> Option<String>,
) -> Result<(), ClearMlError> {
    let id = id.as_str();
    let query = TaskQuery { id: &[id], only_fields: LIFE_FIELDS, ..TaskQuery::default() };
    let found = client.tasks(&query).await.map_err(|error| by_meaning(&error))?;
    let task = found.into_iter().find(|task| task.id == id);
    let task = task.ok_or_else(|| ClearMlError::Refused("the server has no such task".to_owned()))?;
    let (tags, runtime) = (task.tags.clone(), task.runtime.clone());
    if task_ref(task, &BTreeMap::new()).seen() != *seen {
        return Err(ClearMlError::Refused("it has changed since it was read".to_owned()));
    }
    let done = match step {
        TaskStep::Note { cause, instance, aborting } => {
            let notes = [
                (CAUSE, json!(cause_word(*cause))),
                (INSTANCE, json!(instance)),
                (ABORTING, json!(if *aborting { "yes" } else { "" })),
                (STOPPED_AT, json!("")),
            ];
            mark(client, id, &notes, &tags, &runtime, &[TAG], true).await
        }
        TaskStep::Claim { attempt, stopped_at, reset } => {
            let stop = stopped_at.map_or_else(|| json!(""), |at| json!(at.0));
            let notes = [(ATTEMPTS, json!(attempt)), (STOPPED_AT, stop)];
            let reset = reset.then(|| format!("{RESET_TAG}{attempt}"));
            let wanted: Vec<&str> = std::iter::once(TAG).chain(reset.as_deref()).collect();
            mark(client, id, &notes, &tags, &runtime, &wanted, true).await
        }
        TaskStep::Release { attempts } => {
            let mut notes = vec![
                (CAUSE, json!("")),
                (INSTANCE, json!("")),
                (ABORTING, json!("")),
                (STOPPED_AT, json!("")),
            ];
            if *attempts > 0 {
                notes.push((ATTEMPTS, json!(attempts)));
            }
            mark(client, id, &notes, &tags, &runtime, &[], false).await
        }
        TaskStep::Abort => {
            let reason = format!("{REASON}AWS takes the spot instance back");
            client.stop_task(id, &StatusNote { reason: Some(&reason), ..StatusNote::default() }).await
        }
        TaskStep::Stop { cause, instance, as_asked } => {
            let reason = cause.reason(instance);
            let message = if *as_asked { STOPPED_AS_ASKED } else { NOT_RESPONSIVE };
            let note = StatusNote { reason: Some(&reason), message: Some(message), force: false };
            client.task_stopped(id, &note).await
        }
        TaskStep::Reset => client.reset_task(id).await,
        TaskStep::Enqueue { queue, why } => {
            let Some(queue) = queue_id(queue) else {
                return Err(ClearMlError::Refused(format!("the server has no queue {queue}")));
            };
            let reason = match why {
                PutBack::Limbo => format!("{REASON}it had left its queue and started nowhere"),
                PutBack::Interrupted(cause) => format!("{REASON}it was interrupted ({cause})"),
            };
            put_first(client, id, &queue, &reason).await
        }
    };
    done.map_err(|error| by_meaning(&error))
}

fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Spot => "spot",
        Cause::Gone => "gone",
        Cause::Stranded => "stranded",
    }
}

/// Writes the notes, then the tags. Ours that are not `wanted` go; when marking, those that are there stay.
async fn mark(
    client: &Client,
    id: &str,
    notes: &[(&str, Value)],
    tags: &[String],
    runtime: &Map<String, Value>,
    wanted: &[&str],
    keep: bool,
) -> Result<(), Error> {
    let is_new = |(name, value): &&(&str, Value)| match runtime.get(*name) {
        Some(known) => known != value,
        None => *value != json!(""),
    };
    let changed: Map<String, Value> =
        notes.iter().filter(is_new).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    if !changed.is_empty() {
        client.set_runtime(id, &changed).await?;
    }
    let ours = |tag: &str| tag == TAG || tag.starts_with(RESET_TAG);
    let mut after: Vec<String> = tags.iter().filter(|tag| keep || !ours(tag)).cloned().collect();
    for tag in wanted {
        if !after.iter().any(|known| known == tag) {
            after.push((*tag).to_owned());
        }
    }
    if after == tags {
        return Ok(());
    }
    let edit = TaskEdit { tags: Some(after), force: true, ..TaskEdit::default() };
    client.edit_task(id, &edit).await
}

/// Its rank is all that is lost if it could not be moved: it waits.
async fn put_first(client: &Client, id: &str, queue: &str, reason: &str) -> Result<(), Error> {
    client.enqueue_task(id, queue, &StatusNote { reason: Some(reason), ..StatusNote::default() }).await?;
    if let Err(error) = client.move_task_to_front(queue, id).await {
        tracing::warn!(task = id, "could not be moved to the front of its queue: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_whatever_a_task_has_written_beside_them() {
        let task: Task = serde_json::from_value(json!({
            "id": "t1", "status": "stopped", "status_changed": "2026-11-23T18:51:22.221000+00:00",
            "tags": ["mine", TAG, "autoscaler:reset-2"], "execution": {"queue": "q1"},
            "runtime": {
                CAUSE: "spot", INSTANCE: "i-1", ABORTING: "", STOPPED_AT: 1_795_459_882_221_u64,
                ATTEMPTS: "2", ABORT_TIMEOUT: 30.0, "progress": "7",
            },
        }))
        .unwrap();
        let queues = [("q1".to_owned(), QueueName::from("gpu"))].into();
        let read = task_ref(task, &queues);
        assert_eq!(read.marks.stopped_at, read.status_changed);
        assert_eq!((read.marks.attempts, read.marks.resetting, read.abort_timeout), (2, Some(2), 30));
        assert_eq!((read.marks.cause, read.marks.aborting), (Some(Cause::Spot), false));
        assert_eq!(read.queue, Some("gpu".into()));
    }
}
