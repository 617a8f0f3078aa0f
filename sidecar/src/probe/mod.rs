//! What can be read off the machine: clock, boot id, processes, disk, GPUs, and who EC2 says it is.

mod gpu;
mod imds;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};
use rustix::time::ClockId;
use tokio::io::unix::AsyncFd;

use crate::gate::read_small;
use crate::watch::readable;

pub use gpu::{Gpu, Gpus};
pub use imds::{ENDPOINT_VARIABLE, Imds, ImdsError};

/// The time since boot, suspension included: the clock of leases and of all reports.
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The space left to an unprivileged user below this path, in bytes.
///
/// # Errors
/// The path cannot be asked about.
pub fn free_disk(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A `/proc`.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc") }
    }
}

impl Proc {
    /// Another than the machine's own: for tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Changes with every boot.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn boot_id(&self) -> io::Result<String> {
        Ok(read_small(&self.root.join("sys/kernel/random/boot_id"))?.trim().to_owned())
    }

    /// The process exists and is not a zombie.
    pub fn is_alive(&self, pid: i32) -> bool {
        self.stat(&pid.to_string()).is_some_and(|stat| !stat.is_dead())
    }

    /// The process has children that are not zombies: an agent that cannot be gated works then. Reads all of
    /// `/proc`.
    pub fn has_children(&self, pid: i32) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return false };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .filter_map(|name| self.stat(&name))
            .any(|stat| stat.parent == pid && !stat.is_dead())
    }

    fn root(&self) -> &Path {
        &self.root
    }

    /// The parent of a process that is not a zombie.
    fn living_parent(&self, pid: i32) -> Option<i32> {
        self.stat(&pid.to_string()).filter(|stat| !stat.is_dead()).map(|stat| stat.parent)
    }

    fn stat(&self, pid: &str) -> Option<Stat> {
        let line = read_small(&self.root.join(pid).join("stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
        Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
    }
}

struct Stat {
    state: char,
    parent: i32,
}

impl Stat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A process that is followed to its end.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Readable once it has ended. None where the kernel has no pidfd: then it is looked up now and then.
    end: Option<AsyncFd<std::os::fd::OwnedFd>>,
    ended: bool,
}

impl Process {
    /// Follows the process that has this pid now.
    pub fn follow(pid: i32) -> Self {
        let end = Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
            .and_then(|fd| readable(fd).ok());
        Self { pid, end, ended: false }
    }

    /// Which.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// It runs, as far as [`Process::ended`] has told; looked up where that cannot tell. Once it has ended,
    /// whoever gets its pid next is not meant.
    pub fn is_alive(&mut self, proc: &Proc) -> bool {
        self.ended = self.ended || (self.end.is_none() && !proc.is_alive(self.pid));
        !self.ended
    }

    /// Resolves at its end; never, if that was seen before or cannot be followed.
    pub async fn ended(&mut self) {
        if let (Some(end), false) = (&self.end, self.ended)
            && end.readable().await.is_ok()
        {
            self.ended = true;
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(root: &Path, pid: i32, state: char, parent: i32) {
        let directory = root.join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("stat"), format!("{pid} (a ) b) {state} {parent} 1 1 0")).unwrap();
    }

    #[test]
    fn a_zombie_is_neither_alive_nor_work() {
        let root = tempfile::tempdir().unwrap();
        let proc = Proc::new(root.path());
        process(root.path(), 10, 'S', 1);
        process(root.path(), 11, 'Z', 10);
        assert!(proc.is_alive(10) && !proc.is_alive(11) && !proc.is_alive(12));
        assert!(!proc.has_children(10));
        process(root.path(), 12, 'R', 10);
        assert!(proc.has_children(10));
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut process = Process::follow(i32::try_from(child.id()).unwrap());
        assert!(process.is_alive(&Proc::default()));
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(20), process.ended()).await.unwrap();
        assert!(!process.is_alive(&Proc::default()));
        child.wait().unwrap();
    }

    #[test]
    fn this_machine_can_be_read() {
        assert_eq!(Proc::default().boot_id().unwrap().len(), 36);
        assert!(free_disk(Path::new("/")).unwrap() > 0);
        assert!(now() > Duration::ZERO);
    }
}
