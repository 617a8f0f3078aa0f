//! The template: a draft with everything in its place, that people clone and edit in the web UI.

use clearml::{Client, Error, NewTask, Parameters, Task, TaskEdit, TaskQuery};
use serde_json::{Value, json};

use super::known::START;
use super::parameters::{GENERAL, described, general, parameters};
use super::{Blueprint, KIND, NAME, Secrets};
use crate::config::Document;

/// The project of the template.
pub const TEMPLATE_PROJECT: &str = "DevOps Services";

/// What a template says where an operator gives no file.
pub fn template() -> Document {
    let hyper = START.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    let configurations = json!({
        "resource_configurations": {
            "aws4gpu": {
                "instance_type": "g4dn.4xlarge",
                "is_spot": false,
                "availability_zone": "us-east-1b",
                "ami_id": "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
                "ebs_device_name": "/dev/sda1",
                "ebs_volume_size": 100,
                "ebs_volume_type": "gp3",
                "key_name": "",
                "security_group_ids": [],
            },
        },
        "queues": { "aws_4gpu_machines": [["aws4gpu", 3]] },
        "extra_vm_bash_script": "",
        "extra_clearml_conf": "",
    });
    let configurations = configurations.as_object().cloned().unwrap_or_default();
    Document { hyper_params: hyper.collect(), configurations }
}

/// What became of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// There was none.
    New,
    /// It was there.
    Renewed,
}

/// Makes or renews the template in a project. What people set in one that is there stays as it is, unless an
/// operator has `given` the values; what it runs, its container and the words beside its parameters become those of this
/// version.
///
/// # Errors
/// See [`Error`].
pub async fn make_template(
    client: &Client,
    project: &str,
    given: bool,
    filled: &Document,
    blueprint: Blueprint,
    secrets: Secrets,
) -> Result<(String, Made), Error> {
    let Blueprint { script, container, artifacts } = blueprint;
    let (mut parameters, _) = parameters(filled, secrets);
    let configuration = general(filled);
    let Some(old) = existing(client, project).await? else {
        let task = NewTask {
            name: NAME.to_owned(),
            kind: KIND.to_owned(),
            project: Some(project.to_owned()),
            comment:
                "Clone it, set its parameters and its configuration object General, and enqueue the clone to \
                      a queue that an agent in services mode serves."
                    .to_owned(),
            script: Some(script),
            container: Some(container),
            hyperparams: parameters,
            configuration,
            ..NewTask::default()
        };
        let id = client.create_task(&task).await?;
        client.add_artifacts(&id, &artifacts, false).await?;
        return Ok((id, Made::New));
    };
    let mut edit = TaskEdit { script: Some(script), container: Some(container), ..TaskEdit::default() };
    if given {
        edit.configuration = Some(configuration);
    } else {
        keep_values(&mut parameters, &old);
    }
    edit.hyperparams = Some(parameters);
    client.edit_task(&old.id, &edit).await?;
    client.add_artifacts(&old.id, &artifacts, false).await?;
    Ok((old.id, Made::Renewed))
}

/// The oldest draft of ours in the project. A server brings a template of its own, which runs Python; clones
/// have a parent.
async fn existing(client: &Client, project: &str) -> Result<Option<Task>, Error> {
    let query = TaskQuery {
        project: &[project],
        kind: &[KIND],
        status: &["created"],
        system_tags: &["-archived"],
        only_fields: &["name", "parent", "script.binary", "hyperparams", "created"],
        ..TaskQuery::default()
    };
    let found = client.tasks(&query).await?.into_iter().filter(|task| {
        let ours = task.script.binary.as_deref() == Some("bash");
        ours && task.name.as_deref() == Some(NAME) && task.parent.as_deref().is_none_or(str::is_empty)
    });
    Ok(found.min_by_key(|task| task.created))
}

fn keep_values(parameters: &mut Parameters, old: &Task) {
    for name in old.hyperparams.get(GENERAL).into_iter().flat_map(std::collections::BTreeMap::keys) {
        // What people emptied stays empty where a template starts with something.
        let chosen = |value: &&str| !value.is_empty() || START.iter().any(|(start, _)| start == name);
        if let Some(value) = old.parameter(GENERAL, name).filter(chosen) {
            parameters.insert(GENERAL, name, described(name, value.to_owned()));
        }
    }
}
