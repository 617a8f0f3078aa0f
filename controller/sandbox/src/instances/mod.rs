//! Instances as local process trees. Each has a directory with a private root, stand-ins first on its PATH, and a
//! supervisor that is the subreaper of all that its user data starts, so that nothing outlives the instance.

mod power;
mod processes;
mod root;
mod supervise;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Semaphore;

pub use supervise::supervise;

/// What GetConsoleOutput gives, at most.
const CONSOLE_TAIL: u64 = 64 * 1024;
/// A supervisor that has not ended everything by then is ended itself.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Passed on from this process's environment: how to reach package indexes.
const PASSED_ON: &[&str] = &["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NO_PROXY", "no_proxy"];

/// What lies on a machine image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Nothing runs at all: for loads of thousands of instances.
    NoProcesses,
    /// A plain machine: no agent is installed.
    Bare,
    /// A small program plays Python, the shim and clearml-agent.
    StandIn,
    /// The real agent, in the virtual environment at this path.
    Venv(PathBuf),
}

impl Image {
    /// Whether its instances are processes.
    pub fn runs(&self) -> bool {
        match self {
            Image::NoProcesses => false,
            Image::Bare | Image::StandIn | Image::Venv(_) => true,
        }
    }
}

/// How instances become processes.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// The executable with the hidden subcommands; this process's own if unset.
    pub executable: Option<PathBuf>,
    /// Where the instances' directories lie; a temporary directory if unset, which goes with the sandbox.
    pub dir: Option<PathBuf>,
    /// Added to the environment of every instance.
    pub env: BTreeMap<String, String>,
    /// Supervisors that start at the same time.
    pub boots_at_once: usize,
    /// Instances with processes that may exist at once.
    pub at_most: u32,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self { executable: None, dir: None, env: BTreeMap::new(), boots_at_once: 8, at_most: 600 }
    }
}

/// An instance could not become processes.
#[derive(Debug, thiserror::Error)]
#[error("starting instance {id}")]
pub(crate) struct BootError {
    id: String,
    source: io::Error,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it was told.
    Stopped,
    /// By itself.
    PoweredOff,
    /// Its supervisor died.
    Failed,
}

/// What a machine is started from.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) id: &'a str,
    pub(crate) image: &'a Image,
    pub(crate) user_data: &'a [u8],
    /// The base of its metadata service.
    pub(crate) metadata: String,
}

/// The place where machines run.
#[derive(Debug)]
pub(crate) struct Machines {
    options: MachineOptions,
    executable: PathBuf,
    dir: PathBuf,
    /// Held for its removal at the end.
    _temporary: Option<tempfile::TempDir>,
    starting: Semaphore,
}

impl Machines {
    pub(crate) fn new(options: MachineOptions) -> io::Result<Self> {
        let executable = match &options.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        };
        let (dir, temporary) = match &options.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("sandbox-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let starting = Semaphore::new(options.boots_at_once.max(1));
        Ok(Self { options, executable, dir, _temporary: temporary, starting })
    }

    /// The directory of an instance: `root/`, `bin/`, `console.log`, `user-data`.
    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    pub(crate) async fn boot(&self, boot: Boot<'_>) -> Result<Machine, BootError> {
        let _starting = self.starting.acquire().await;
        self.spawn(&boot).map_err(|source| BootError { id: boot.id.to_owned(), source })
    }

    fn spawn(&self, boot: &Boot<'_>) -> io::Result<Machine> {
        let dir = self.dir(boot.id);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        fs::write(dir.join("user-data"), boot.user_data)?;
        let console =
            fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("console.log"))?;
        let mut command = Command::new(&self.executable);
        command.arg("sandbox-instance").arg("--dir").arg(&dir);
        match boot.image {
            Image::NoProcesses | Image::Bare => {}
            Image::StandIn => {
                command.arg("--stand-in");
            }
            Image::Venv(venv) => {
                command.arg("--venv").arg(venv);
            }
        }
        command.env_clear().envs(self.environment(&dir, &boot.metadata));
        command.stdin(Stdio::piped()).stdout(console.try_clone()?).stderr(console);
        let mut child = command.spawn()?;
        let lifeline = child.stdin.take();
        Ok(Machine { child, lifeline, root: root::path(&dir) })
    }

    fn environment(&self, dir: &Path, metadata: &str) -> BTreeMap<String, String> {
        let root = root::path(dir);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let outside = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| {
                let lower = name.to_ascii_lowercase();
                lower.starts_with("pip_") || lower.ends_with("_proxy") || PASSED_ON.contains(&name.as_str())
            })
            .collect();
        env.extend(
            [
                ("PATH", format!("{}:{outside}", text(&dir.join("bin")))),
                ("HOME", text(&root.join("root"))),
                ("TMPDIR", text(&root.join("tmp"))),
                ("USER", "root".into()),
                ("LANG", "C.UTF-8".into()),
                ("CLEARML_AUTOSCALER_ROOT", text(&root)),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        env.extend(self.options.env.clone());
        env
    }

    /// The end of an instance's console.
    pub(crate) fn console(&self, id: &str) -> Vec<u8> {
        tail(&self.dir(id).join("console.log")).unwrap_or_default()
    }

    /// Removes what an instance left on disk.
    pub(crate) fn forget(&self, id: &str) {
        match fs::remove_dir_all(self.dir(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(instance = id, %error, "an instance's directory could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
    let mut content = Vec::new();
    file.take(CONSOLE_TAIL).read_to_end(&mut content)?;
    Ok(content)
}

/// A running machine. Dropping it ends it, too: its supervisor sees the lifeline close.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    lifeline: Option<ChildStdin>,
    root: PathBuf,
}

impl Machine {
    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> End {
        let status = self.child.wait().await;
        match status.ok().and_then(|status| status.code()) {
            Some(supervise::STOPPED) => End::Stopped,
            Some(supervise::POWERED_OFF) => End::PoweredOff,
            Some(_) | None => {
                // Nobody reaps for a dead supervisor: its processes are found by their environment.
                processes::end_all(|| processes::of_root(&self.root), || {}).await;
                End::Failed
            }
        }
    }

    /// Ends every process of it.
    pub(crate) async fn stop(mut self) {
        self.lifeline = None;
        if tokio::time::timeout(STOP_LIMIT, self.ended()).await.is_ok() {
            return;
        }
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "a supervisor could not be ended");
        }
        self.ended().await;
    }
}
