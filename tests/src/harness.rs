//! The whole product on one machine: a sandbox, the controller's executable as an operator starts it, and
//! instances that boot from their real user data with the real sidecar code and the real clearml-agent.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sandbox::Sandbox;
use sandbox::clearml::{Handle, Status, TaskInfo};
use sandbox::ec2::{InstanceView, State};
use sandbox::instances::{Image, MachineOptions};
use tempfile::TempDir;

use crate::process::Process;
use crate::python;

/// For whatever happens by itself: a boot, a task, a drain, all on a machine with other things to do.
pub const LIMIT: Duration = Duration::from_secs(240);
/// The worker prefix.
pub const PREFIX: &str = "stage";
/// For a controller that was told to stop: calls in flight are answered first.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// What instances get so that agents are quick, and tasks bring no Python environment of their own.
const QUICK_AGENT: &str = "\
export CLEARML_AGENT_QUEUE_POLL_FREQ_SEC=0.2
export CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1
";

/// What a stage is to be like.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `max_idle_time_min`, as a duration.
    pub idle_limit: Duration,
    /// Whether instances have sidecars.
    pub sidecar: bool,
    /// Names of queues; each is served by a resource of its own, `machine-N`.
    pub queues: Vec<String>,
    /// Instances of each resource at most.
    pub maximum: u32,
    /// Run on each instance before its agent starts.
    pub extra_script: String,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            idle_limit: Duration::from_secs(3),
            sidecar: true,
            queues: vec!["work".to_owned()],
            maximum: 1,
            extra_script: String::new(),
        }
    }
}

/// A sandbox with an autoscaler. Everything ends when it is dropped.
pub struct Stage {
    /// Before the directory and the sandbox, so that it ends first.
    controller: Option<Process>,
    pub sandbox: Sandbox,
    dir: TempDir,
    executable: PathBuf,
    runs: usize,
}

impl Stage {
    /// Starts the sandbox and, with it, the controller. Makes the agent's virtual environment if need be.
    pub async fn set(setting: &Setting) -> anyhow::Result<Self> {
        let mut stage = Self::prepare(setting).await?;
        stage.start_controller()?;
        for queue in &setting.queues {
            stage
                .wait(&format!("the controller makes queue {queue}"), |stage| stage.queue(queue).is_ok())
                .await?;
        }
        Ok(stage)
    }

    /// Starts the sandbox, and writes what a controller needs that somebody else is to start.
    pub async fn prepare(setting: &Setting) -> anyhow::Result<Self> {
        let executable = controller_executable()?;
        let requirements = python::file("clearml-requirements.txt");
        let venv = tokio::task::spawn_blocking(move || python::venv("clearml", &requirements))
            .await
            .context("make the agent's virtual environment")??;
        let mut options = sandbox::Options::default();
        options.ec2.other_images = Some(Image::Venv(venv));
        options.ec2.machines =
            MachineOptions { executable: Some(executable.clone()), ..MachineOptions::default() };
        let sandbox = Sandbox::start(options).await.context("start the sandbox")?;
        let dir = TempDir::with_prefix("stage-")?;
        write_sidecar(dir.path(), &executable)?;
        let config_file = dir.path().join("aws_autoscaler.yaml");
        fs::write(&config_file, configuration(setting, dir.path(), &sandbox)?)
            .context("write the configuration")?;
        // Whatever a story does, it does with no more rights than an operator is told to give.
        let policy = least_policy(&executable, &config_file)?;
        sandbox.ec2.configure(|options| options.policy = Some(policy));
        age_journal(&dir.path().join("state")).await?;
        Ok(Self { controller: None, sandbox, dir, executable, runs: 0 })
    }

