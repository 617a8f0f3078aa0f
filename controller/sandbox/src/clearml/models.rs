//! `models.*`, the least that the SDK asks for when a program saves one.

use serde_json::{Value, json};

use super::call::Call;
use super::document::{self, Doc};
use super::endpoints::{Endpoint, V1};
use super::error::ApiError;
use super::query::Query;
use super::state::{State, id_of};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("models.create", V1, create),
    Endpoint::new("models.get_by_id", V1, get_by_id),
    Endpoint::new("models.get_all", V1, get_all),
    Endpoint::new("models.get_all_ex", V1, get_all),
    Endpoint::new("models.edit", V1, edit),
    Endpoint::new("models.update", V1, edit),
    Endpoint::new("models.set_ready", V1, set_ready),
    Endpoint::new("models.delete", V1, delete),
];

fn create(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let mut doc = state.new_doc(&call.user, call.text("name")?);
    call.text("uri")?;
    document::set(&mut doc, "ready", true);
    doc.extend(call.data.clone());
    let id = id_of(&doc);
    state.models.insert(id.clone(), doc);
    Ok(json!({ "id": id, "created": true }))
}

fn get_by_id(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("model")?;
    let model = state.models.get(id).ok_or_else(|| ApiError::no_model(id))?;
    Ok(json!({ "model": model }))
}

fn get_all(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let fields = call.only_fields();
    let found = Query::of(call)?.select(state.models.values());
    let models: Vec<Doc> = found.into_iter().map(|doc| document::only(doc, &fields)).collect();
    Ok(json!({ "models": models }))
}

fn edit(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let mut fields = call.data.clone();
    fields.remove("model");
    change(state, call, &fields)
}

fn set_ready(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    change(state, call, &Doc::from_iter([("ready".to_owned(), true.into())]))
}

fn change(state: &mut State, call: &Call, fields: &Doc) -> Result<Value, ApiError> {
    let id = call.text("model")?;
    let model = state.models.get_mut(id).ok_or_else(|| ApiError::no_model(id))?;
    model.extend(fields.clone());
    Ok(json!({ "updated": 1, "fields": fields }))
}

fn delete(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("model")?;
    state.models.remove(id).ok_or_else(|| ApiError::no_model(id))?;
    Ok(json!({ "deleted": true, "url": null }))
}
