//! `controller template`: a draft that people clone, edit and enqueue in the web UI.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::service::{TaskOptions, checked, settings, upload};
use super::{BadInput, print};
use crate::config::Document;
use crate::service::refused;
use crate::service::task::{self, ContainerOptions, Made, NAME, SidecarsMissing, TEMPLATE_PROJECT};

/// Options of `controller template`.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// Fill the template from this file. Without it a new one holds an example, and one that is there keeps
    /// what people set.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    #[command(flatten)]
    task: TaskOptions,
    #[command(flatten)]
    container: ContainerOptions,
}

pub(crate) async fn template(args: &TemplateArgs) -> anyhow::Result<ExitCode> {
    let TemplateArgs { config_file, task: how, container } = args;
    let given = config_file.as_deref().map(read).transpose()?;
    let file = config_file.as_deref().unwrap_or(Path::new("the template"));
    let mut filled = given.clone().unwrap_or_else(task::template);
    match task::fill_agent_servers(&mut filled, &settings()?) {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(fault) => tracing::warn!("{fault}. Each clone of the template must set it"),
    }
    let (config, settings) = checked(&filled, file)?;
    filled.hyper_params.remove("sidecar_dir");
    let (_, remarks) = task::parameters(&filled, how.secrets());
    remarks.iter().for_each(|remark| tracing::warn!("{remark}"));

    let client = task::client(&settings)?;
    let project = client.ensure_project(TEMPLATE_PROJECT).await.map_err(|error| refused(&error))?;
    let blueprint = upload(&client, &settings, &config, container, SidecarsMissing::Ignore).await?;
    if container.image.is_none() && blueprint.artifacts.len() == 1 {
        tracing::warn!(
            "no sidecar is at hand: instances of the template's clones can only run with sidecar: off"
        );
    }
    let (id, made) =
        task::make_template(&client, &project, given.is_some(), &filled, blueprint, how.secrets())
            .await
            .map_err(|error| refused(&error))?;
    let made = match made {
        Made::New => "made",
        Made::Renewed => "renewed",
    };
    let page = task::page(&settings, &project, &id);
    print(&format!("Template {NAME} in project {TEMPLATE_PROJECT} {made}: task id={id}\n{page}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// A file's document.
fn read(path: &Path) -> Result<Document, BadInput> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| BadInput(format!("{}: cannot be read: {error}", path.display())))?;
    Document::from_yaml(path, &text).map_err(|faults| BadInput(faults.to_string()))
}
