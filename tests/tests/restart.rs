//! Controllers that die and come back: with their state, without it, and somewhere else.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sandbox::clearml::Status;
use serde_json::Value;
use tests::harness::{Setting, Stage};

/// What a command prints as JSON.
fn json(stage: &Stage, command: &str) -> anyhow::Result<Value> {
    let mut process = stage.command();
    process.args([command, "--json", "--config-file"]).arg(stage.config_file());
    let output = process.output().with_context(|| format!("run {command}"))?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command} prints JSON"))
}

async fn runs(stage: &Stage, task: &str) -> anyhow::Result<()> {
    stage
        .wait("the task runs", |stage| {
            stage.task(task).is_ok_and(|task| task.status == Status::InProgress && task.last_worker.is_some())
        })
        .await
}

async fn completes(stage: &Stage, task: &str) -> anyhow::Result<()> {
    stage
        .wait("the task is done", |stage| stage.task(task).is_ok_and(|task| task.status == Status::Completed))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_takes_its_lease_over_at_once_and_its_books_go_on() -> anyhow::Result<()> {
    let mut stage = Stage::set(&Setting { idle_limit: Duration::from_secs(1), ..Setting::default() }).await?;
    let task = stage.clearml().create_task("over a crash", 6.0, Some(&stage.queue("work")?))?;
    runs(&stage, &task).await?;
    stage.kill_controller()?;
    stage.start_controller()?;
    stage.wait("the lease is ours", |stage| stage.last_log().contains("worker prefix is ours")).await?;
    ensure!(
        !stage.last_log().contains("waiting to see whether it is alive"),
        "it waited for itself:\n{}",
        stage.last_log()
    );
    completes(&stage, &task).await?;
    stage.wait("the instance goes", Stage::is_swept).await?;
    ensure!(stage.sandbox.ec2.instances().len() == 1, "nothing was launched twice");
    stage.wait("its end is known", |stage| stage.last_log().contains("unregistered")).await?;

    let history = json(&stage, "history")?;
    let events = history["events"].as_array().context("events")?;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    for kind in ["launched", "drain", "retire", "terminated", "unregistered"] {
        ensure!(kinds.iter().filter(|told| **told == kind).count() == 1, "{kind} once: {kinds:?}");
    }
    ensure!(events.iter().all(|event| event["reason"].as_str().is_some_and(|reason| !reason.is_empty())));

    stage.stop_controller()?;
    stage.start_controller()?;
    stage.wait("the socket is there", |stage| json(stage, "status").is_ok()).await?;
    let costs = json(&stage, "costs")?;
    let line = &costs["lines"][0];
    ensure!((&line["instances"], &line["running"]) == (&1.into(), &0.into()), "{costs}");
    ensure!(line["priced_hours"].as_f64().is_some_and(|hours| hours > 6.0 / 3600.0), "{costs}");
    ensure!(line["prices"][0]["source"] == "built-in list price", "{costs}");
    stage.strike().await
}
