//! What an autoscaler's task shows: a whole run, read back as its user would; an outage; an abort.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use controller::prices::{Price, Source};
use controller::service::Service;
use controller::service::life::{Life, Pace};
use controller::service::report::{Hourly, Logging, Reporter, attach};
use controller::service::task::{ServiceTask, StartedBy};
use planner::{InstanceType, Market, ShutdownAction};
use sandbox::clearml::{Fault, Status};
use serde_json::{Value, json};
use tests::agent::python_at;
use tests::harness::{LIMIT, Setting, Stage};
use tests::process::Process;
use tests::python;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

/// One price for all.
struct OnePrice;

impl Hourly for OnePrice {
    fn price(&self, _instance_type: &InstanceType, _zone: Option<&str>, _market: Market) -> Option<Price> {
        Some(Price { usd_per_hour: 0.192, as_of: "2026-01-31".parse().ok()?, source: Source::File })
    }
}

/// An autoscaler in this process that is a ClearML task.
struct Run {
    task: ServiceTask,
    service: Service,
    reporter: Reporter,
    life: Life,
    _log: DefaultGuard,
}

impl Run {
    async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let (subscriber, logging) = Logging::build(EnvFilter::new("info"), false);
        let log = tracing::subscriber::set_default(subscriber);
        let mut input = stage.input()?;
        let clearml = stage.clearml();
        let created = clearml.call("tasks.create", json!({"name": "AWS Auto-Scaler", "type": "service"}))?;
        let id = created["id"].as_str().context("the task's id")?.to_owned();
        clearml.call("tasks.started", json!({"task": id}))?;
        let client = input.clearml.client()?;
        let task =
            ServiceTask { id: id.clone(), client, page: String::new(), started_by: StartedBy::Operator };
        input.task = Some(id);
        let service = Service::start(input).await?;
        let reporter = attach(&service, &task, &logging, Arc::new(OnePrice)).await;
        let pace = Pace { look: Duration::from_millis(200), ..Pace::default() };
        let life = Life::begin_at(pace, &task, ShutdownAction::Nothing, &logging);
        Ok(Self { task, service, reporter, life, _log: log })
    }

    /// As `controller` does when its task was aborted.
    async fn end(mut self) -> anyhow::Result<()> {
        tokio::time::timeout(LIMIT, self.life.aborted()).await.context("notice the abort")?;
        self.service.stop().await;
        self.reporter.stop().await;
        self.life.end("aborted").await;
        Ok(())
    }
}

/// Makes the task one that a live worker runs, so that a stop is a wish at first.
fn give_worker(stage: &Stage, task: &str) -> anyhow::Result<()> {
    let report = json!({"worker": "services:0", "timestamp": 1, "task": task, "queues": []});
    stage.clearml().call("workers.status_report", report)?;
    Ok(())
}

fn doc(stage: &Stage, task: &str) -> anyhow::Result<Value> {
    Ok(stage.clearml().call("tasks.get_by_id", json!({"task": task}))?["task"].clone())
}

fn worker_tags(stage: &Stage) -> Vec<Value> {
    let workers = stage.clearml().call("workers.get_all", json!({})).unwrap_or_default();
    let workers = workers["workers"].as_array().cloned().unwrap_or_default();
    workers.iter().flat_map(|worker| worker["tags"].as_array().cloned().unwrap_or_default()).collect()
}

/// Elsewhere than on this thread, which serves the SDK meanwhile.
async fn read_with_sdk(stage: &Stage, task: &str) -> anyhow::Result<()> {
    let environment = stage.sandbox.environment();
    let task = task.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let venv = python::venv("clearml", &python::file("clearml-requirements.txt"))?;
        let home = tempfile::tempdir()?;
        let mut command = python_at(&venv, home.path(), environment);
        let script = home.path().join("sdk_report.py");
        fs::copy(python::file("sdk_report.py"), &script)?;
        command.arg(script).arg(task);
        let mut process = Process::start(command, &home.path().join("log"))?;
        let status = process.wait(LIMIT)?;
        ensure!(status.success(), "{status}; {}", process.output());
        Ok(())
    });
    reading.await?
}

