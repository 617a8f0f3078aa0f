//! Instances boot from their actual user data, as cloud-init would run it, each in a private directory: real
//! sidecar code, real clearml-agent. Only the package manager and `shutdown` are stand-ins.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::clearml::Status;
use sandbox::ec2::State;
use tests::harness::{Setting, Stage, boot_log, gate_file};

/// For instances that must not go while the test looks at them.
const LONG: Duration = Duration::from_secs(3600);
/// What EC2 says of an instance that somebody terminated, and of one that powered itself off.
const TERMINATED: &str = "Client.UserInitiatedShutdown";
const POWERED_OFF: &str = "Client.InstanceInitiatedShutdown";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_boots_does_its_work_and_goes_when_idle() -> anyhow::Result<()> {
    let stage = Stage::set(&Setting::default()).await?;
    let task = stage.clearml().create_script("a task", "echo it worked\n")?;
    stage.clearml().enqueue(&task, &stage.queue("work")?)?;

    completes(&stage, &task).await?;
    let instance = stage.only_instance()?;
    let worker = format!("stage:machine-0:m5.xlarge:{}", instance.id);
    ensure!(
        stage.task(&task)?.last_worker == Some(worker),
        "the instance's worker ran it: {}",
        stage.story()
    );
    let console = stage.clearml().console(&task).concat();
    ensure!(console.contains("it worked"), "its output is in ClearML: {console}");

    stage.wait("it is terminated and no worker is left", Stage::is_swept).await?;
    let instance = stage.only_instance()?;
    ensure!(instance.reason.as_deref() == Some(TERMINATED), "the controller ended it: {:?}", instance.reason);
    let log = stage.log();
    for word in ["told to drain", "told to retire", "terminated"] {
        ensure!(log.contains(word), "the log tells of {word}:\n{log}");
    }
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_in_an_idle_instance_ends_itself() -> anyhow::Result<()> {
    let stage = Stage::set(&Setting { sidecar: false, ..Setting::default() }).await?;
    let task = stage.clearml().create_script("a task", "true\n")?;
    stage.clearml().enqueue(&task, &stage.queue("work")?)?;

    completes(&stage, &task).await?;
    stage.wait("it powers itself off and no worker is left", Stage::is_swept).await?;
    let instance = stage.only_instance()?;
    ensure!(instance.reason.as_deref() == Some(POWERED_OFF), "nobody else ended it: {:?}", instance.reason);
    let terminations = stage.sandbox.ec2.calls_of("TerminateInstances");
    ensure!(terminations.is_empty(), "the controller left it alone: {terminations:?}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extra_script_that_fails_ends_the_instance_and_the_log_says_why() -> anyhow::Result<()> {
    let extra_script = "echo the data disk is missing\nexit 3\n".to_owned();
    let stage = Stage::set(&Setting { extra_script, ..Setting::default() }).await?;
    let task = stage.clearml().create_script("a task", "true\n")?;
    stage.clearml().enqueue(&task, &stage.queue("work")?)?;

    stage
        .wait("the first instance ends", |stage| {
            stage.sandbox.ec2.instances().iter().any(|instance| instance.state == State::Terminated)
        })
        .await?;
    let log = stage.log();
    let line = log.lines().find(|line| line.contains("boot phase failed"));
    let line = line.with_context(|| format!("the log tells of the failure: {}", stage.story()))?;
    ensure!(line.contains("extra") && line.contains("the data disk is missing"), "and says why: {line}");
    ensure!(stage.task(&task)?.status == Status::Queued, "the task still waits");

    stage.clearml().call("tasks.dequeue", serde_json::json!({ "task": task }))?;
    stage.wait("nothing is left", Stage::is_swept).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_takes_its_instance_along() -> anyhow::Result<()> {
    let stage = Stage::set(&Setting { idle_limit: LONG, ..Setting::default() }).await?;
    let task = stage.clearml().create_script("a task", "true\n")?;
    stage.clearml().enqueue(&task, &stage.queue("work")?)?;
    completes(&stage, &task).await?;

    let instance = stage.only_instance()?;
    let pid = gate_file(&instance, "pid").context("the shim wrote its pid")?;
    let pid = Pid::from_raw(pid.trim().parse()?).context("a pid is positive")?;
    kill_process(pid, Signal::KILL).context("kill the agent")?;

    stage.wait("the instance ends and no worker is left", Stage::is_swept).await?;
    let instance = stage.only_instance()?;
    ensure!(instance.reason.as_deref() == Some(POWERED_OFF), "by itself: {:?}", instance.reason);
    let log = boot_log(&instance);
    ensure!(log.contains("the agent ended with status 137"), "a line says why:\n{log}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_restarted_in_the_middle_of_a_task_adopts_the_fleet() -> anyhow::Result<()> {
    let mut stage = Stage::set(&Setting::default()).await?;
    let task = holds(&stage).await?;
    stage.stop_controller()?;
    stage.start_controller()?;
    is_adopted(stage, &task).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_in_the_middle_of_a_task_is_followed_by_one_that_adopts_the_fleet()
-> anyhow::Result<()> {
    let mut stage = Stage::set(&Setting::default()).await?;
    let task = holds(&stage).await?;
    stage.kill_controller()?;
    stage.start_controller()?;
    is_adopted(stage, &task).await
}

/// A task that runs on the one instance until the file `go` is there.
async fn holds(stage: &Stage) -> anyhow::Result<String> {
    let go = stage.file("go");
    let script = format!("until [ -e '{}' ]; do sleep 0.1; done\n", go.display());
    let task = stage.clearml().create_script("a long task", &script)?;
    stage.clearml().enqueue(&task, &stage.queue("work")?)?;
    stage
        .wait("the task runs", |stage| stage.task(&task).is_ok_and(|task| task.status == Status::InProgress))
        .await?;
    Ok(task)
}

/// The second controller takes over what the first one launched, and lets the task end.
async fn is_adopted(stage: Stage, task: &str) -> anyhow::Result<()> {
    let instance = stage.only_instance()?.id;
    stage
        .wait("the instance is adopted with its session", |stage| {
            let log = stage.last_log();
            let says = |what: &str| log.lines().any(|line| line.contains(what) && line.contains(&instance));
            says("adopted") && says("sidecar attached")
        })
        .await?;
    ensure!(stage.task(task)?.status == Status::InProgress, "the task goes on: {}", stage.story());
    fs::write(stage.file("go"), "").context("let the task end")?;
    completes(&stage, task).await?;
    stage.wait("it is terminated and no worker is left", Stage::is_swept).await?;
    let instance = stage.only_instance()?;
    ensure!(instance.reason.as_deref() == Some(TERMINATED), "by the controller: {:?}", instance.reason);
    stage.strike().await
}

/// It comes to its end, and ran once.
async fn completes(stage: &Stage, task: &str) -> anyhow::Result<()> {
    stage
        .wait("the task completes", |stage| {
            stage.task(task).is_ok_and(|task| matches!(task.status, Status::Completed | Status::Failed))
        })
        .await?;
    let ended = stage.task(task)?;
    ensure!(ended.status == Status::Completed, "it failed: {}", stage.story());
    ensure!(ended.starts == 1, "it ran {} times: {}", ended.starts, stage.story());
    Ok(())
}
