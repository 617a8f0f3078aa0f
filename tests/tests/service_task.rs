//! The autoscaler as its users run it: ClearML's SDK clones the template and enqueues it, the real agent in
//! services mode takes it, its bootstrap becomes the controller, which scales a queue up and down.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::clearml::Status;
use tests::agent::python as clearml_python;
use tests::harness::{LIMIT, Setting, Stage};
use tests::process::Process;
use tests::python;

/// For a program that asks a few questions.
const SCRIPT_LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_template_is_run_by_an_agent_and_scales_a_queue() -> anyhow::Result<()> {
    let stage = Stage::prepare(&Setting::default()).await?;
    let template = make_template(&stage)?;
    ensure!(make_template(&stage)? == template, "renewing makes no second one");
    stage.clearml().create_queue("services")?;
    let agent = services_agent(&stage)?;

    let service = sdk(&stage, &["enqueue", "max_idle_time_min=0.05"])?.trim().to_owned();
    wait(&stage, &agent, "the controller makes its queue", |stage| stage.queue("work").is_ok()).await?;
    let work = stage.clearml().create_script("a task", "echo it worked\n")?;
    stage.clearml().enqueue(&work, &stage.queue("work")?)?;
    wait(&stage, &agent, "an instance does the work", |stage| {
        stage.task(&work).is_ok_and(|task| task.status == Status::Completed)
    })
    .await?;
    wait(&stage, &agent, "and goes when it is idle", Stage::is_swept).await?;
    ensure!(stage.task(&service)?.status == Status::InProgress, "the service goes on: {}", stage.story());

    sdk(&stage, &["abort", &service])?;
    wait(&stage, &agent, "the service ends as its user wants it", |stage| {
        stage.task(&service).is_ok_and(|task| task.status == Status::Stopped)
    })
    .await?;
    // What the agent has to say comes after that.
    wait(&stage, &agent, "the agent is done with it", |stage| {
        stage.clearml().workers().iter().all(|worker| worker.task.is_none())
    })
    .await?;

    let seen = read(&stage, &service)?;
    let console = seen["console"].as_str().unwrap_or_default();
    for part in [
        "fetched controller",
        "SHA-256 as uploaded",
        "Running AWS auto-scaler as a service",
        "Execution log http",
        "terminated",
        "the task was aborted",
        "told to stop",
    ] {
        ensure!(console.contains(part), "{part:?} is in the console:\n{console}");
    }
    ensure!(console.matches("Running AWS auto-scaler as a service").count() == 1, "once:\n{console}");
    for part in ["instances", "waiting"] {
        let named = |names: &serde_json::Value| names.to_string().to_lowercase().contains(part);
        ensure!(named(&seen["scalars"]) || named(&seen["plots"]), "{part}: {seen}");
    }
    ensure!(seen["scalars"].as_array().is_some_and(|scalars| scalars.len() >= 4), "{}", seen["scalars"]);
    ensure!(seen["plots"].as_array().is_some_and(|plots| plots.len() >= 4), "{}", seen["plots"]);
    ensure!(seen["parameters"]["General/max_idle_time_min"] == "0.05", "{seen}");
    ensure!(seen["general"]["queues"]["work"][0][1] == 1, "{seen}");
    let key = stage.sandbox.clearml.secret_key();
    ensure!(!console.contains(key), "no key is shown");
    drop(agent);
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_cannot_be_read_fails_the_task_with_its_name() -> anyhow::Result<()> {
    let stage = Stage::prepare(&Setting::default()).await?;
    make_template(&stage)?;
    stage.clearml().create_queue("services")?;
    let agent = services_agent(&stage)?;

    let service =
        sdk(&stage, &["enqueue", "max_idle_time_min=a while", "iam_arn=nonsense"])?.trim().to_owned();
    wait(&stage, &agent, "the task fails", |stage| {
        stage.task(&service).is_ok_and(|task| task.status == Status::Failed)
    })
    .await?;
    // What the agent has to say comes after that.
    let idle = |stage: &Stage| stage.clearml().workers().iter().all(|worker| worker.task.is_none());
    wait(&stage, &agent, "the agent is done with it", idle).await?;

    let seen = read(&stage, &service)?;
    for name in ["General/max_idle_time_min", "General/iam_arn"] {
        for place in ["status_reason", "console"] {
            let text = seen[place].as_str().unwrap_or_default();
            ensure!(text.contains(name), "{name} is in {place}: {text}");
        }
    }
    ensure!(stage.sandbox.ec2.instances().is_empty(), "nothing was launched");
    drop(agent);
    stage.strike().await
}

/// As an operator does; returns the template's id.
fn make_template(stage: &Stage) -> anyhow::Result<String> {
    let mut command = stage.command();
    command.arg("template").arg("--config-file").arg(stage.config_file());
    let output = run(command, &stage.file("template.log"))?;
    let id = output.lines().find_map(|line| line.split_once("task id=")).map(|(_, id)| id.trim().to_owned());
    id.with_context(|| format!("the template's id is printed:\n{output}"))
}

/// An agent in services mode, without docker, that knows ClearML from its configuration file alone. AWS's
/// address and keys are in its environment.
fn services_agent(stage: &Stage) -> anyhow::Result<Process> {
    let home = stage.file("agent");
    fs::create_dir_all(&home)?;
    let conf = home.join("clearml.conf");
    let clearml = &stage.sandbox.clearml;
    fs::write(
        &conf,
        format!(
            "api {{\n  api_server: {}\n  web_server: {}\n  files_server: {}\n  credentials {{ access_key: {}, \
             secret_key: \"{}\" }}\n}}\n",
            clearml.api_url(),
            clearml.web_url(),
            clearml.files_url(),
            clearml.access_key(),
            clearml.secret_key()
        ),
    )?;
    let mut command = clearml_python(&venv()?, &home, clearml);
    for (name, _) in clearml.environment() {
        command.env_remove(name);
    }
    command
        .args(["-m", "clearml_agent", "--config-file"])
        .arg(&conf)
        .args(["daemon", "--services-mode", "--foreground", "--queue", "services"])
        .env("CLEARML_WORKER_NAME", "services")
        .env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.5")
        .env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1")
        .envs(stage.sandbox.ec2.environment());
    Process::start(command, &stage.file("services-agent.log"))
}

async fn wait(
    stage: &Stage,
    agent: &Process,
    what: &str,
    done: impl Fn(&Stage) -> bool,
) -> anyhow::Result<()> {
    stage.sandbox.ec2.wait_until(LIMIT, |_| done(stage) || agent.has_ended()).await;
    ensure!(done(stage), "{what}: not in time\n{}\nthe agent's {}", stage.story(), agent.tail());
    Ok(())
}

fn read(stage: &Stage, task: &str) -> anyhow::Result<serde_json::Value> {
    let output = sdk(stage, &["read", task])?;
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("not JSON: {output}"))
}

fn sdk(stage: &Stage, arguments: &[&str]) -> anyhow::Result<String> {
    let home = stage.file("sdk");
    fs::create_dir_all(&home)?;
    let script = home.join("sdk_service.py");
    fs::copy(python::file("sdk_service.py"), &script)?;
    let mut command = clearml_python(&venv()?, &home, &stage.sandbox.clearml);
    command.arg(script).args(arguments);
    run(command, &home.join("log"))
}

fn run(command: std::process::Command, log: &Path) -> anyhow::Result<String> {
    let mut process = Process::start(command, log)?;
    let status = process.wait(SCRIPT_LIMIT)?;
    ensure!(status.success(), "{status}; {}", process.tail());
    Ok(process.output())
}

fn venv() -> anyhow::Result<PathBuf> {
    python::venv("clearml", &python::file("clearml-requirements.txt"))
}
