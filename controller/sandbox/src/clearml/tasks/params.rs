//! Hyperparameters (sections of named values) and configuration objects (named texts).

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::document::{self, Doc};
use super::super::endpoints::{Endpoint, V1};
use super::super::error::ApiError;
use super::super::state::State;
use super::check_forcible;

pub(in super::super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("tasks.get_hyper_params", V1, get_hyper_params),
    Endpoint::new("tasks.edit_hyper_params", V1, edit_hyper_params),
    Endpoint::new("tasks.delete_hyper_params", V1, delete_hyper_params),
    Endpoint::new("tasks.get_configurations", V1, get_configurations),
    Endpoint::new("tasks.get_configuration_names", V1, get_configuration_names),
    Endpoint::new("tasks.edit_configuration", V1, edit_configuration),
    Endpoint::new("tasks.delete_configuration", V1, delete_configuration),
];

/// The section that may be edited whatever the status.
const USER_PROPERTIES: &str = "properties";

fn section(item: &Doc) -> Result<&str, ApiError> {
    document::text(item, "section").ok_or_else(|| ApiError::missing("section"))
}

fn name(item: &Doc) -> Result<&str, ApiError> {
    document::text(item, "name").ok_or_else(|| ApiError::missing("name"))
}

fn get_hyper_params(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let tasks = call.texts("tasks");
    let found = tasks.iter().filter_map(|id| Some((id, state.tasks.get(id)?)));
    let params: Vec<Value> = found
        .map(|(id, task)| {
            let sections = task.doc.get("hyperparams").and_then(Value::as_object).into_iter().flatten();
            let items: Vec<&Value> =
                sections.filter_map(|(_, section)| section.as_object()).flat_map(Doc::values).collect();
            json!({ "task": id, "hyperparams": items })
        })
        .collect();
    Ok(json!({ "params": params }))
}

fn edit_hyper_params(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let items = call.objects("hyperparams")?;
    let replace = call.text_or_none("replace_hyperparams")?.unwrap_or("none");
    let mut only_properties = replace != "all" && !items.is_empty();
    for item in &items {
        name(item)?;
        only_properties &= section(item)? == USER_PROPERTIES;
    }
    let task = state.task_mut(call.text("task")?)?;
    if !only_properties {
        check_forcible(task, call)?;
    }
    let params = document::object(&mut task.doc, "hyperparams");
    match replace {
        "all" => params.clear(),
        "section" => {
            for item in &items {
                params.remove(section(item)?);
            }
        }
        "none" => {}
        other => return Err(ApiError::validation(format_args!("replace_hyperparams={other}"))),
    }
    for item in items {
        document::object(params, section(item)?).insert(name(item)?.to_owned(), item.clone().into());
    }
    task.touch(&call.user);
    Ok(json!({ "updated": 1 }))
}

fn delete_hyper_params(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let items = call.objects("hyperparams")?;
    let task = state.task_mut(call.text("task")?)?;
    check_forcible(task, call)?;
    let params = document::object(&mut task.doc, "hyperparams");
    for item in items {
        match item.get("name").and_then(Value::as_str) {
            Some(name) => {
                document::object(params, section(item)?).remove(name);
            }
            None => {
                params.remove(section(item)?);
            }
        }
    }
    task.touch(&call.user);
    Ok(json!({ "deleted": 1 }))
}

fn get_configurations(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let names = call.texts("names");
    let tasks = call.texts("tasks");
    let found = tasks.iter().filter_map(|id| Some((id, state.tasks.get(id)?)));
    let configurations: Vec<Value> = found
        .map(|(id, task)| {
            let all = task.doc.get("configuration").and_then(Value::as_object).into_iter().flatten();
            let wanted = all.filter(|(name, _)| names.is_empty() || names.contains(name));
            json!({ "task": id, "configuration": wanted.map(|(_, value)| value).collect::<Vec<_>>() })
        })
        .collect();
    Ok(json!({ "configurations": configurations }))
}

fn get_configuration_names(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let tasks = call.texts("tasks");
    let found = tasks.iter().filter_map(|id| Some((id, state.tasks.get(id)?)));
    let configurations: Vec<Value> = found
        .map(|(id, task)| {
            let all = task.doc.get("configuration").and_then(Value::as_object);
            json!({ "task": id, "names": all.map(|all| all.keys().collect::<Vec<_>>()).unwrap_or_default() })
        })
        .collect();
    Ok(json!({ "configurations": configurations }))
}

fn edit_configuration(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let items = call.objects("configuration")?;
    for item in &items {
        name(item)?;
    }
    let task = state.task_mut(call.text("task")?)?;
    check_forcible(task, call)?;
    let configuration = document::object(&mut task.doc, "configuration");
    if call.flag("replace_configuration") {
        configuration.clear();
    }
    for item in items {
        configuration.insert(name(item)?.to_owned(), item.clone().into());
    }
    task.touch(&call.user);
    Ok(json!({ "updated": 1 }))
}

fn delete_configuration(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let names = call.texts("configuration");
    let task = state.task_mut(call.text("task")?)?;
    check_forcible(task, call)?;
    document::object(&mut task.doc, "configuration").retain(|name, _| !names.contains(name));
    task.touch(&call.user);
    Ok(json!({ "deleted": 1 }))
}