    /// What a service in the test's own process starts from.
    pub fn input(&self) -> anyhow::Result<controller::service::Input> {
        let environment = self.sandbox.environment();
        let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, it)| it.clone());
        let mut input =
            controller::service::Input::load(&self.dir.path().join("aws_autoscaler.yaml"), &value)?;
        input.aws_endpoint = value("AWS_ENDPOINT_URL");
        input.aws_keys = value("AWS_ACCESS_KEY_ID")
            .zip(value("AWS_SECRET_ACCESS_KEY"))
            .map(|(key, secret)| ec2::Keys { key, secret: secret.into(), token: None });
        Ok(input)
    }

    /// `controller run`, as a process of its own.
    pub fn start_controller(&mut self) -> anyhow::Result<()> {
        ensure!(self.controller.is_none(), "one controller at a time");
        self.runs += 1;
        let mut command = self.command();
        command.args(["run", "--config-file"]).arg(self.config_file());
        self.controller = Some(Process::start(command, &self.log_file(self.runs))?);
        Ok(())
    }

    /// The controller's executable, in the stage's environment and nothing of this machine's user.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["CLEARML_", "TRAINS_", "AWS_"].iter().any(|foreign| name.starts_with(foreign)) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.dir.path()).env_remove("RUST_LOG").envs(self.sandbox.environment());
        command
    }

    /// The configuration that controllers are started with.
    pub fn config_file(&self) -> PathBuf {
        self.file("aws_autoscaler.yaml")
    }

    /// Tells the controller to stop, and waits until it did.
    pub fn stop_controller(&mut self) -> anyhow::Result<()> {
        let mut controller = self.controller.take().context("a controller runs")?;
        let status = controller.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "the controller ended with {status}; {}", controller.tail());
        Ok(())
    }

    /// Ends the controller without a warning, as a crash does.
    pub fn kill_controller(&mut self) -> anyhow::Result<()> {
        drop(self.controller.take().context("a controller runs")?);
        Ok(())
    }

    /// What the controllers wrote so far, one run after the other.
    pub fn log(&self) -> String {
        let runs = 1..=self.runs;
        runs.map(|run| fs::read_to_string(self.log_file(run)).unwrap_or_default()).collect()
    }

    /// What the last controller wrote.
    pub fn last_log(&self) -> String {
        fs::read_to_string(self.log_file(self.runs)).unwrap_or_default()
    }

    fn log_file(&self, run: usize) -> PathBuf {
        self.dir.path().join(format!("controller-{run}.log"))
    }

    /// A file that tests may use.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// ClearML's back door.
    pub fn clearml(&self) -> Handle {
        self.sandbox.clearml.handle()
    }

    /// A queue's id.
    pub fn queue(&self, name: &str) -> anyhow::Result<String> {
        let mut queues = self.clearml().queues().into_iter();
        queues
            .find(|queue| queue.name == name)
            .map(|queue| queue.id)
            .with_context(|| format!("no queue {name}"))
    }

    pub fn task(&self, id: &str) -> anyhow::Result<TaskInfo> {
        self.clearml().task(id).with_context(|| format!("no task {id}"))
    }

    /// The one instance that was launched so far.
    pub fn only_instance(&self) -> anyhow::Result<InstanceView> {
        let instances = self.sandbox.ec2.instances();
        match instances.as_slice() {
            [instance] => Ok(instance.clone()),
            others => bail!("{} instances, not one", others.len()),
        }
    }

    /// The agents that ClearML lists; the autoscaler's own entry is none.
    pub fn workers(&self) -> Vec<String> {
        let workers = self.clearml().workers().into_iter().map(|worker| worker.id);
        workers.filter(|worker| worker.starts_with(&format!("{PREFIX}:"))).collect()
    }

    /// Whether every instance is terminated and no worker is listed any more.
    pub fn is_swept(&self) -> bool {
        let instances = self.sandbox.ec2.instances();
        instances.iter().all(|instance| instance.state == State::Terminated) && self.workers().is_empty()
    }

    /// Waits until something is true. Fails with the whole story if it is not within [`LIMIT`], or if the
    /// controller ends by itself.
    pub async fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let ended = || self.controller.as_ref().is_some_and(|it| it.has_ended());
        self.sandbox.ec2.wait_until(LIMIT, |_| done(self) || ended()).await;
        if done(self) {
            return Ok(());
        }
        let why = if ended() { "the controller ended" } else { "not in time" };
        bail!("{what}: {why}\n{}", self.story())
    }

    /// Stops everything; fails if processes are left.
    pub async fn strike(mut self) -> anyhow::Result<()> {
        if self.controller.is_some() {
            self.stop_controller()?;
        }
        let Self { controller: _, sandbox, dir: _dir, executable: _, runs: _ } = self;
        ensure!(sandbox.shutdown().await, "an instance's processes would not end");
        Ok(())
    }

    /// Everything that anybody wrote, for the message of a failure.
    pub fn story(&self) -> String {
        let mut story =
            format!("the controller wrote:\n{}\nworkers: {:?}\n", end_of(&self.log()), self.workers());
        for task in self.clearml().tasks() {
            let _ = writeln!(story, "task {task:?}");
            if task.status != Status::Completed {
                let _ =
                    writeln!(story, "its console:\n{}", end_of(&self.clearml().console(&task.id).concat()));
            }
        }
        for instance in self.sandbox.ec2.instances() {
            let InstanceView { id, state, reason, .. } = &instance;
            let _ = writeln!(
                story,
                "{id} is {state} ({reason:?}); its console:\n{}",
                end_of(&self.sandbox.ec2.console(id))
            );
            let _ = writeln!(story, "its boot log:\n{}", end_of(&boot_log(&instance)));
        }
        story
    }
}

