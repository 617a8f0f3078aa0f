//! Another configuration while the autoscaler runs: taken as a whole or refused as a whole, over the real
//! sockets, with instances that work meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use controller::config::{Document, clearml};
use controller::service::{Input, Service, Source, SourceError};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::Sandbox;
use sandbox::clearml::{Fault, Status};
use sandbox::ec2::State;
use sandbox::instances::{Image, MachineOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::harness::{self, LIMIT};
use tests::process::Process;

const SECRET: &str = "hunter2";

/// What a test writes otherwise.
#[derive(Clone)]
struct Written {
    maximum: u32,
    hyper_params: BTreeMap<&'static str, Value>,
    more_queues: Vec<&'static str>,
}

impl Default for Written {
    fn default() -> Self {
        Self { maximum: 2, hyper_params: BTreeMap::new(), more_queues: Vec::new() }
    }
}

impl Written {
    fn document(&self, sandbox: &Sandbox, dir: &Path) -> Document {
        let mut hyper_params = json!({
            "cloud_credentials_region": "us-east-1",
            "use_credentials_chain": true,
            "git_user": "ci",
            "git_pass": SECRET,
            "workers_prefix": "stage",
            "max_idle_time_min": 0.05,
            "max_spin_up_time_min": 5,
            "polling_interval_time_min": 0.05,
            "queue_polling_interval_sec": 0.3,
            "listen": "127.0.0.1:0",
            "advertise_address": "127.0.0.1",
            "agent_api_server": sandbox.clearml.api_url(),
            "sidecar": "required",
            "state_dir": dir.join("state"),
            "sidecar_dir": dir,
        });
        let own = hyper_params.as_object_mut().into_iter();
        own.for_each(|map| map.extend(self.hyper_params.iter().map(|(k, v)| ((*k).to_owned(), v.clone()))));
        let machine = json!({"instance_type": "m5.xlarge", "ami_id": "ami-0123456789abcdef0"});
        let mut resources = json!({"machine": machine});
        let mut queues = json!({"work": [["machine", self.maximum]]});
        for queue in &self.more_queues {
            resources[format!("for-{queue}")] = machine.clone();
            queues[*queue] = json!([[format!("for-{queue}"), 1]]);
        }
        let configurations = json!({
            "resource_configurations": resources,
            "queues": queues,
            "extra_vm_bash_script": "export CLEARML_AGENT_QUEUE_POLL_FREQ_SEC=0.2\n",
        });
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        Document { hyper_params: map(hyper_params), configurations: map(configurations) }
    }
}

struct Stage {
    sandbox: Sandbox,
    service: Service,
    dir: TempDir,
    executable: PathBuf,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        Self::set_with(|_, dir| Ok(Source::File(dir.join("aws_autoscaler.yaml")))).await
    }

    async fn set_with(
        source: impl FnOnce(&Sandbox, &Path) -> anyhow::Result<Source>,
    ) -> anyhow::Result<Self> {
        let executable = harness::controller_executable()?;
        let mut options = sandbox::Options::default();
        options.ec2.other_images = Some(Image::StandIn);
        options.ec2.machines =
            MachineOptions { executable: Some(executable.clone()), ..MachineOptions::default() };
        let sandbox = Sandbox::start(options).await.context("start the sandbox")?;
        let dir = TempDir::with_prefix("reload-")?;
        harness::write_sidecar(dir.path(), &executable)?;
        harness::age_journal(&dir.path().join("state")).await?;
        let document = Written::default().document(&sandbox, dir.path());
        fs::write(dir.path().join("aws_autoscaler.yaml"), document.to_yaml())?;
        let source = source(&sandbox, dir.path())?;
        let service = Service::start(input(&sandbox, source).await?).await?;
        Ok(Self { sandbox, service, dir, executable })
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("aws_autoscaler.yaml")
    }

    fn write(&self, written: &Written) -> anyhow::Result<()> {
        Ok(fs::write(self.file(), written.document(&self.sandbox, self.dir.path()).to_yaml())?)
    }

    /// The command as an operator gives it.
    async fn controller(&self, command: &str, options: &[&str]) -> anyhow::Result<Told> {
        let mut process = Command::new(&self.executable);
        process.arg(command).arg("--config-file").arg(self.file()).args(options);
        process.env_clear().env("HOME", self.dir.path());
        let output = tokio::task::spawn_blocking(move || process.output()).await??;
        let told = Told::from(output);
        ensure!(!told.all().contains(SECRET), "a secret is shown: {told:?}");
        Ok(told)
    }

    fn enqueue(&self, name: &str, seconds: f64, queue: &str) -> anyhow::Result<String> {
        let clearml = self.sandbox.clearml.handle();
        let mut queues = clearml.queues().into_iter();
        let queue = queues.find(|known| known.name == queue).context("the queue is there")?.id;
        Ok(clearml.create_task(name, seconds, Some(&queue))?)
    }

    async fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        self.sandbox.ec2.wait_until(LIMIT, |_| done(self)).await;
        ensure!(done(self), "{what}: not in time; {:?}", self.sandbox.ec2.instances());
        Ok(())
    }

    fn is(&self, task: &str, status: &Status) -> bool {
        self.sandbox.clearml.handle().task(task).is_some_and(|task| task.status == *status)
    }

    fn live(&self) -> usize {
        let instances = self.sandbox.ec2.instances();
        instances.iter().filter(|it| matches!(it.state, State::Pending | State::Running)).count()
    }

    async fn strike(self) -> anyhow::Result<()> {
        self.service.stop().await;
        ensure!(self.sandbox.shutdown().await, "an instance's processes would not end");
        Ok(())
    }
}