#[tokio::test]
async fn a_run_reads_like_a_story_and_an_abort_ends_it() -> anyhow::Result<()> {
    let stage = Stage::prepare(&Setting { idle_limit: Duration::from_secs(8), ..Setting::default() }).await?;
    let run = Run::start(&stage).await?;
    let (task, clearml) = (run.task.id.clone(), stage.clearml());
    let work = clearml.create_task("train", 8.0, Some(&stage.queue("work")?))?;
    stage
        .wait("the worker names the autoscaler", |stage| {
            worker_tags(stage).contains(&json!(format!("autoscaler:{task}")))
        })
        .await?;
    stage
        .wait("the work is done and the instance gone", |stage| {
            stage.task(&work).is_ok_and(|work| work.status == Status::Completed) && stage.is_swept()
        })
        .await?;
    let instance = stage.only_instance()?;
    ensure!(instance.tags.get("clearml-autoscaler:task") == Some(&task), "{:?}", instance.tags);

    give_worker(&stage, &task)?;
    clearml.call("tasks.stop", json!({"task": task}))?;
    run.end().await?;

    let ended = stage.task(&task)?;
    ensure!(ended.status == Status::Stopped && ended.status_reason == "aborted", "{ended:?}");
    ensure!(doc(&stage, &task)?["runtime"]["_abort_callback_completed"] == "1", "the abort is done");

    let console = clearml.console(&task);
    let chapters = [
        "budget: queue work: up to 1 of resource machine-0 (on-demand m5.xlarge in us-east-1a)",
        "launched 1 on-demand m5.xlarge",
        "sidecar attached",
        "ready, ",
        "works on task",
        "free again",
        "told to drain: idle for",
        "told to retire: its gate is closed",
        "terminated i-",
        "unregistered worker",
        "ending: the task was aborted",
    ];
    let mut lines = console.iter();
    for chapter in chapters {
        ensure!(lines.any(|line| line.contains(chapter)), "{chapter:?} in its place in {console:#?}");
    }
    for once in ["launched 1 ", "works on task", "terminated i-"] {
        let times = console.iter().filter(|line| line.contains(once)).count();
        ensure!(times == 1, "{once:?} {times} times in {console:#?}");
    }
    read_with_sdk(&stage, &task).await?;
    stage.strike().await
}

#[tokio::test]
async fn an_outage_of_clearml_ends_nothing_and_hangs_nothing() -> anyhow::Result<()> {
    let stage = Stage::prepare(&Setting::default()).await?;
    let run = Run::start(&stage).await?;
    let (task, clearml) = (run.task.id.clone(), stage.clearml());
    let told = |stage: &Stage, part: &str| {
        stage.clearml().console(&task).iter().filter(|line| line.contains(part)).count()
    };
    stage.wait("the console begins", |stage| !stage.clearml().console(&task).is_empty()).await?;
    let before = clearml.count("tasks.get_all");
    clearml.inject("*", Fault::Html { code: 404 }, None);
    stage.wait("it goes on asking", |stage| stage.clearml().count("tasks.get_all") > before + 5).await?;
    ensure!(!run.service.is_finished(), "the loop ended");
    clearml.clear_faults();
    stage
        .wait("the console tells of the outage and of its end", |stage| {
            told(stage, "following the task in ClearML works again") == 1
        })
        .await?;
    ensure!(told(&stage, "following the task in ClearML failed") == 1, "{:#?}", clearml.console(&task));

    // The server goes away for good just after the abort.
    give_worker(&stage, &task)?;
    clearml.call("tasks.stop", json!({"task": task}))?;
    let mut run = run;
    tokio::time::timeout(LIMIT, run.life.aborted()).await.context("notice the abort")?;
    clearml.inject("*", Fault::Drop, None);
    tokio::time::timeout(LIMIT, run.end()).await.context("end without a server")??;
    clearml.clear_faults();
    stage.strike().await
}

#[tokio::test]
async fn the_boot_log_of_an_instance_that_fails_is_told() -> anyhow::Result<()> {
    let setting =
        Setting { extra_script: "echo the disk is missing\nexit 3\n".to_owned(), ..Setting::default() };
    let stage = Stage::prepare(&setting).await?;
    let run = Run::start(&stage).await?;
    let (task, clearml) = (run.task.id.clone(), stage.clearml());
    clearml.create_task("train", 1.0, Some(&stage.queue("work")?))?;
    stage
        .wait("its boot log is told", |stage| {
            stage.clearml().console(&task).iter().any(|line| {
                line.starts_with("WARNING: boot phase failed") && line.contains("the disk is missing")
            })
        })
        .await?;
    stage
        .wait("its end is told", |stage| {
            let console = stage.clearml().console(&task);
            console.iter().any(|line| line.contains("goes without ever having been ready"))
        })
        .await?;
    clearml.call("tasks.stop", json!({"task": task}))?;
    run.end().await?;
    stage.strike().await
}
