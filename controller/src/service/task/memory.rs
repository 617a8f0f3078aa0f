//! Which task the last run with this state directory was, locked for as long as a run lasts.
//!
//! A file of its own, and not a row of the journal: it is wanted before anything is contacted, and losing it
//! costs no more than a new task. Whoever holds the lock knows that the run of before has ended, even if its
//! task is still called running.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A run that is just ending still holds it.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// More is not ours.
const LIMIT: u64 = 64 << 10;

/// The file, locked.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    path: PathBuf,
}

/// A task that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The API server's address.
    pub(super) server: String,
    /// Its id there.
    pub(super) task: String,
    /// The web page of its log.
    pub(super) page: String,
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// Another run has it.
    #[error("an autoscaler with this prefix and state directory is running already{0}")]
    Running(String),
    /// The file system failed.
    #[error("open {0}: {1}")]
    Failed(String, io::Error),
}

impl Memory {
    /// Opens and locks the file `task` of a state directory, which is made if need be.
    pub(super) async fn open(state_dir: &Path) -> Result<Self, MemoryError> {
        let path = state_dir.join("task");
        let failed = |error| MemoryError::Failed(path.display().to_string(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut memory = Self { file, path };
        for _ in 0..TRIES {
            match memory.file.try_lock() {
                Ok(()) => return Ok(memory),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(error)) => {
                    return Err(MemoryError::Failed(memory.path.display().to_string(), error));
                }
            }
        }
        let running = memory.read().map(|it| format!(": task {}, {}", it.task, it.page));
        Err(MemoryError::Running(running.unwrap_or_default()))
    }

    /// The task of before, if it was one of this server. What can't be read is forgotten.
    pub(super) fn recall(&mut self, server: &str) -> Option<String> {
        self.read().filter(|remembered| remembered.server == server).map(|remembered| remembered.task)
    }

    /// Keeps the task of now, in place of the one of before.
    pub(super) fn remember(&mut self, now: &Remembered) -> io::Result<()> {
        let text = serde_json::to_vec(now)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&text)?;
        self.file.sync_all()
    }

    fn read(&mut self) -> Option<Remembered> {
        let mut text = Vec::new();
        self.file.rewind().ok()?;
        (&self.file).take(LIMIT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(task: &str) -> Remembered {
        let (server, page) = ("http://server:8008".to_owned(), "http://server:8080/log".to_owned());
        Remembered { server, task: task.to_owned(), page }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_finds_the_task_of_before_and_a_second_one_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(dir.path()).await.unwrap();
        assert_eq!(memory.recall("http://server:8008"), None);
        memory.remember(&remembered("a-long-name")).unwrap();
        memory.remember(&remembered("first")).unwrap();

        let second = Memory::open(dir.path()).await.unwrap_err().to_string();
        assert!(second.contains("task first, http://server:8080/log"), "{second}");

        drop(memory);
        let mut memory = Memory::open(dir.path()).await.unwrap();
        assert_eq!(memory.recall("http://server:8008").as_deref(), Some("first"));
        assert_eq!(memory.recall("http://another:8008"), None);
    }

    #[tokio::test]
    async fn half_a_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("task"), "{\"server\": \"http").unwrap();
        let mut memory = Memory::open(dir.path()).await.unwrap();
        assert_eq!(memory.recall("http"), None);
    }
}
