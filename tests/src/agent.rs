//! The real clearml-agent behind the shim, with the sidecar's side of the gate played by the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use sandbox::clearml::Server;

use crate::process::Process;

const POLL: Duration = Duration::from_millis(20);
/// A poll in flight holds the lock for as long as the server takes.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// A daemon and its gate.
pub struct Agent {
    pub process: Process,
    gate: PathBuf,
    lock: File,
}

impl Agent {
    /// Starts the agent of a virtual environment with its gate closed. `home` is a directory of its own for
    /// whatever it writes.
    pub fn start(
        venv: &Path,
        home: &Path,
        server: &Server,
        worker: &str,
        queue: &str,
    ) -> anyhow::Result<Self> {
        let gate = home.join("gate");
        fs::create_dir_all(&gate).context("make the gate's directory")?;
        let lock = File::create(gate.join("lock")).context("make the gate's lock")?;
        let shim = home.join("agent_shim.py");
        fs::write(&shim, sidecar::AGENT_SHIM).context("write the shim")?;

        let mut command = python(venv, home, server);
        command
            .arg(&shim)
            .arg("--gate-dir")
            .arg(&gate)
            .args(["--", "daemon", "--foreground", "--queue", queue])
            .env("CLEARML_WORKER_ID", worker)
            .env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
            // A task brings no environment of its own: nothing is installed.
            .env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1");
        let process = Process::start(command, &home.join("agent.log"))?;
        Ok(Self { process, gate, lock })
    }

    /// Lets it poll for so long.
    pub fn open_gate(&self, time: Duration) -> anyhow::Result<()> {
        let now = clock_gettime(ClockId::Boottime);
        let now = Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?);
        let new = self.gate.join("lease.new");
        fs::write(&new, (now + time).as_nanos().to_string()).context("write the lease")?;
        fs::rename(&new, self.gate.join("lease")).context("place the lease")
    }

    /// Closes the gate without a race, and tells what the agent holds: `idle`, `busy:TASK`, `unknown`.
    pub fn close_gate(&self) -> anyhow::Result<String> {
        let started = Instant::now();
        while self.lock.try_lock().is_err() {
            if started.elapsed() > LOCK_LIMIT {
                bail!("the gate's lock was not free; {}", self.process.tail());
            }
            std::thread::sleep(POLL);
        }
        let closed = fs::remove_file(self.gate.join("lease")).context("remove the lease");
        let state = self.state();
        self.lock.unlock().context("release the gate's lock")?;
        closed.and(state)
    }

    /// What the gate says now, without the time.
    pub fn state(&self) -> anyhow::Result<String> {
        let line = fs::read_to_string(self.gate.join("state")).context("read the gate's state")?;
        Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Blocks until the gate says so.
    pub fn wait_for_state(&self, wanted: &str, limit: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let state = self.state().unwrap_or_default();
            if state == wanted {
                return Ok(());
            }
            if started.elapsed() > limit {
                bail!("the gate says {state:?}, not {wanted:?}; {}", self.process.tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The shim found nothing to gate in this agent.
    pub fn is_ungated(&self) -> bool {
        self.gate.join("ungated").exists()
    }

    /// Ends the daemon as an operator would.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(30))
    }
}

/// The interpreter of a virtual environment, with the server's address and keys, a home of its own, and
/// nothing of the ClearML that this machine's user may have set up.
pub fn python(venv: &Path, home: &Path, server: &Server) -> Command {
    python_at(venv, home, server.environment().map(|(name, value)| (name.to_owned(), value)))
}

/// The same with a server's environment in place of the server.
pub fn python_at(
    venv: &Path,
    home: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Command {
    let mut command = Command::new(venv.join("bin/python"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLEARML_") || name.to_string_lossy().starts_with("TRAINS_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(home)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("PYTHONUNBUFFERED", "1")
        .envs(environment);
    command
}
