//! `controller doctor`: everything that a run needs, looked at before anything is spent.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{env, print};
use crate::doctor::{self, Check, Outcome, Report};
use crate::service;

/// Options of `controller doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON: `{"checks": [{"check", "outcome": "ok"|"warning"|"error", "detail", "remedy"}]}`.
    #[arg(long)]
    json: bool,
    /// The YAML file, as ClearML's aws_autoscaler.py writes it.
    #[arg(long, default_value = super::DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
}

pub(crate) async fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let input = service::Input::load(&args.config_file, &env)?;
    let report = doctor::examine(input).await;
    if args.json {
        print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&page(&report))?;
    }
    Ok(if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn page(report: &Report) -> String {
    let Report { checks } = report;
    let mut page = String::new();
    let mut counts = [0_usize; 3];
    for Check { check, outcome, detail, remedy } in checks {
        let (word, index) = match outcome {
            Outcome::Ok => ("OK", 0),
            Outcome::Warning => ("warning", 1),
            Outcome::Error => ("ERROR", 2),
        };
        counts[index] += 1;
        let _ = writeln!(page, "{word:<8} {check}: {detail}");
        if let Some(remedy) = remedy {
            let _ = writeln!(page, "{:<8} -> {remedy}", "");
        }
    }
    let [ok, warnings, errors] = counts;
    let _ = writeln!(page, "\n{ok} OK, {warnings} warnings, {errors} errors");
    page
}
