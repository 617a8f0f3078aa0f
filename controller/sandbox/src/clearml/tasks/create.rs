//! Making tasks: new ones, and copies.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::call::Call;
use super::super::document::{self, Doc, now};
use super::super::endpoints::{Endpoint, V1};
use super::super::error::ApiError;
use super::super::state::{State, Task, id_of};
use super::super::status::Status;

pub(in super::super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint::new("tasks.create", V1, create), Endpoint::new("tasks.clone", V1, clone)];

const TYPES: &[&str] = &[
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "optimizer",
    "service",
    "qc",
    "custom",
    "report",
];
/// What a caller may bring along.
pub(super) const FIELDS: &[&str] = &[
    "name",
    "type",
    "project",
    "parent",
    "comment",
    "tags",
    "system_tags",
    "script",
    "execution",
    "hyperparams",
    "configuration",
    "container",
    "models",
    "output_dest",
    "runtime",
];

fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let name = call.text("name")?;
    check_type(call.text("type")?)?;
    document::check_name(name)?;
    check_project(state, call.text_or_none("project")?)?;
    let mut doc = new_task_doc(state, &call.user, name);
    bring(&mut doc, &call.data, FIELDS);
    Ok(json!({ "id": insert(state, doc) }))
}

pub(super) fn check_type(kind: &str) -> Result<(), ApiError> {
    if TYPES.contains(&kind) {
        return Ok(());
    }
    Err(ApiError::validation(format_args!(
        "error for field 'type'. Value '{kind}' is not one of the allowed ones"
    )))
}

pub(super) fn check_project(state: &State, id: Option<&str>) -> Result<(), ApiError> {
    match id {
        Some(id) if !id.is_empty() && state.projects.get(id).is_none() => Err(ApiError::no_project(id)),
        Some(_) | None => Ok(()),
    }
}

fn new_task_doc(state: &State, user: &str, name: &str) -> Doc {
    let mut doc = state.new_doc(user, name);
    let time = now();
    for (field, value) in [
        ("type", json!("training")),
        ("status", json!(Status::Created)),
        ("status_reason", json!("")),
        ("status_message", json!("")),
        ("status_changed", json!(time)),
        ("report_assets", json!([])),
        ("output", json!({})),
        (
            "execution",
            json!({"test_split": 0, "parameters": {}, "model_desc": {}, "model_labels": {}, "artifacts": []}),
        ),
        ("script", json!({"binary": "python", "repository": "", "entry_point": "", "requirements": {}})),
        ("last_update", json!(time)),
        ("last_change", json!(time)),
        ("last_changed_by", json!(user)),
        ("last_iteration", json!(0)),
        ("last_metrics", json!({})),
        ("unique_metrics", json!([])),
        ("metric_stats", json!({})),
        ("hyperparams", json!({})),
        ("configuration", json!({})),
        ("runtime", json!({})),
        ("models", json!({"input": [], "output": []})),
        ("container", json!({})),
    ] {
        doc.insert(field.to_owned(), value);
    }
    doc
}

/// Takes over the named fields; those of `script` and `execution` one by one, so that defaults stay.
pub(super) fn bring(doc: &mut Doc, data: &Doc, fields: &[&str]) -> Doc {
    let mut changed = Doc::new();
    for field in fields {
        let Some(value) = data.get(*field).filter(|value| !value.is_null()) else { continue };
        changed.insert((*field).to_owned(), value.clone());
        match value {
            Value::Object(parts) if ["script", "execution", "container"].contains(field) => {
                document::object(doc, field).extend(parts.clone());
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                doc.insert((*field).to_owned(), value.clone());
            }
        }
    }
    changed
}

fn insert(state: &mut State, doc: Doc) -> String {
    let id = id_of(&doc);
    let task =
        Task { doc, status: Status::Created, touched: Instant::now(), started: None, history: Vec::new() };
    state.tasks.insert(id.clone(), task);
    id
}

fn clone(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let source = state.task(call.text("task")?)?.doc.clone();
    let source_id = id_of(&source);
    let source_name = document::text(&source, "name").unwrap_or_default().to_owned();
    let name = call.text_or_none("new_task_name")?.map_or(source_name, str::to_owned);
    document::check_name(&name)?;
    check_project(state, call.text_or_none("new_task_project")?)?;

    let mut doc = new_task_doc(state, &call.user, &name);
    bring(&mut doc, &source, FIELDS);
    document::set(&mut doc, "name", name);
    document::set(&mut doc, "runtime", json!({}));
    document::set(&mut doc, "system_tags", json!([]));
    document::unset(&mut doc, "execution.queue");
    document::set(&mut doc, "models.output", json!([]));
    keep_input_artifacts(&mut doc);
    if document::text(&source, "parent").is_none() {
        document::set(&mut doc, "parent", source_id);
    }
    for (field, new) in [
        ("comment", "new_task_comment"),
        ("tags", "new_task_tags"),
        ("system_tags", "new_task_system_tags"),
        ("parent", "new_task_parent"),
        ("project", "new_task_project"),
        ("hyperparams", "new_task_hyperparams"),
        ("configuration", "new_task_configuration"),
        ("container", "new_task_container"),
    ] {
        if let Some(value) = call.data.get(new).filter(|value| !value.is_null()) {
            doc.insert(field.to_owned(), value.clone());
        }
    }
    if let Some(Value::Object(overrides)) = call.data.get("execution_overrides") {
        document::object(&mut doc, "execution").extend(overrides.clone());
    }
    Ok(json!({ "id": insert(state, doc) }))
}

/// Outputs belong to the run that made them.
pub(super) fn keep_input_artifacts(doc: &mut Doc) {
    document::list(document::object(doc, "execution"), "artifacts")
        .retain(|artifact| artifact["mode"] == "input");
}
