//! The one task that writes the file. Changes that wait while a commit runs share the next one, so that ten
//! thousand first attaches do not cost ten thousand flushes.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::ports::JournalError;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::rows;
use super::tables::{Change, Tables};

/// Changes of one commit, at most.
const BATCH: usize = 512;
/// Changes that may wait for the disk before callers wait to hand theirs over.
const QUEUE: usize = 4096;
/// A disk that takes longer counts as broken. The change may yet be made.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

struct Job {
    change: Change,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// The way to the task.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection, lock: File, tables: Arc<Mutex<Tables>>) -> Self {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(connection, lock, tables, inbox));
        Self { jobs, task }
    }

    /// Resolves when the change is on disk and in memory. Dropping it midway does not stop the change.
    pub(super) async fn write(&self, change: Change) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        let write = async {
            self.jobs.send(Job { change, done }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        match tokio::time::timeout(WRITE_LIMIT, write).await {
            Ok(result) => result,
            Err(_) => {
                Err(JournalError(format!("write: the disk took longer than {} s", WRITE_LIMIT.as_secs())))
            }
        }
    }

    /// Hands a change over for which nobody waits; whether there was room for it.
    pub(super) fn hand_over(&self, change: Change) -> bool {
        let (done, _nobody) = oneshot::channel();
        self.jobs.try_send(Job { change, done }).is_ok()
    }

    /// Lets the task finish what it was given.
    pub(super) async fn stop(self) {
        drop(self.jobs);
        if let Err(error) = self.task.await {
            tracing::warn!("end journal: {error}");
        }
    }
}

fn ended() -> JournalError {
    JournalError("write: the journal has ended".to_owned())
}

async fn run(
    mut connection: SqliteConnection,
    lock: File,
    tables: Arc<Mutex<Tables>>,
    mut inbox: mpsc::Receiver<Job>,
) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, BATCH).await > 0 {
        let mut jobs = std::mem::take(&mut batch);
        // One change that can't be written must not fail the others: they are tried again one by one.
        if jobs.len() > 1 && commit(&mut connection, &tables, &mut jobs).await.is_ok() {
            continue;
        }
        for job in jobs {
            let mut single = vec![job];
            if let Err(error) = commit(&mut connection, &tables, &mut single).await {
                single.into_iter().for_each(|job| answer(job, Err(error.clone())));
            }
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!("close journal: {error}");
    }
    // Only now may another process come in.
    drop(lock);
}

/// Writes all of these in one transaction and answers them; on failure nothing is changed, and they stay
/// unanswered.
async fn commit(
    connection: &mut SqliteConnection,
    tables: &Mutex<Tables>,
    jobs: &mut Vec<Job>,
) -> Result<(), JournalError> {
    {
        let tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().try_for_each(|job| tables.check(&job.change))?;
    }
    let failed = |error: sqlx::Error| JournalError(format!("write: {error}"));
    let mut transaction = connection.begin().await.map_err(failed)?;
    for job in jobs.iter() {
        rows::write(&mut transaction, &job.change).await?;
    }
    transaction.commit().await.map_err(failed)?;
    for job in jobs.drain(..) {
        let applied = tables.lock().unwrap_or_else(PoisonError::into_inner).apply(&job.change);
        answer(job, applied);
    }
    Ok(())
}

/// Whoever asked may be gone by now; the change stands all the same.
fn answer(job: Job, result: Result<(), JournalError>) {
    drop(job.done.send(result));
}
