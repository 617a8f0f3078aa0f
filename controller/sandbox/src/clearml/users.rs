//! `users.*`, and what tells about the server itself.

use serde_json::{Value, json};

use super::call::Call;
use super::endpoints::{Endpoint, V1, open};
use super::error::ApiError;
use super::state::State;
use super::{API_VERSION, SERVER_VERSION};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("users.get_current_user", V1, get_current_user),
    Endpoint::new("users.get_all", V1, get_all),
    Endpoint::new("users.get_all_ex", V1, get_all),
    Endpoint::new("users.get_by_id", V1, get_by_id),
    Endpoint::new("organization.get_tags", V1, get_tags),
    Endpoint::new("server.info", V1, info),
    Endpoint::new("server.config", V1, config),
    open("debug.ping", V1, ping),
];

fn user(state: &State, id: &str, name: &str) -> Value {
    json!({
        "id": id,
        "name": name,
        "role": "user",
        "company": { "id": state.company, "name": "clearml" },
        "created": state.created,
    })
}

fn get_current_user(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    Ok(json!({
        "user": user(state, &call.user, state.user_name(&call.user)),
        "getting_started": {
            "agentName": "clearml",
            "configure": "clearml-init",
            "install": "pip install clearml",
            "packageName": "clearml",
        },
        "settings": { "max_download_items": 50_000 },
    }))
}

fn get_all(state: &mut State, _: &Call) -> Result<Value, ApiError> {
    let users: Vec<Value> = state.users.iter().map(|(id, name)| user(state, id, name)).collect();
    Ok(json!({ "users": users }))
}

fn get_by_id(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("user")?;
    let known = state.users.iter().find(|(known, _)| known == id);
    let (id, name) = known.ok_or_else(|| ApiError::new(400, 301, format!("Invalid user id: id={id}")))?;
    Ok(json!({ "user": user(state, id, name) }))
}

fn get_tags(_: &mut State, _: &Call) -> Result<Value, ApiError> {
    Ok(json!({ "tags": [] }))
}

fn info(_: &mut State, _: &Call) -> Result<Value, ApiError> {
    Ok(json!({
        "version": SERVER_VERSION,
        "build": "",
        "commit": "",
        "api_version": format!("{}.{}", API_VERSION.0, API_VERSION.1),
    }))
}

fn config(_: &mut State, _: &Call) -> Result<Value, ApiError> {
    Ok(json!({}))
}

fn ping(_: &mut State, _: &Call) -> Result<Value, ApiError> {
    Ok(json!({ "msg": "ok" }))
}
