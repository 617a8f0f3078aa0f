//! Changing what a task is: a task that has run only with force, but name, tags and runtime at any time.

use serde_json::{Value, json};

use super::super::call::{Call, texts};
use super::super::document::{self, Doc};
use super::super::endpoints::{Endpoint, V1, Version};
use super::super::error::ApiError;
use super::super::state::State;
use super::super::status::Status;
use super::check_editable;
use super::create::{FIELDS, bring, check_project, check_type};

const V2_34: &[Version] = &[(2, 34)];

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.edit", V1, edit),
    Endpoint::new("tasks.update", V1, update),
    Endpoint::new("tasks.update_tags", V1, update_tags),
    Endpoint::new("tasks.edit_runtime", V2_34, edit_runtime),
    Endpoint::new("tasks.set_requirements", V1, set_requirements),
];

fn edit(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    if let Some(kind) = call.text_or_none("type")? {
        check_type(kind)?;
    }
    if let Some(name) = call.text_or_none("name")? {
        document::check_name(name)?;
    }
    check_project(state, call.text_or_none("project")?)?;
    let task = state.task_mut(id)?;
    if !call.flag("force") {
        check_editable(task, &[Status::Created])?;
    }
    let mut fields = bring(&mut task.doc, &call.data, FIELDS);
    task.touch(&call.user);
    fields.insert("last_update".into(), task.doc.get("last_update").cloned().unwrap_or_default());
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn update(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    if let Some(name) = call.text_or_none("name")? {
        document::check_name(name)?;
    }
    check_project(state, call.text_or_none("project")?)?;
    let task = state.task_mut(id)?;
    let mut fields = bring(&mut task.doc, &call.data, &["name", "tags", "system_tags", "comment", "project"]);
    if let Some(error) = call.text_or_none("output__error")? {
        document::set(&mut task.doc, "output.error", error);
        fields.insert("output.error".into(), error.into());
    }
    task.touch(&call.user);
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn update_tags(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let mut updated = 0;
    for id in call.texts("ids") {
        let Some(task) = state.tasks.get_mut(&id) else { continue };
        let mut tags = texts(task.doc.get("tags"));
        let removed = call.texts("remove_tags");
        tags.retain(|tag| !removed.contains(tag));
        for tag in call.texts("add_tags") {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        document::set(&mut task.doc, "tags", tags);
        task.touch(&call.user);
        updated += 1;
    }
    Ok(json!({ "updated": updated }))
}

fn edit_runtime(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let task = state.task_mut(call.text("task")?)?;
    let runtime = document::object(&mut task.doc, "runtime");
    if let Some(Value::Object(values)) = call.data.get("add_or_update") {
        runtime.extend(values.clone());
    }
    for key in call.texts("remove") {
        runtime.remove(&key);
    }
    task.touch(&call.user);
    Ok(json!({ "updated": 1 }))
}

fn set_requirements(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("task")?;
    let requirements = call.data.get("requirements").ok_or_else(|| ApiError::missing("requirements"))?;
    let task = state.task_mut(id)?;
    document::set(&mut task.doc, "script.requirements", requirements.clone());
    task.touch(&call.user);
    let fields = Doc::from_iter([("script.requirements".to_owned(), requirements.clone())]);
    Ok(json!({ "updated": 1, "fields": fields }))
}
