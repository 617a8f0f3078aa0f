//! Programs that a test starts: their output goes to a file, and nothing of them outlives the test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

const POLL: Duration = Duration::from_millis(20);

/// A program in a process group of its own, which is killed as a whole when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output, both streams, in the file `log`.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its output, for the message of a failure.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        format!("output ends:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended; it stays to be waited for.
    pub fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(Pid::from_child(&self.child)), look) {
            Ok(ended) => ended.is_some(),
            // Waited for already.
            Err(_) => true,
        }
    }

    /// Blocks until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("wait for the process")? {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!("did not end within {} s; {}", limit.as_secs(), self.tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM to it alone) and waits for that.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        if self.child.try_wait().context("look at the process")?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).context("signal the process")?;
        }
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that nobody is left.
        let _none_left = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _reaped = self.child.wait();
    }
}
