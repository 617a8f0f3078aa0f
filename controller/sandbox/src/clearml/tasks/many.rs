//! The calls for many tasks at once: each task for itself, failures listed beside successes.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document;
use super::super::endpoints::{Endpoint, Run, V1};
use super::super::error::ApiError;
use super::super::state::State;
use super::life;

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.enqueue_many", V1, |state, call| many(state, call, life::enqueue)),
    Endpoint::new("tasks.dequeue_many", V1, |state, call| many(state, call, life::dequeue)),
    Endpoint::new("tasks.stop_many", V1, |state, call| many(state, call, life::stop)),
    Endpoint::new("tasks.reset_many", V1, |state, call| many(state, call, life::reset)),
    Endpoint::new("tasks.delete_many", V1, |state, call| many(state, call, life::delete)),
    Endpoint::new("tasks.archive_many", V1, |state, call| many(state, call, archive)),
    Endpoint::new("tasks.unarchive_many", V1, |state, call| many(state, call, unarchive)),
];

fn many(state: &mut State, call: &Call, one: Run) -> Result<Value, ApiError> {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for id in call.texts("ids") {
        match one(state, &call.with_field("task", id.clone())) {
            Ok(mut reply) => {
                reply["id"] = id.into();
                succeeded.push(reply);
            }
            Err(error) => failed.push(json!({
                "id": id,
                "error": { "codes": [error.code, error.subcode], "msg": error.message, "data": {} },
            })),
        }
    }
    Ok(json!({ "succeeded": succeeded, "failed": failed }))
}

fn archive(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = state.task_mut(call.text("task")?)?;
    let tags = document::list(&mut task.doc, "system_tags");
    if !tags.iter().any(|tag| tag == "archived") {
        tags.push("archived".into());
    }
    task.touch(&call.user);
    Ok(json!({ "archived": true }))
}

fn unarchive(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = state.task_mut(call.text("task")?)?;
    document::list(&mut task.doc, "system_tags").retain(|tag| tag != "archived");
    task.touch(&call.user);
    Ok(json!({ "unarchived": true }))
}
