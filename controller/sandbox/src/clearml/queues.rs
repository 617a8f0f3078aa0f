//! `queues.*`. The pop removes the entry at once and leaves the task `queued`.

use serde_json::{Value, json};

use super::call::Call;
use super::document::{self, Doc};
use super::endpoints::{Endpoint, V1, V2_4};
use super::error::ApiError;
use super::query::Query;
use super::state::{Entry, Queue, State, id_of};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("queues.get_all", V2_4, get_all),
    Endpoint::new("queues.get_all_ex", V2_4, get_all_ex),
    Endpoint::new("queues.get_by_id", V2_4, get_by_id),
    Endpoint::new("queues.get_default", V1, get_default),
    Endpoint::new("queues.create", V2_4, create),
    Endpoint::new("queues.update", V2_4, update),
    Endpoint::new("queues.delete", V1, delete),
    Endpoint::new("queues.add_task", V2_4, add_task),
    Endpoint::new("queues.get_next_task", V1, get_next_task),
    Endpoint::new("queues.peek_task", V1, peek_task),
    Endpoint::new("queues.get_num_entries", V1, get_num_entries),
    Endpoint::new("queues.remove_task", V2_4, remove_task),
    Endpoint::new("queues.move_task_to_front", V2_4, move_task_to_front),
    Endpoint::new("queues.move_task_to_back", V2_4, move_task_to_back),
];

fn get_all(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let fields = call.only_fields();
    let wants_entries = fields.is_empty() || fields.iter().any(|field| field.starts_with("entries"));
    let queues: Vec<Doc> = selected(state, call)?
        .into_iter()
        .map(|queue| {
            let mut doc = queue.doc.clone();
            if wants_entries {
                doc.insert("entries".into(), queue.entries.iter().map(entry).collect());
            }
            document::only(&doc, &fields)
        })
        .collect();
    Ok(json!({ "queues": queues }))
}

fn get_all_ex(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    state.forget_silent_workers();
    let fields = call.only_fields();
    let most =
        call.number("max_task_entries").and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let queues: Vec<Doc> = selected(state, call)?
        .into_iter()
        .map(|queue| {
            let id = id_of(&queue.doc);
            let mut doc = queue.doc.clone();
            let entries = queue.entries.iter().take(most);
            let entries: Vec<Value> = entries
                .map(|entry| json!({ "task": state.task_reference(&entry.task), "added": entry.added }))
                .collect();
            document::set(&mut doc, "company", json!({ "id": state.company }));
            document::set(&mut doc, "entries", entries);
            document::set(&mut doc, "workers", state.workers_of_queue(&id));
            document::only(&doc, &fields)
        })
        .collect();
    Ok(json!({ "queues": queues }))
}

fn selected<'a>(state: &'a State, call: &Call) -> Result<Vec<&'a Queue>, ApiError> {
    let found = Query::of(call)?.select(state.queues.values().map(|queue| &queue.doc));
    Ok(found.into_iter().filter_map(|doc| state.queues.get(document::text(doc, "id")?)).collect())
}

fn entry(entry: &Entry) -> Value {
    json!({ "task": entry.task, "added": entry.added })
}

fn get_by_id(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let queue = state.queue(call.text("queue")?)?;
    let mut doc = queue.doc.clone();
    doc.insert("entries".into(), queue.entries.iter().map(entry).collect());
    Ok(json!({ "queue": doc }))
}

fn get_default(state: &mut State, _: &Call) -> Result<Value, ApiError> {
    let default = state.queues.values().find(|queue| {
        let tags = queue.doc.get("system_tags").and_then(Value::as_array);
        tags.is_some_and(|tags| tags.contains(&json!("default")))
    });
    let queue = default
        .ok_or_else(|| ApiError::new(400, 707, "No queue is tagged as the default queue for this company"))?;
    Ok(json!({ "id": id_of(&queue.doc), "name": queue.doc.get("name") }))
}

fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let name = call.text("name")?;
    check_free(state, name)?;
    let mut doc = state.new_doc(&call.user, name);
    for field in ["tags", "system_tags"] {
        document::set(&mut doc, field, call.texts(field));
    }
    Ok(json!({ "id": state.insert_queue(doc) }))
}

/// The name is fit for a new queue.
fn check_free(state: &State, name: &str) -> Result<(), ApiError> {
    document::check_name(name)?;
    if state.queues.values().any(|queue| document::text(&queue.doc, "name") == Some(name)) {
        return Err(ApiError::not_unique(name, &state.company));
    }
    Ok(())
}

fn update(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("queue")?;
    let old = document::text(&state.queue(id)?.doc, "name").map(str::to_owned);
    if let Some(name) = call.text_or_none("name")?
        && old.as_deref() != Some(name)
    {
        check_free(state, name)?;
    }
    let mut fields = Doc::new();
    for field in ["name", "tags", "system_tags"] {
        if let Some(value) = call.data.get(field) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    let queue = state.queue_mut(id)?;
    queue.doc.extend(fields.clone());
    queue.touch();
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn delete(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("queue")?;
    let queue = state.queue(id)?;
    if !queue.entries.is_empty() && !call.flag("force") {
        let message = format!("Queue is not empty (use force=true to delete): id={id}");
        return Err(ApiError::new(400, 702, message));
    }
    state.queues.remove(id);
    Ok(json!({ "deleted": 1 }))
}

fn add_task(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = call.text("task")?;
    state.task(task)?;
    state.queue_mut(call.text("queue")?)?.push(task)?;
    Ok(json!({ "added": 1 }))
}

fn get_next_task(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("queue")?;
    let queue = state.queue_mut(id)?;
    let popped = queue.entries.pop_front();
    if popped.is_some() {
        queue.touch();
    }
    state.record.pop(id, popped.as_ref().map(|entry| entry.task.as_str()), call.worker.clone());
    let Some(popped) = popped else { return Ok(json!({})) };
    let mut reply = json!({ "entry": entry(&popped) });
    if call.flag("get_task_info") {
        let task = state.tasks.get(&popped.task).map(|task| &task.doc);
        let info = ["company", "user"].map(|field| (field, task.and_then(|task| task.get(field)).cloned()));
        reply["task_info"] = info.into_iter().filter_map(|(field, value)| Some((field, value?))).collect();
    }
    Ok(reply)
}

fn peek_task(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let first = state.queue(call.text("queue")?)?.entries.front();
    Ok(first.map_or_else(|| json!({}), |first| json!({ "task": first.task })))
}

fn get_num_entries(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    Ok(json!({ "num": state.queue(call.text("queue")?)?.entries.len() }))
}

fn remove_task(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (id, task) = (call.text("queue")?, call.text("task")?);
    if state.queue_mut(id)?.remove(task) { Ok(json!({ "removed": 1 })) } else { Err(not_queued(id, task)) }
}

fn not_queued(queue: &str, task: &str) -> ApiError {
    ApiError::new(400, 703, format!("Invalid queue id or task not in queue: queue={queue}, task={task}"))
}

fn move_task_to_front(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    move_task(state, call, true)
}

fn move_task_to_back(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    move_task(state, call, false)
}

fn move_task(state: &mut State, call: &Call, to_front: bool) -> Result<Value, ApiError> {
    let (id, task) = (call.text("queue")?, call.text("task")?);
    let queue = state.queue_mut(id)?;
    let place = queue.entries.iter().position(|entry| entry.task == task);
    let entry = place.and_then(|place| queue.entries.remove(place)).ok_or_else(|| not_queued(id, task))?;
    let position = if to_front {
        queue.entries.push_front(entry);
        0
    } else {
        queue.entries.push_back(entry);
        queue.entries.len() - 1
    };
    queue.touch();
    Ok(json!({ "position": position }))
}
