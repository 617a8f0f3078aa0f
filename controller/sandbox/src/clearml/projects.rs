//! `projects.*`, as far as the SDK and the autoscaler look at them.

use serde_json::{Value, json};

use super::call::Call;
use super::document::{self, Doc};
use super::endpoints::{Endpoint, V1};
use super::error::ApiError;
use super::query::Query;
use super::state::{State, id_of};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("projects.create", V1, create),
    Endpoint::new("projects.get_by_id", V1, get_by_id),
    Endpoint::new("projects.get_all", V1, get_all),
    Endpoint::new("projects.get_all_ex", V1, get_all),
    Endpoint::new("projects.update", V1, update),
    Endpoint::new("projects.delete", V1, delete),
];

fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let name = call.text("name")?;
    document::check_name(name)?;
    if find(state, name).is_some() {
        return Err(ApiError::not_unique(name, &state.company));
    }
    let mut parents = name.match_indices('/').map(|(end, _)| &name[..end]).collect::<Vec<_>>();
    parents.retain(|parent| find(state, parent).is_none());
    for parent in parents {
        insert(state, call, parent, Doc::new());
    }
    let mut fields = call.data.clone();
    fields.retain(|field, _| {
        ["description", "tags", "system_tags", "default_output_destination"].contains(&field.as_str())
    });
    Ok(json!({ "id": insert(state, call, name, fields) }))
}

fn find(state: &State, name: &str) -> Option<String> {
    state.projects.values().find(|project| document::text(project, "name") == Some(name)).map(id_of)
}

fn insert(state: &mut State, call: &Call, name: &str, fields: Doc) -> String {
    let mut doc = state.new_doc(&call.user, name);
    let created = document::now();
    document::set(&mut doc, "basename", name.rsplit('/').next().unwrap_or(name));
    document::set(&mut doc, "description", "");
    document::set(&mut doc, "last_update", created);
    if let Some(parent) = name.rsplit_once('/').and_then(|(parent, _)| find(state, parent)) {
        document::set(&mut doc, "parent", parent);
    }
    doc.extend(fields);
    let id = id_of(&doc);
    state.projects.insert(id.clone(), doc);
    id
}

fn get_by_id(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("project")?;
    let project = state.projects.get(id).ok_or_else(|| ApiError::no_project(id))?;
    Ok(json!({ "project": project }))
}

fn get_all(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let fields = call.only_fields();
    let found = Query::of(call)?.select(state.projects.values());
    let projects: Vec<Doc> = found.into_iter().map(|doc| document::only(doc, &fields)).collect();
    Ok(json!({ "projects": projects }))
}

fn update(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("project")?;
    let project = state.projects.get_mut(id).ok_or_else(|| ApiError::no_project(id))?;
    let mut fields = call.data.clone();
    fields.remove("project");
    fields.insert("last_update".into(), document::now().into());
    project.extend(fields.clone());
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn delete(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("project")?;
    if state.projects.get(id).is_none() {
        return Err(ApiError::no_project(id));
    }
    let used = state.tasks.values().any(|task| document::text(&task.doc, "project") == Some(id));
    if used && !call.flag("force") {
        return Err(ApiError::new(
            400,
            402,
            format!("Project has associated tasks (use force=true to delete): id={id}"),
        ));
    }
    for task in state.tasks.values_mut() {
        if document::text(&task.doc, "project") == Some(id) {
            document::unset(&mut task.doc, "project");
        }
    }
    state.projects.remove(id);
    Ok(
        json!({ "deleted": 1, "disassociated_tasks": 0, "urls": null, "deleted_models": 0, "deleted_tasks": 0 }),
    )
}
