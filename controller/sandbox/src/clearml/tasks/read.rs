//! Reading tasks.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document::{self, Doc};
use super::super::endpoints::{Endpoint, V1};
use super::super::error::ApiError;
use super::super::query::Query;
use super::super::state::State;

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.get_by_id", V1, get_by_id),
    Endpoint::new("tasks.get_by_id_ex", V1, get_by_id_ex),
    Endpoint::new("tasks.get_all", V1, get_all),
    Endpoint::new("tasks.get_all_ex", V1, get_all_ex),
    Endpoint::new("tasks.get_types", V1, get_types),
    Endpoint::new("tasks.validate", V1, validate),
];

/// The name behind an id.
type Lookup = fn(&State, &str) -> Option<String>;

fn get_by_id(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = state.task(call.text("task")?)?;
    Ok(json!({ "task": document::only(&task.doc, &call.only_fields()) }))
}

fn get_by_id_ex(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = state.task(call.text("task")?)?;
    Ok(json!({ "task": document::only(&expanded(state, &task.doc), &call.only_fields()) }))
}

fn get_all(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let fields = call.only_fields();
    let found = Query::of(call)?.select(state.tasks.values().map(|task| &task.doc));
    let tasks: Vec<Doc> = found.into_iter().map(|doc| document::only(doc, &fields)).collect();
    Ok(json!({ "tasks": tasks }))
}

fn get_all_ex(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let fields = call.only_fields();
    let found = Query::of(call)?.select(state.tasks.values().map(|task| &task.doc));
    let tasks: Vec<Doc> =
        found.into_iter().map(|doc| document::only(&expanded(state, doc), &fields)).collect();
    Ok(json!({ "tasks": tasks }))
}

/// With names beside the ids that it refers to.
fn expanded(state: &State, doc: &Doc) -> Doc {
    let mut doc = doc.clone();
    let lookups: [(&str, Lookup); 4] = [
        ("user", |state, id| Some(state.user_name(id).to_owned())),
        ("project", |state, id| name(state.projects.get(id)?)),
        ("parent", |state, id| name(&state.tasks.get(id)?.doc)),
        ("execution.queue", |state, id| name(&state.queues.get(id)?.doc)),
    ];
    for (field, lookup) in lookups {
        if let Some(id) = document::text(&doc, field).map(str::to_owned) {
            document::set(&mut doc, field, State::reference(&id, lookup(state, &id).as_deref()));
        }
    }
    document::set(&mut doc, "company", json!({ "id": state.company }));
    doc
}

fn name(doc: &Doc) -> Option<String> {
    document::text(doc, "name").map(str::to_owned)
}

fn get_types(state: &mut State, _: &Call) -> Result<Value, ApiError> {
    let mut types: Vec<&str> = Vec::new();
    for task in state.tasks.values() {
        if let Some(kind) = document::text(&task.doc, "type")
            && !types.contains(&kind)
        {
            types.push(kind);
        }
    }
    Ok(json!({ "types": types }))
}

fn validate(_: &mut State, call: &Call) -> Result<Value, ApiError> {
    call.text("name")?;
    super::create::check_type(call.text("type")?)?;
    Ok(json!({}))
}