/// What the boot script and then the agent of an instance wrote.
pub fn boot_log(instance: &InstanceView) -> String {
    let own = instance.dir.join("root/var/lib/clearml-autoscaler");
    let logs = ["boot/log", "agent.log"].map(|name| fs::read(own.join(name)).unwrap_or_default());
    logs.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// A file of an instance's gate.
pub fn gate_file(instance: &InstanceView, name: &str) -> Option<String> {
    fs::read_to_string(instance.dir.join("root/run/clearml-autoscaler/agent-0").join(name)).ok()
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The controller's executable, beside the tests' own directory.
pub fn controller_executable() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("find this test's executable")?;
    let executable = me.ancestors().nth(2).context("the target directory")?.join("controller");
    ensure!(
        executable.exists(),
        "{} is missing: `cargo build --bin controller` makes it, and so does `cargo test --workspace`",
        executable.display()
    );
    Ok(executable)
}

/// What `controller iam-policy` prints for a configuration.
pub fn least_policy(executable: &Path, config_file: &Path) -> anyhow::Result<serde_json::Value> {
    let output = Command::new(executable).args(["iam-policy", "--config-file"]).arg(config_file).output()?;
    ensure!(output.status.success(), "iam-policy: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("iam-policy prints JSON")
}

/// What the gateway serves as the sidecar: its code in the controller's executable.
pub fn write_sidecar(dir: &Path, executable: &Path) -> anyhow::Result<()> {
    let script = format!("#!/bin/sh\nexec '{}' sidecar \"$@\"\n", executable.display());
    for arch in ["x86_64", "aarch64"] {
        let file = dir.join(format!("sidecar-{arch}"));
        fs::write(&file, &script).context("write the sidecar")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .context("make the sidecar executable")?;
    }
    Ok(())
}

/// A fleet without a journal waits a minute for launches of before. Here there is no before.
pub async fn age_journal(state_dir: &Path) -> anyhow::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let earlier = now.saturating_sub(2 * controller::journal::NEW_FOR).as_millis();
    let store = controller::journal::Store::open(state_dir, planner::Time(u64::try_from(earlier)?)).await?;
    store.close().await;
    Ok(())
}

fn configuration(setting: &Setting, dir: &Path, sandbox: &Sandbox) -> anyhow::Result<String> {
    let Setting { idle_limit, sidecar, queues, maximum, extra_script } = setting;
    // A restarted controller is to be found where it was.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let script = serde_json::to_string(&format!("{QUICK_AGENT}{extra_script}"))?;
    let mut resources = String::new();
    let mut budget = String::new();
    for (number, queue) in queues.iter().enumerate() {
        let _ = write!(
            resources,
            "
    machine-{number}:
      instance_type: m5.xlarge
      is_spot: false
      availability_zone: us-east-1a
      ami_id: ami-0123456789abcdef0
      ebs_device_name: /dev/xvda
      ebs_volume_size: 100
      ebs_volume_type: gp3"
        );
        let _ = write!(budget, "\n    {queue}:\n    - - machine-{number}\n      - {maximum}");
    }
    Ok(format!(
        "\
hyper_params:
  cloud_provider: AWS
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  workers_prefix: {PREFIX}
  max_idle_time_min: {idle}
  max_spin_up_time_min: 5
  polling_interval_time_min: 0.05
  queue_polling_interval_sec: 0.3
  listen: 127.0.0.1:{port}
  advertise_address: 127.0.0.1
  agent_api_server: {api}
  sidecar: {sidecar}
  state_dir: {state}
  sidecar_dir: {dir}
configurations:
  resource_configurations:{resources}
  queues:{budget}
  extra_vm_bash_script: {script}
",
        idle = idle_limit.as_secs_f64() / 60.0,
        api = sandbox.clearml.api_url(),
        sidecar = if *sidecar { "required" } else { "off" },
        state = dir.join("state").display(),
        dir = dir.display(),
    ))
}
