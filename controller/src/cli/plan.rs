//! `controller plan`: one pass against the real world, printed, nothing applied.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use engine::Published;
use planner::Action;

use super::{env, print};
use crate::service;

/// Options of `controller plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Print JSON: the plan, as the engine has it.
    #[arg(long)]
    json: bool,
    /// The YAML file, as ClearML's aws_autoscaler.py writes it.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
}

pub(crate) async fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let input = service::Input::load(&args.config_file, &env)?;
    let published = service::plan_once(input).await?;
    if args.json {
        print(&serde_json::to_string(&published.plan)?)?;
    } else {
        print(&describe(&published))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(published: &Published) -> String {
    let Published { now, policy: _, snapshot, plan, violation, ended: _ } = published;
    let mut text = String::new();
    let waiting: usize = snapshot.queues.values().map(Vec::len).sum();
    let _ = writeln!(text, "{} instances, {waiting} tasks waiting", snapshot.instances.len());
    if let Some(violation) = violation {
        let _ = writeln!(text, "the plan was refused, it would break an invariant: {violation}");
    }
    let _ = writeln!(text, "\nactions");
    if plan.actions.is_empty() {
        let _ = writeln!(text, "  none");
    }
    for action in &plan.actions {
        let _ = writeln!(text, "  {}", action_words(action));
    }
    if !plan.holds.is_empty() {
        let _ = writeln!(text, "\nholds");
        for hold in &plan.holds {
            let _ = writeln!(text, "  {}", hold.describe(*now));
        }
    }
    text
}

fn action_words(action: &Action) -> String {
    match action {
        Action::Launch { intent: _, resource, queue, offering, count, token: _ } => {
            format!("launch {count} x {offering} as {resource} for queue {queue}")
        }
        Action::Settle { intent } => format!("close the note of launch {intent}"),
        Action::Send { instance, order } => format!("tell {instance} to {}", order.kind),
        Action::Terminate { instances, reason } => {
            let ids: Vec<&str> = instances.iter().map(planner::InstanceId::as_str).collect();
            format!("terminate {} ({reason:?})", ids.join(", "))
        }
        Action::Unregister { worker } => format!("remove worker {worker} from ClearML: its machine has gone"),
        Action::Task { task, seen: _, step } => step.describe(task),
    }
}
