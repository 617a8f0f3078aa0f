//! The journal's file: who may open it, and what it must look like before anything is written to it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::ports::JournalError;
use planner::Time;
use rustix::fs::{FlockOperation, flock};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};

use super::OpenError;
use super::rows::{self, Unreadable};
use super::tables::Tables;

static MIGRATIONS: Migrator = sqlx::migrate!("src/journal/migrations");
/// Marks an SQLite file as one of ours: "cmas".
const APPLICATION_ID: i64 = 0x636d_6173;
/// A controller that is just ending still holds its lock.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An opened file and its contents.
pub(super) struct Opened {
    pub(super) connection: SqliteConnection,
    /// Locked for as long as it is open.
    pub(super) lock: File,
    pub(super) tables: Tables,
    pub(super) file: PathBuf,
}

/// Why a step of opening failed, before it is known what to call the file.
enum Refusal {
    Newer(i64),
    Damaged(String),
    Failed(String),
}

pub(super) async fn open(dir: &Path, now: Time) -> Result<Opened, OpenError> {
    let failed = |reason: String| OpenError::Failed { dir: dir.display().to_string(), reason };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(error.to_string()))?;
    let lock = take_lock(dir).await?;
    let path = dir.join("journal.sqlite");
    let file = path.display().to_string();
    make_private(&path).map_err(|error| failed(format!("{file}: {error}")))?;
    let (connection, tables) = read(&path, now).await.map_err(|refusal| match refusal {
        Refusal::Newer(schema) => OpenError::Newer { file, schema },
        Refusal::Damaged(reason) => OpenError::Damaged { file, reason },
        Refusal::Failed(reason) => failed(reason),
    })?;
    Ok(Opened { connection, lock, tables, file: path })
}

/// A second connection, for what is asked seldom and is too much for memory.
pub(super) async fn reader(file: &Path) -> Result<SqliteConnection, JournalError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging();
    options.connect().await.map_err(|error| JournalError(format!("read: {error}")))
}

async fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |error: io::Error| OpenError::Failed {
        dir: dir.display().to_string(),
        reason: format!("lock: {error}"),
    };
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut tries = 0;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        tries += 1;
        if tries == LOCK_TRIES {
            let mut process = String::new();
            let process = file.read_to_string(&mut process).is_ok().then(|| process.trim().to_owned());
            let process = process.filter(|id| !id.is_empty());
            return Err(OpenError::InUse { dir: dir.display().to_string(), process });
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// The file for its owner alone; SQLite gives its side files the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Reads before it writes: a file that is refused stays as it is.
async fn read(path: &Path, now: Time) -> Result<(SqliteConnection, Tables), Refusal> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging();
    let mut connection = options.connect().await?;
    inspect(&mut connection).await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await?;
    let tables = rows::load(&mut connection, now).await?;
    Ok((connection, tables))
}

/// Whether the file is sound, and ours or empty; if empty, it is made ours.
async fn inspect(connection: &mut SqliteConnection) -> Result<(), Refusal> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?;
    if verdict != "ok" {
        return Err(Refusal::Damaged(verdict));
    }
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master").fetch_one(&mut *connection).await?;
    if application == APPLICATION_ID {
        return Ok(());
    }
    if tables > 0 {
        return Err(Refusal::Damaged("it is another program's database".to_owned()));
    }
    let mark = sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}"));
    sqlx::query(mark).execute(connection).await?;
    Ok(())
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        /// SQLITE_CORRUPT and SQLITE_NOTADB; the low byte is the code, the rest its detail.
        const DAMAGE: [i32; 2] = [11, 26];
        let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
        match code {
            Some(code) if DAMAGE.contains(&(code & 0xff)) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<MigrateError> for Refusal {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(schema) => Self::Newer(schema),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            // The enum is not ours to list whole.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Sql(error) => error.into(),
            Unreadable::Row(reason) => Self::Damaged(reason),
        }
    }
}
