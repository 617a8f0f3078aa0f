//! The boot script: received once, kept for root alone, run once, followed by what it writes.
//!
//! `boot/` holds the script's files, `boot.sh` (written last: it is there once all is), `workers` (one id a
//! line), `begun` (made at the start: never a second one), `log`, and `exit` (the script's exit status).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Stdio;

use proto::v1::BootScript;
use tokio::process::Command;

use crate::agent::Boot;
use crate::config::{Layout, ROOT_VARIABLE};
use crate::gate::read_small;

/// How much of the log a failure is reported with, in bytes.
const TAIL: u64 = 8 << 10;
const OURS: [&str; 5] = ["boot.sh", "workers", "begun", "log", "exit"];
/// The unit on machines with systemd.
const UNIT: &str = "clearml-autoscaler-boot";
/// The guard against a second run is the file that only one can make.
const RUN: &str = r#"cd "$1" || exit 1
(set -C; : > begun) 2>/dev/null || exit 0
bash ./boot.sh >> log 2>&1 < /dev/null
echo $? > .exit && mv .exit exit"#;

/// The boot script's directory.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    layout: Layout,
}

/// A phase that the script named, or that its end makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) failed: bool,
}

impl Script {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// It was received, in this life of the sidecar or an earlier one.
    pub(crate) fn is_received(&self) -> bool {
        self.path("boot.sh").exists()
    }

    /// The agents that it starts.
    pub(crate) fn worker_ids(&self) -> Vec<String> {
        let text =
            if self.is_received() { fs::read_to_string(self.path("workers")) } else { Ok(String::new()) };
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Writes all of it down, the script last.
    pub(crate) fn receive(&self, script: &BootScript) -> io::Result<()> {
        let BootScript { script, files, worker_ids } = script;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.layout.boot())?;
        fs::set_permissions(self.layout.boot(), fs::Permissions::from_mode(0o700))?;
        for file in files {
            if !is_plain(&file.name) || OURS.contains(&file.name.as_str()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a file of the script has no plain name",
                ));
            }
            self.write(&file.name, &file.content, file.mode & 0o777)?;
        }
        let workers: String = worker_ids.iter().map(|id| format!("{id}\n")).collect();
        self.write("workers", workers.as_bytes(), 0o600)?;
        self.write("boot.sh", script.as_bytes(), 0o700)
    }

    /// Starts it apart from the sidecar, whose end it survives, unless it was started before.
    pub(crate) async fn start(&self) -> io::Result<()> {
        if self.path("begun").exists() {
            return Ok(());
        }
        let mut command = if self.layout.systemd().exists() {
            let mut command = Command::new("systemd-run");
            command.arg(format!("--unit={UNIT}")).arg("--quiet");
            command
        } else {
            let mut command = Command::new("setsid");
            command.arg("--fork");
            command
        };
        command.args(["bash", "-c", RUN, "boot"]).arg(self.layout.boot());
        if !self.layout.root().as_os_str().is_empty() {
            command.env(ROOT_VARIABLE, self.layout.root());
        }
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).status().await?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the starter ended with {status}")))
        }
    }

    /// All that it has named so far, in order; at the end also the failure that it did not name.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let text = fs::read(self.layout.phase()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A line without its end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut phases: Vec<Phase> = whole
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| match line.strip_prefix("failed ") {
                Some(name) => Phase { name: name.to_owned(), failed: true },
                None => Phase { name: line.to_owned(), failed: false },
            })
            .collect();
        let settled = phases.iter().any(|phase| phase.failed || phase.name == "ready");
        if !settled && read_small(&self.path("exit")).is_ok() {
            let name = phases.last().map_or_else(|| "script".to_owned(), |phase| phase.name.clone());
            phases.push(Phase { name, failed: true });
        }
        phases
    }

    /// How far it is.
    pub(crate) fn boot(&self) -> Boot {
        let phases = self.phases();
        if let Some(failed) = phases.iter().find(|phase| phase.failed) {
            return Boot::Failed(failed.name.clone());
        }
        if phases.iter().any(|phase| phase.name == "ready") {
            return Boot::Ready;
        }
        match phases.last() {
            Some(phase) => Boot::Running(phase.name.clone()),
            None if self.is_received() => Boot::Running("script".to_owned()),
            None => Boot::Waiting,
        }
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.path("log"))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut tail = Vec::new();
            file.take(TAIL).read_to_end(&mut tail)?;
            Ok(tail)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.boot().join(name)
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let temporary = self.path(&format!(".{name}.new"));
        // What an earlier try left may have other permissions.
        drop(fs::remove_file(&temporary));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, self.path(name))
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() <= 200
}