#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Told {
    fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

async fn input(sandbox: &Sandbox, source: Source) -> anyhow::Result<Input> {
    let environment = sandbox.environment();
    let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let settings = clearml::load(&value, None)?;
    let (document, config) =
        source.read(&settings.client()?, &value).await.map_err(SourceError::for_operator)?;
    let mut input = Input::new(source, document, config, settings, &value);
    input.aws_endpoint = value("AWS_ENDPOINT_URL");
    input.aws_keys = value("AWS_ACCESS_KEY_ID")
        .zip(value("AWS_SECRET_ACCESS_KEY"))
        .map(|(key, secret)| ec2::Keys { key, secret: secret.into(), token: None });
    Ok(input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_maximum_drains_and_never_kills() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let tasks = [stage.enqueue("one", 12.0, "work")?, stage.enqueue("two", 12.0, "work")?];
    stage.wait("both run", |stage| tasks.iter().all(|task| stage.is(task, &Status::InProgress))).await?;

    stage.write(&Written { maximum: 1, ..Written::default() })?;
    let told = stage.controller("reload", &[]).await?;
    ensure!(told.code == Some(0), "{told:?}");
    ensure!(
        told.stdout.contains("configurations.queues.work: [[\"machine\",2]] -> [[\"machine\",1]]"),
        "{told:?}"
    );
    let third = stage.enqueue("three", 1.0, "work")?;
    for task in &tasks {
        stage.wait("it completes", |stage| stage.is(task, &Status::Completed)).await?;
    }
    stage.wait("the third completes too", |stage| stage.is(&third, &Status::Completed)).await?;
    stage.wait("all of them go", |stage| stage.live() == 0).await?;
    let pops = stage.sandbox.clearml.handle().pops();
    ensure!(pops.iter().filter(|pop| pop.task.is_some()).count() == 3, "none was run twice: {pops:?}");
    let fourth = stage.enqueue("four", 1.0, "work")?;
    let fifth = stage.enqueue("five", 1.0, "work")?;
    let before = stage.sandbox.ec2.counts().launched;
    for task in [&fourth, &fifth] {
        stage.wait("it completes", |stage| stage.is(task, &Status::Completed)).await?;
    }
    ensure!(stage.sandbox.ec2.counts().launched == before + 1, "one instance at a time");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_a_queue_that_is_taken_out_ends_its_task_and_goes() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    stage.write(&Written { more_queues: vec!["brief"], ..Written::default() })?;
    ensure!(stage.controller("reload", &[]).await?.code == Some(0));
    let task = stage.enqueue("a task", 8.0, "brief")?;
    stage.wait("it runs", |stage| stage.is(&task, &Status::InProgress)).await?;
    stage.write(&Written::default())?;
    ensure!(stage.controller("reload", &[]).await?.code == Some(0));
    stage.wait("it completes", |stage| stage.is(&task, &Status::Completed)).await?;
    stage.wait("its instance goes", |stage| stage.live() == 0).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_with_all_its_faults_and_the_old_one_stays() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let good = fs::read_to_string(stage.file())?;
    let bad = good.replace("max_idle_time_min: 0.05", "max_idle_time_min: soon\n  max_idle: 3");
    fs::write(stage.file(), bad)?;
    let socket = stage.dir.path().join("state/admin.sock");
    let Err(refused) = controller::admin::reload(&socket).await else {
        anyhow::bail!("a bad file was taken")
    };
    let refused = refused.to_string();
    for part in ["max_idle_time_min: must be a number", "max_idle: unknown key", "aws_autoscaler.yaml:"] {
        ensure!(refused.contains(part), "{part} in {refused}");
    }
    let told = stage.controller("reload", &[]).await?;
    ensure!(told.code == Some(2) && told.stderr.contains("max_idle"), "{told:?}");

    fs::write(stage.file(), &good)?;
    let told = stage.controller("diff", &[]).await?;
    ensure!(told.code == Some(0), "what ran before still runs: {told:?}");
    let task = stage.enqueue("a task", 0.5, "work")?;
    stage.wait("it still works", |stage| stage.is(&task, &Status::Completed)).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wants_a_restart_is_refused_by_its_name() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let hyper_params = BTreeMap::from([
        ("workers_prefix", json!("other")),
        ("listen", json!("127.0.0.1:8790")),
        ("sidecar", json!("off")),
        ("cloud_credentials_region", json!("eu-west-1")),
        ("max_idle_time_min", json!(7)),
    ]);
    stage.write(&Written { hyper_params, ..Written::default() })?;
    let told = stage.controller("reload", &[]).await?;
    ensure!(told.code == Some(2), "{told:?}");
    for key in ["workers_prefix", "listen", "sidecar", "cloud_credentials_region"] {
        ensure!(
            told.stderr.contains(&format!("restart the controller to change {key}")),
            "{key} in {told:?}"
        );
    }
    let told = stage.controller("diff", &["--json"]).await?;
    ensure!(told.code == Some(1), "{told:?}");
    let difference: Value = serde_json::from_str(&told.stdout)?;
    ensure!(
        difference["changes"].as_array().map(Vec::len) == Some(5),
        "nothing of it was taken: {difference}"
    );
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_shows_is_taken_and_is_gone_without_a_secret_shown() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    ensure!(stage.controller("diff", &[]).await?.code == Some(0));
    let hyper_params =
        BTreeMap::from([("git_pass", json!("hunter2 the second")), ("max_idle_time_min", json!(3))]);
    stage.write(&Written { hyper_params, more_queues: vec!["later"], ..Written::default() })?;

    let told = stage.controller("diff", &[]).await?;
    ensure!(told.code == Some(1), "{told:?}");
    for line in [
        "hyper_params.git_pass: changed, not shown",
        "hyper_params.max_idle_time_min: 0.05 -> 3",
        "configurations.queues.later: not set -> [[\"for-later\",1]]",
    ] {
        ensure!(told.stdout.contains(line), "{line} in {told:?}");
    }
    let told = stage.controller("reload", &[]).await?;
    ensure!(
        told.code == Some(0) && told.stdout.contains("hyper_params.git_pass: changed, not shown"),
        "{told:?}"
    );
    ensure!(stage.controller("diff", &[]).await?.code == Some(0));
    let told = stage.controller("reload", &["--json"]).await?;
    let reloaded: Value = serde_json::from_str(&told.stdout)?;
    ensure!(reloaded["changes"] == json!([]), "{reloaded}");

    let task = stage.enqueue("a task", 0.5, "later")?;
    stage.wait("the new queue was made and is served", |stage| stage.is(&task, &Status::Completed)).await?;
    let in_use = controller::admin::in_use(&stage.dir.path().join("state/admin.sock"), "abc").await?;
    ensure!(!serde_json::to_string(&in_use)?.contains(SECRET), "{in_use:?}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_leaves_the_old_one_in_force() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    stage.write(&Written { more_queues: vec!["later"], ..Written::default() })?;
    stage.sandbox.clearml.handle().inject("queues.create", Fault::Html { code: 502 }, None);
    let told = stage.controller("reload", &[]).await?;
    ensure!(told.code == Some(1) && told.stderr.contains("queues.create"), "{told:?}");
    stage.sandbox.clearml.handle().clear_faults();
    ensure!(stage.controller("diff", &[]).await?.code == Some(1), "nothing of it was taken");
    ensure!(stage.controller("reload", &[]).await?.code == Some(0));
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_read_again_too() -> anyhow::Result<()> {
    let stage = Stage::set_with(|sandbox, dir| {
        let document = Written::default().document(sandbox, dir);
        let id = sandbox.clearml.handle().create_task("autoscaler", 0.0, None)?;
        write_task(sandbox, &id, &document)?;
        Ok(Source::Task(id))
    })
    .await?;
    let reloader = stage.service.reloader();
    let id = stage.sandbox.clearml.handle().tasks()[0].id.clone();
    let written = Written { maximum: 5, ..Written::default() };
    write_task(&stage.sandbox, &id, &written.document(&stage.sandbox, stage.dir.path()))?;
    let reloaded = reloader.reload().await?;
    let changes: Vec<String> = reloaded.changes.iter().map(ToString::to_string).collect();
    ensure!(changes == ["configurations.queues.work: [[\"machine\",2]] -> [[\"machine\",5]]"], "{changes:?}");

    let hyper_params = BTreeMap::from([("max_idle_time_min", json!("soon"))]);
    let written = Written { hyper_params, ..Written::default() };
    write_task(&stage.sandbox, &id, &written.document(&stage.sandbox, stage.dir.path()))?;
    let Err(refused) = reloader.reload().await else { anyhow::bail!("a bad task was taken") };
    ensure!(refused.to_string().contains(&format!("task {id}: General/max_idle_time_min: must be a number")));
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_exported_as_the_file_that_it_stands_for() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let document = Written::default().document(&stage.sandbox, stage.dir.path());
    let id = stage.sandbox.clearml.handle().create_task("autoscaler", 0.0, None)?;
    write_task(&stage.sandbox, &id, &document)?;
    let export = async |options: &[&str]| -> anyhow::Result<Told> {
        let mut process = Command::new(&stage.executable);
        process.args(["export", "--task"]).args(options).env_clear().env("HOME", stage.dir.path());
        process.envs(stage.sandbox.environment());
        Ok(Told::from(tokio::task::spawn_blocking(move || process.output()).await??))
    };
    let told = export(&[&id, "--secrets", "--format", "json"]).await?;
    ensure!(told.code == Some(0), "{told:?}");
    ensure!(Document::from_json(Path::new("export"), &told.stdout)? == document, "{told:?}");
    let told = export(&[&id]).await?;
    ensure!(
        told.code == Some(0) && told.stderr.contains("git_pass") && !told.all().contains(SECRET),
        "{told:?}"
    );
    let told = export(&["0123456789abcdef0123456789abcdef"]).await?;
    ensure!(told.code == Some(2) && told.stderr.contains("tasks.get_by_id"), "{told:?}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reloads_and_ends_nothing() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    // A second controller, as a process of its own: a signal is for a whole process.
    let dir = TempDir::with_prefix("hangup-")?;
    harness::write_sidecar(dir.path(), &stage.executable)?;
    let file = dir.path().join("aws_autoscaler.yaml");
    let write = |minutes: u32| {
        let hyper_params =
            BTreeMap::from([("workers_prefix", json!("second")), ("max_idle_time_min", json!(minutes))]);
        let written = Written { hyper_params, ..Written::default() };
        fs::write(&file, written.document(&stage.sandbox, dir.path()).to_yaml())
    };
    write(3)?;
    let mut command = Command::new(&stage.executable);
    command.args(["run", "--config-file"]).arg(&file).env_clear().env("HOME", dir.path());
    command.envs(stage.sandbox.environment());
    let mut controller = Process::start(command, &dir.path().join("log"))?;
    let socket = dir.path().join("state/admin.sock");
    let uses = async |minutes: u32| -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let in_use = controller::admin::in_use(&socket, "key").await.ok();
            let keys = in_use.map(|it| serde_json::to_value(it.keys)).transpose()?.unwrap_or_default();
            if keys["hyper_params.max_idle_time_min"] == json!({ "value": minutes }) {
                return Ok(());
            }
            ensure!(started.elapsed() < LIMIT, "it does not use {minutes} min; {}", controller.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    uses(3).await?;
    write(7)?;
    let pid = Pid::from_raw(i32::try_from(controller.id())?).context("a process id")?;
    kill_process(pid, Signal::HUP)?;
    uses(7).await?;
    ensure!(controller.output().contains("hyper_params.max_idle_time_min: 3 -> 7"), "{}", controller.tail());
    let status = controller.terminate(LIMIT)?;
    ensure!(status.success(), "{status}; {}", controller.tail());
    stage.strike().await
}

/// As ClearML's script leaves it: parameters as texts, the rest as JSON.
fn write_task(sandbox: &Sandbox, id: &str, document: &Document) -> anyhow::Result<()> {
    let text = |value: &Value| match value {
        Value::Bool(true) => "True".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parameters: Vec<Value> = document
        .hyper_params
        .iter()
        .map(|(name, value)| json!({"section": "General", "name": name, "value": text(value)}))
        .collect();
    let clearml = sandbox.clearml.handle();
    clearml.call("tasks.edit_hyper_params", json!({"task": id, "hyperparams": parameters}))?;
    let general =
        json!({"name": "General", "value": serde_json::to_string_pretty(&document.configurations)?});
    clearml.call("tasks.edit_configuration", json!({"task": id, "configuration": [general]}))?;
    Ok(())
}
