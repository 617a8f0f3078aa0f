//! The gate from the agent's side, as the shim has it: a lock held while polling, a lease that must be valid, and a
//! state that others read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

/// Longer than a drain holds the lock; after that it is as good as closed.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What the agent does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Idle,
    Polling,
    Busy(String),
    Unknown,
}

/// One gate directory.
#[derive(Debug)]
pub(super) struct Gate {
    dir: PathBuf,
    needs_lease: bool,
    idle_since: i128,
    kind: Kind,
}

impl Gate {
    /// Makes the directory, and the files `pid` and `state`.
    pub(super) fn prepare(dir: PathBuf, needs_lease: bool) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut gate = Self { dir, needs_lease, idle_since: boottime(), kind: Kind::Idle };
        gate.write("pid", &std::process::id().to_string())?;
        gate.set(Kind::Idle)?;
        Ok(gate)
    }

    /// The lock, if this is a moment to poll; the state says `polling` then.
    pub(super) async fn open(&mut self) -> io::Result<Option<File>> {
        let Some(lock) = self.lock().await? else {
            self.rest()?;
            return Ok(None);
        };
        if !self.is_leased() {
            self.rest()?;
            return Ok(None);
        }
        self.set(Kind::Polling)?;
        Ok(Some(lock))
    }

    /// The task that was run, if any, is over.
    pub(super) fn ended(&mut self) -> io::Result<()> {
        self.idle_since = boottime();
        self.set(Kind::Idle)
    }

    /// Idle and polling carry the begin of idleness, the others their own.
    pub(super) fn set(&mut self, kind: Kind) -> io::Result<()> {
        let (word, since) = match &kind {
            Kind::Idle => ("idle".to_owned(), self.idle_since),
            Kind::Polling => ("polling".to_owned(), self.idle_since),
            Kind::Busy(task) => (format!("busy:{task}"), boottime()),
            Kind::Unknown => ("unknown".to_owned(), boottime()),
        };
        self.kind = kind;
        self.write("state", &format!("{word} {since}"))
    }

    /// How long it has been idle; `None` while it may hold a task.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        match self.kind {
            Kind::Idle => {
                let nanos = u64::try_from(boottime() - self.idle_since).unwrap_or_default();
                Some(Duration::from_nanos(nanos))
            }
            Kind::Polling | Kind::Busy(_) | Kind::Unknown => None,
        }
    }

    /// No poll now. A failed one stays unsettled until the next.
    fn rest(&mut self) -> io::Result<()> {
        match self.kind {
            Kind::Unknown => Ok(()),
            Kind::Idle | Kind::Polling | Kind::Busy(_) => self.set(Kind::Idle),
        }
    }

    async fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join("lock"))?;
        let limit = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > limit {
                return Ok(None);
            }
            sleep(LOCK_RETRY).await;
        }
    }

    fn is_leased(&self) -> bool {
        if !self.needs_lease {
            return true;
        }
        let until = fs::read_to_string(self.dir.join("lease")).ok().and_then(|text| text.trim().parse().ok());
        until.is_some_and(|until: i128| until > boottime())
    }

    /// Replaces a file at once and whole.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{name}.shim"));
        fs::write(&temporary, format!("{text}\n"))?;
        fs::rename(temporary, self.dir.join(name))
    }
}

/// Nanoseconds of CLOCK_BOOTTIME.
fn boottime() -> i128 {
    let now = clock_gettime(ClockId::Boottime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &std::path::Path) -> String {
        let text = fs::read_to_string(dir.join("state")).unwrap();
        text.split(' ').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn it_is_closed_without_a_lease_and_while_it_is_drained() {
        let dir = tempfile::tempdir().unwrap();
        let mut gate = Gate::prepare(dir.path().to_owned(), true).unwrap();
        assert!(gate.open().await.unwrap().is_none());
        assert_eq!(state(dir.path()), "idle");

        fs::write(dir.path().join("lease"), (boottime() + 60_000_000_000).to_string()).unwrap();
        let held = gate.open().await.unwrap();
        assert!(held.is_some());
        assert_eq!(state(dir.path()), "polling");
        let drain = File::open(dir.path().join("lock")).unwrap();
        assert!(flock(&drain, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);

        gate.set(Kind::Busy("t1".into())).unwrap();
        assert_eq!(state(dir.path()), "busy:t1");
        assert_eq!(gate.idle_for(), None);
        gate.ended().unwrap();
        flock(&drain, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(gate.open().await.unwrap().is_none(), "the drain holds the lock");
        drop(drain);

        fs::write(dir.path().join("lease"), (boottime() - 1).to_string()).unwrap();
        assert!(gate.open().await.unwrap().is_none(), "the lease is over");
        gate.set(Kind::Unknown).unwrap();
        assert!(gate.open().await.unwrap().is_none());
        assert_eq!(state(dir.path()), "unknown", "a failed poll stays unsettled");
    }

    #[tokio::test]
    async fn a_gate_without_a_sidecar_needs_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        let mut gate = Gate::prepare(dir.path().to_owned(), false).unwrap();
        assert!(gate.open().await.unwrap().is_some());
    }
}
