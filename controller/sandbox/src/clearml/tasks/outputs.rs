//! What a run registers on its task: artifacts and models.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document;
use super::super::endpoints::{Endpoint, V1};
use super::super::error::ApiError;
use super::super::state::State;
use super::check_forcible;

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.add_or_update_artifacts", V1, add_or_update_artifacts),
    Endpoint::new("tasks.delete_artifacts", V1, delete_artifacts),
    Endpoint::new("tasks.add_or_update_model", V1, add_or_update_model),
];

fn add_or_update_artifacts(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let artifacts = call.objects("artifacts")?;
    let task = state.task_mut(call.text("task")?)?;
    check_forcible(task, call)?;
    let kept = document::list(document::object(&mut task.doc, "execution"), "artifacts");
    for artifact in artifacts {
        let key = document::text(artifact, "key").ok_or_else(|| ApiError::missing("key"))?;
        document::text(artifact, "type").ok_or_else(|| ApiError::missing("type"))?;
        let mut artifact = artifact.clone();
        artifact.entry("mode").or_insert_with(|| "output".into());
        kept.retain(|old| old["key"] != key || old["mode"] != artifact["mode"]);
        kept.push(artifact.into());
    }
    task.touch(&call.user);
    Ok(json!({ "updated": 1 }))
}

fn delete_artifacts(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let artifacts = call.objects("artifacts")?;
    let task = state.task_mut(call.text("task")?)?;
    check_forcible(task, call)?;
    let kept = document::list(document::object(&mut task.doc, "execution"), "artifacts");
    for artifact in artifacts {
        let mode = document::text(artifact, "mode").unwrap_or("output");
        kept.retain(|old| Some(&old["key"]) != artifact.get("key") || old["mode"] != mode);
    }
    task.touch(&call.user);
    Ok(json!({ "deleted": 1 }))
}

fn add_or_update_model(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let (name, kind, model) = (call.text("name")?, call.text("type")?, call.text("model")?);
    if !["input", "output"].contains(&kind) {
        return Err(ApiError::validation("error for field 'type'"));
    }
    state.models.get(model).ok_or_else(|| ApiError::no_model(model))?;
    let task = state.task_mut(call.text("task")?)?;
    let list = document::list(document::object(&mut task.doc, "models"), kind);
    list.retain(|old| old["name"] != name);
    list.push(json!({ "name": name, "model": model }));
    task.touch(&call.user);
    Ok(json!({ "updated": 1 }))
}
