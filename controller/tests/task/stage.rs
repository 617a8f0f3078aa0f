//! A sandbox with a configuration, and the executable in its environment.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandbox::Sandbox;
use sandbox::clearml::Handle;
use serde_json::{Value, json};

/// For whatever happens by itself, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A sandbox, and a directory with a configuration.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let sandbox = Sandbox::start(sandbox::Options::default()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let stage = Self { sandbox, dir };
        stage.configure(&stage.hyper_params());
        stage
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn hyper_params(&self) -> Value {
        json!({
            "cloud_credentials_region": "us-east-1",
            "cloud_credentials_key": "AKIAEXAMPLE",
            "cloud_credentials_secret": "a-secret-of-aws",
            "git_user": "me",
            "git_pass": "a-secret-of-git",
            "workers_prefix": "stage",
            "sidecar": "off",
            "agent_api_server": self.sandbox.clearml.api_url(),
            "state_dir": self.path().join("state"),
        })
    }

    pub(crate) fn configure(&self, hyper_params: &Value) {
        let document = json!({ "hyper_params": hyper_params, "configurations": configurations() });
        // JSON is YAML.
        std::fs::write(self.path().join("aws_autoscaler.yaml"), document.to_string()).unwrap();
    }

    pub(crate) fn handle(&self) -> Handle {
        self.sandbox.clearml.handle()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_controller"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .envs(self.sandbox.environment());
        command
    }

    /// The script's ways to run, with the file that is there.
    pub(crate) fn script(&self, args: &[&str]) -> Command {
        self.command(&[&["--load-config-file", "--yes"], args].concat())
    }

    pub(crate) async fn script_output(&self, args: &[&str]) -> Output {
        ended(tokio::process::Command::from(self.script(args))).await
    }

    pub(crate) async fn output(&self, args: &[&str]) -> Output {
        let command = self.command(args);
        ended(tokio::process::Command::from(command)).await
    }

    /// `--run`, once it runs.
    pub(crate) async fn run(&self) -> Run {
        let before = self.handle().count("workers.register");
        let run = Run::start(self.script(&["--run"]));
        let registered = |handle: &Handle| handle.count("workers.register") > before;
        self.handle().wait(LIMIT, registered).await.unwrap();
        run
    }

    pub(crate) fn task(&self, id: &str) -> Value {
        self.handle().call("tasks.get_by_id", json!({ "task": id })).unwrap()["task"].clone()
    }

    pub(crate) fn only_task(&self) -> String {
        let tasks = self.handle().tasks();
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks[0].id.clone()
    }

    /// As an agent starts it.
    pub(crate) async fn by_agent(&self, task: &str) -> Output {
        let mut command = self.command(&["run"]);
        command.env("CLEARML_TASK_ID", task).env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.1");
        ended(tokio::process::Command::from(command)).await
    }

    pub(crate) fn service(&self, hyper_params: &Value, general: Option<&str>) -> String {
        let rows = hyper_params.as_object().unwrap().iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.clone(), json!({ "section": "General", "name": name, "value": value }))
        });
        let mut task = json!({ "name": "AWS Auto-Scaler", "type": "service",
            "hyperparams": { "General": Value::Object(rows.collect()) } });
        if let Some(general) = general {
            task["configuration"] = json!({ "General": { "name": "General", "value": general } });
        }
        let id = self.handle().call("tasks.create", task).unwrap()["id"].as_str().unwrap().to_owned();
        self.handle().call("tasks.started", json!({ "task": id })).unwrap();
        id
    }
}

pub(crate) fn configurations() -> Value {
    json!({
        "resource_configurations": { "t4": {
            "instance_type": "g4dn.xlarge", "is_spot": false, "availability_zone": "us-east-1b",
            "ami_id": "ami-0123456789abcdef0",
        } },
        "queues": { "gpu_queue": [["t4", 1]] },
        "extra_vm_bash_script": "echo boot",
        "extra_clearml_conf": "",
    })
}

/// A process that is killed when this is dropped.
pub(crate) struct Run(Child);

impl Run {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Tells it to stop; its exit code, stdout and stderr.
    pub(crate) async fn terminate(mut self) -> (Option<i32>, String, String) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        tokio::task::spawn_blocking(move || {
            let (mut out, mut err) = (String::new(), String::new());
            self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            (self.0.wait().unwrap().code(), out, err)
        })
        .await
        .unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// It must end by itself.
pub(crate) async fn ended(mut command: tokio::process::Command) -> Output {
    let output = command.kill_on_drop(true).output();
    tokio::time::timeout(LIMIT, output).await.expect("it ends by itself").unwrap()
}

pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a task's script as an agent would, less the last step. Its output.
pub(crate) async fn bootstrap(stage: &Stage, script: &str) -> String {
    let script = script.replace("exec \"$OWN/controller\" run", "exit 0");
    let mut command = tokio::process::Command::from(stage.command(&[]));
    let env: Vec<_> =
        command.as_std().get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    command = tokio::process::Command::new("sh");
    command.env_clear().current_dir(stage.path()).args(["-c", &script]);
    command.envs(env.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let output = ended(command).await;
    format!("{}{}", String::from_utf8_lossy(&output.stdout), told(&output))
}

/// Puts other bytes into a file's place.
pub(crate) async fn store(stage: &Stage, path: &str, content: &[u8]) {
    let address = |url: &str| clearml::Address::parse(url).unwrap();
    let credentials = clearml::Credentials::Keys {
        access: stage.sandbox.clearml.access_key().into(),
        secret: stage.sandbox.clearml.secret_key().into(),
    };
    let options = clearml::Options::new(address(&stage.sandbox.clearml.api_url()), credentials);
    let client = clearml::Client::new(options).unwrap();
    let files = client.file_server(address(&stage.sandbox.clearml.files_url())).unwrap();
    files.store(path, content).await.unwrap();
}
