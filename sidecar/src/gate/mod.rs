//! The gate's files, by which sidecar and shim agree whether the agent may take work.
//!
//! One directory per agent, `$ROOT/run/clearml-autoscaler/agent-N/`, mode 0700. All times are decimal
//! nanoseconds of CLOCK_BOOTTIME; every file but `lock` is replaced by rename, so that a reader sees all of it
//! or the one before.
//!
//! | file | by | content |
//! |---|---|---|
//! | `lock` | both | nothing. flock: shared by the shim around a poll, exclusive by the sidecar around a drain |
//! | `lease` | sidecar | `NS`: until then the agent may poll. Absent, past or unreadable: it may not |
//! | `state` | shim | one line, see below. Absent: the agent has not started |
//! | `pid` | shim | the daemon's pid, written before the first `state` |
//! | `ungated` | shim | exists if this agent's version could not be gated; `state` then stays `idle` |
//!
//! | `state` | means |
//! |---|---|
//! | `idle NS` | holds no task since NS |
//! | `polling NS` | holds no task since NS, and is asking for one at this moment |
//! | `busy:TASK NS` | popped TASK at NS and has not ended it; written before the lock is released |
//! | `unknown NS` | a poll failed at NS: the server may have popped a task for it |
//!
//! A poll does not interrupt idleness, nor does a failed one that a later one settles: NS of `idle` and `polling`
//! is the end of the last task, or the shim's start. Under the exclusive lock no poll is in flight; `polling` is
//! then what a dead shim left, and as good as `unknown`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::agent::Reading;

/// The Python that runs clearml-agent behind the gate:
/// `PYTHON agent_shim.py --gate-dir DIR [--self-idle-limit SECONDS --power-off COMMAND] -- ARGUMENTS`.
pub const AGENT_SHIM: &str = include_str!("agent_shim.py");

const SMALL_FILE: usize = 4096;

/// One agent's gate directory, from the sidecar's side.
#[derive(Clone, Debug)]
pub struct Gate {
    directory: PathBuf,
}

impl Gate {
    /// Names the directory; touches nothing.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory, if the shim has not yet.
    ///
    /// # Errors
    /// It could not be made.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// What the shim last wrote. What cannot be understood is `Unknown` since `now`.
    pub fn read(&self, now: Duration) -> Reading {
        match read_small(&self.directory.join("state")) {
            Ok(line) => parse_state(&line).unwrap_or(Reading::Unknown { since: now }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Absent,
            Err(_) => Reading::Unknown { since: now },
        }
    }

    /// The daemon's pid, once the shim has written one.
    pub fn pid(&self) -> Option<i32> {
        read_small(&self.directory.join("pid")).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// This agent's version could not be gated.
    pub fn is_ungated(&self) -> bool {
        self.directory.join("ungated").exists()
    }

    /// Lets the agent poll until `until` on CLOCK_BOOTTIME.
    ///
    /// # Errors
    /// The lease could not be written: the gate closes when the one before ends.
    pub fn renew(&self, until: Duration) -> io::Result<()> {
        replace(&self.directory.join("lease"), format!("{}\n", until.as_nanos()).as_bytes(), false)
    }

    /// Takes the lease away. A poll may be in flight, unless the lock is held.
    ///
    /// # Errors
    /// The lease may still stand.
    pub fn close(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join("lease")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the lock exclusively, if no poll is in flight. It is released by the drop.
    ///
    /// # Errors
    /// The lock could not be opened or asked for; `Ok(None)` if it is held by another.
    pub fn try_lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.directory.join("lock"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// No poll is in flight while this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Closes all gates at one instant in which none is polling, and reads what their agents hold then.
/// `Ok(None)`, with every gate as it was, if a poll is in flight.
///
/// # Errors
/// A gate could not be locked or closed; some may be closed.
pub fn try_close(gates: &[Gate], now: Duration) -> io::Result<Option<Vec<Reading>>> {
    let mut locks = Vec::with_capacity(gates.len());
    for gate in gates {
        match gate.try_lock()? {
            Some(lock) => locks.push(lock),
            None => return Ok(None),
        }
    }
    for gate in gates {
        gate.close()?;
    }
    Ok(Some(gates.iter().map(|gate| gate.read(now)).collect()))
}

fn parse_state(line: &str) -> Option<Reading> {
    let (kind, since) = line.trim_end().rsplit_once(' ')?;
    let since = Duration::from_nanos(since.parse().ok()?);
    match kind {
        "idle" => Some(Reading::Idle { since }),
        "polling" => Some(Reading::Polling { since }),
        "unknown" => Some(Reading::Unknown { since }),
        _ => {
            let task = kind.strip_prefix("busy:")?;
            Some(Reading::Busy { task: (!task.is_empty()).then(|| task.to_owned()), since })
        }
    }
}

/// Reads a file of which more than a page would be a mistake, in one go: a short read is its end.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    let mut page = [0; SMALL_FILE];
    let length = File::open(path)?.read(&mut page)?;
    let text = std::str::from_utf8(&page[..length]);
    text.map(str::to_owned).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Replaces a file at once and whole, 0600; `durable` also against a loss of power.
pub(crate) fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durable && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
