//! An operator at work on a running controller: drains, undrains, pauses, over the real socket, with sidecars
//! that hold the gates of stand-in agents.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sandbox::clearml::Status;
use sandbox::ec2::State;
use serde_json::Value;
use tests::harness::{Setting, Stage};

/// What a command printed.
async fn ask(stage: &Stage, args: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = stage.command();
    command.args(args).arg("--config-file").arg(stage.config_file());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

async fn status(stage: &Stage) -> anyhow::Result<Value> {
    let (_, stdout, stderr) = ask(stage, &["status", "--json"]).await?;
    serde_json::from_str(&stdout).with_context(|| format!("{stdout}{stderr}"))
}

async fn until(stage: &Stage, what: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let limit = std::time::Instant::now() + tests::harness::LIMIT;
    loop {
        let seen = status(stage).await?;
        if done(&seen) {
            return Ok(seen);
        }
        ensure!(std::time::Instant::now() < limit, "{what}: not in time: {seen}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn holds(seen: &Value, name: &str) -> bool {
    seen["holds"].as_array().is_some_and(|holds| holds.iter().any(|hold| hold["hold"] == name))
}

fn first<'a>(seen: &'a Value, state: &str) -> Option<&'a str> {
    let mut instances = seen["instances"].as_array()?.iter();
    instances.find(|instance| instance["state"] == state)?["instance"].as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_instance_ends_its_task_takes_no_other_and_is_replaced_unless_launches_are_paused()
-> anyhow::Result<()> {
    let setting = Setting { idle_limit: Duration::from_secs(600), ..Setting::default() };
    let mut stage = Stage::set(&setting).await?;
    let answers = |stage: &Stage| stage.config_file().with_file_name("state").join("admin.sock").exists();
    stage.wait("the controller answers", answers).await?;
    let tasks = [task(&stage, "the first", 20.0)?, task(&stage, "the second", 1.0)?];
    let seen = until(&stage, "a task runs", |seen| first(seen, "busy").is_some()).await?;
    let id = first(&seen, "busy").context("busy")?.to_owned();

    let (code, _, stderr) = ask(&stage, &["drain", "i-nobody", &id]).await?;
    ensure!(
        code == Some(2) && stderr.contains("no instance i-nobody: there are") && stderr.contains(&id),
        "{stderr}"
    );
    let (code, stdout, _) = ask(&stage, &["drain", "--idle"]).await?;
    ensure!(code == Some(0) && stdout == "no instance is idle\n", "{stdout}");
    let (code, stdout, stderr) = ask(&stage, &["pause", "--reason", "the bill"]).await?;
    ensure!(code == Some(0) && stdout.starts_with("paused"), "{stdout}{stderr}");
    let (code, stdout, stderr) = ask(&stage, &["drain", "--json", &id]).await?;
    ensure!(code == Some(0), "{stderr}");
    let answer: Value = serde_json::from_str(&stdout)?;
    ensure!(answer["instances"][0]["awaits"] == "task" && answer["paused"] == true, "{answer}");

    // The will outlives the controller.
    until(&stage, "the gate is closed", |seen| holds(seen, "operator_drain")).await?;
    stage.stop_controller()?;
    stage.start_controller()?;
    stage.wait("the controller is back", answers).await?;
    let seen = until(&stage, "it remembers", |seen| {
        holds(seen, "operator_drain") && holds(seen, "paused") && first(seen, "busy").is_some()
    })
    .await?;
    ensure!(seen["instances"][0]["detail"] == "takes no other task", "{seen}");

    stage.wait("the task completes", |stage| is(stage, &tasks[0], &Status::Completed)).await?;
    let gone = |stage: &Stage| stage.sandbox.ec2.instances().iter().all(|one| one.state == State::Terminated);
    stage.wait("the instance goes", gone).await?;
    ensure!(is(&stage, &tasks[1], &Status::Queued), "it took another task");
    ensure!(stage.sandbox.ec2.counts().launched == 1, "launched while paused");

    let (code, stdout, _) = ask(&stage, &["resume"]).await?;
    ensure!(code == Some(0) && stdout.starts_with("resumed"), "{stdout}");
    stage.wait("the second completes elsewhere", |stage| is(stage, &tasks[1], &Status::Completed)).await?;
    let (code, _, stderr) = ask(&stage, &["undrain", &id]).await?;
    ensure!(code == Some(2) && (stderr.contains("too late") || stderr.contains("no instance")), "{stderr}");
    let (code, stdout, _) = ask(&stage, &["drain", "--idle", "--queue", "work"]).await?;
    ensure!(code == Some(0) && stdout.contains("goes now"), "{stdout}");
    stage.wait("the idle one goes, long before its limit", gone).await
}

fn task(stage: &Stage, name: &str, seconds: f64) -> anyhow::Result<String> {
    Ok(stage.clearml().create_task(name, seconds, Some(&stage.queue("work")?))?)
}

fn is(stage: &Stage, task: &str, status: &Status) -> bool {
    stage.task(task).is_ok_and(|task| task.status == *status)
}
