//! What cannot be rebuilt from ClearML, EC2 and the sessions: intents, launch secrets, instance tokens, the
//! token epoch, the gateway's key, the ledger, the history. One SQLite file in `state_dir`, or memory for the
//! simulator, without ledger and history.
//!
//! Reads come from memory, but those of ledger and history. Every write is durable before its future resolves; writes that arrive together
//! share one commit. A file that is damaged or newer than this program is refused and left as it is.

mod history;
mod ledger;
mod operator;
mod rows;
mod sqlite;
mod tables;
#[cfg(test)]
mod tests;
mod vault;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::history::{Event, History};
use engine::ports::{Journal, JournalError, Prepared};
use planner::{Boots, FleetId, InstanceId, Intent, IntentId, ResourceName, Time};
use secrecy::{ExposeSecret, SecretSlice};

pub use history::HISTORY_KEPT;
pub use ledger::{EndedBy, LEDGER_KEPT, LedgerState, PricePaid, Spent, Stretch};
use tables::{Change, Tables};
use writer::Writer;

/// Launch secrets, tokens and ready marks of what is over are kept for this long.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// For this long after a journal was made, launches that it does not know of may still come to light.
pub const NEW_FOR: Duration = Duration::from_secs(60);

/// The journal. Cheap to share behind an `Arc`; methods that write may be dropped midway: the write is then
/// done whole or not at all, and seen alike in memory and in the file.
#[derive(Debug)]
pub struct Store {
    tables: Arc<Mutex<Tables>>,
    /// `None` in memory.
    writer: Option<Writer>,
    /// `None` in memory.
    file: Option<PathBuf>,
    is_new: bool,
    /// Events had to be dropped since one was last written.
    overrun: AtomicBool,
}

/// What is kept of an instance's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// SHA-256 of the token; the token itself is nowhere here.
    pub sha256: [u8; 32],
    /// The boot that it was given to.
    pub boot_id: String,
    /// The sidecar is known to have it.
    pub used: bool,
    /// When.
    pub created_at: Time,
}

/// Why a journal cannot be used. The file is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("state directory {dir} is in use by another controller{}", holder(.process.as_deref()))]
    InUse {
        /// The state directory.
        dir: String,
        /// The other's process id, if it could be read.
        process: Option<String>,
    },
    /// A newer program wrote it.
    #[error(
        "{file} was written by a newer version (schema {schema}): use that version, or another state_dir"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its schema.
        schema: i64,
    },
    /// It is not a journal, or a broken one.
    #[error("{file} is damaged ({reason}): restore it, or move it away to start without a journal")]
    Damaged {
        /// The file.
        file: String,
        /// SQLite's words.
        reason: String,
    },
    /// The file system or SQLite failed.
    #[error("open journal in {dir}: {reason}")]
    Failed {
        /// The state directory.
        dir: String,
        /// Why.
        reason: String,
    },
}

impl Store {
    /// Opens `dir/journal.sqlite`, making the directory (0700) and the file (0600) if need be, and locks the
    /// directory for as long as this is held. Needs a tokio runtime.
    ///
    /// # Errors
    /// In use by another process, newer, damaged, or not accessible.
    pub async fn open(dir: &Path, now: Time) -> Result<Self, OpenError> {
        let opened = sqlite::open(dir, now).await?;
        let is_new = opened.tables.is_new(now);
        let tables = Arc::new(Mutex::new(opened.tables));
        let writer = Writer::start(opened.connection, opened.lock, Arc::clone(&tables));
        Ok(Self {
            tables,
            writer: Some(writer),
            file: Some(opened.file),
            is_new,
            overrun: AtomicBool::new(false),
        })
    }

    /// A journal that lives in memory alone and is otherwise alike.
    pub fn in_memory(now: Time) -> Self {
        let tables = Tables::born(now);
        let is_new = tables.is_new(now);
        Self::without_file(Arc::new(Mutex::new(tables)), is_new)
    }

    /// What a restart of the controller would find of a journal in memory: the same contents, shared with
    /// this one.
    #[must_use]
    pub fn reopened(&self, now: Time) -> Self {
        let is_new = self.lock().is_new(now);
        Self::without_file(Arc::clone(&self.tables), is_new)
    }

    fn without_file(tables: Arc<Mutex<Tables>>, is_new: bool) -> Self {
        Self { tables, writer: None, file: None, is_new, overrun: AtomicBool::new(false) }
    }

    /// Whether no journal was there when it was opened, or one made less than [`NEW_FOR`] before.
    pub fn was_new(&self) -> bool {
        self.is_new
    }

    /// The epoch of a new run: more than every earlier one, and at least `now` in seconds, so that it rises
    /// even if the journal was lost.
    ///
    /// # Errors
    /// It could not be made durable: nothing may use it.
    pub async fn next_epoch(&self, now: Time) -> Result<u64, JournalError> {
        let epoch = (self.lock().epoch + 1).max(now.0 / 1000);
        self.write(Change::Epoch(epoch)).await?;
        Ok(epoch)
    }

    /// The number of a new run's first intent: no earlier run has used it or a higher one. Call it once a run.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn next_intent(&self) -> Result<u64, JournalError> {
        /// More than a run can need, so that the journal need not follow it.
        const BLOCK: u64 = 1_000_000;
        let first = self.lock().intent_block + 1;
        self.write(Change::IntentBlock(first - 1 + BLOCK)).await?;
        Ok(first)
    }

    /// Ties the journal to a fleet at its first use.
    ///
    /// # Errors
    /// It belongs to another fleet, whose open launches would be asked for again.
    pub async fn claim_fleet(&self, fleet: &FleetId) -> Result<(), JournalError> {
        let owner = self.lock().fleet.clone();
        match owner {
            Some(owner) if owner == *fleet => Ok(()),
            Some(owner) => Err(JournalError(format!(
                "it belongs to fleet {owner}, not {fleet}: each ClearML server and prefix needs a state_dir of its own"
            ))),
            None => self.write(Change::Fleet(fleet.clone())).await,
        }
    }

    /// Earlier runs of this journal whose entries in ClearML's list of workers may still be there. They have
    /// ended: only one run can have the journal open.
    pub fn runs(&self) -> Vec<String> {
        self.lock().runs.clone()
    }

    /// Notes which runs may have such an entry.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn store_runs(&self, runs: Vec<String>) -> Result<(), JournalError> {
        self.write(Change::Runs(runs)).await
    }

    /// The newest events since then, so many at most.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn history(&self, since: Time, most: u32) -> Result<History, JournalError> {
        let Some(file) = &self.file else { return Ok(History { since, ..History::default() }) };
        let mut reader = sqlite::reader(file).await?;
        Ok(history::since(&mut reader, since, most).await?)
    }

    /// Where an earlier run's ledger ended.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn ledger(&self, now: Time) -> Result<LedgerState, JournalError> {
        let Some(file) = &self.file else { return Ok(LedgerState::default()) };
        let (open, ended, over) = ledger::state(&mut sqlite::reader(file).await?, now).await?;
        let tables = self.lock();
        let spent = over.and(tables.ledger_dropped);
        Ok(LedgerState { open, ended, spent, seen: tables.ledger_seen })
    }

    /// The ledger's stretches that touch the time from then on, in the order of their beginning.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn stretches(&self, since: Time) -> Result<Vec<Stretch>, JournalError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        Ok(ledger::since(&mut sqlite::reader(file).await?, since).await?)
    }

    /// Writes stretches, each in place of what is known of it.
    ///
    /// # Errors
    /// They could not be made durable.
    pub async fn store_stretches(&self, stretches: Vec<Stretch>) -> Result<(), JournalError> {
        self.write(Change::Stretches(stretches)).await
    }

    /// Notes that the ledger has just looked at the fleet.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn store_ledger_seen(&self, at: Time) -> Result<(), JournalError> {
        self.write(Change::LedgerSeen(at)).await
    }

    /// The gateway's private key, PKCS #8 DER, if one was made.
    pub fn identity(&self) -> Option<Vec<u8>> {
        self.lock().identity.as_ref().map(|key| key.expose_secret().to_vec())
    }

    /// Keeps the gateway's private key, PKCS #8 DER.
    ///
    /// # Errors
    /// It could not be made durable: pin nothing on it.
    pub async fn store_identity(&self, key: &[u8]) -> Result<(), JournalError> {
        self.write(Change::Identity(SecretSlice::from(key.to_vec()))).await
    }

    /// The secret that the instances of a launch attach with at first; known from [`Journal::begin`] until
    /// [`KEPT`] after the launch.
    pub fn launch_secret(&self, intent: &IntentId) -> Option<SecretSlice<u8>> {
        self.lock().secret(intent).map(|secret| SecretSlice::from(secret.to_vec()))
    }

    /// What is kept of an instance's token.
    pub fn token(&self, instance: &InstanceId) -> Option<TokenRecord> {
        self.lock().tokens.get(instance).cloned()
    }

    /// Keeps an instance's token, in place of an earlier one.
    ///
    /// # Errors
    /// It could not be made durable: do not hand it out.
    pub async fn store_token(&self, instance: &InstanceId, token: &TokenRecord) -> Result<(), JournalError> {
        self.write(Change::Token(instance.clone(), token.clone())).await
    }

    /// Forgets what is over and older than [`KEPT`]: closed intents with their secrets, and tokens and ready
    /// marks of instances that are not `live`. Of history and ledger, what is too old or has no room.
    ///
    /// # Errors
    /// It could not be made durable; nothing is forgotten then.
    pub async fn prune(&self, now: Time, live: &BTreeSet<InstanceId>) -> Result<(), JournalError> {
        let stale = self.lock().stale(now, live);
        if !stale.is_empty() {
            self.write(Change::Forget(stale)).await?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        let mut reader = sqlite::reader(file).await?;
        let (before, id) = history::stale(&mut reader, now).await?;
        self.write(Change::DropHistory(before, id)).await?;
        let before = ledger::stale_before(&mut reader, now).await?;
        let over = ledger::sum_before(&mut reader, before).await?;
        if over == Spent::default() {
            return Ok(());
        }
        let dropped = self.lock().ledger_dropped.and(over);
        self.write(Change::DropLedger(before, dropped)).await
    }

    /// Ends the journal: what was handed to it is written, the lock is free again.
    pub async fn close(self) {
        if let Some(writer) = self.writer {
            writer.stop().await;
        }
    }

    async fn write(&self, change: Change) -> Result<(), JournalError> {
        match &self.writer {
            Some(writer) => writer.write(change).await,
            None => self.lock().apply(&change),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic elsewhere leaves the tables whole: each change is one assignment.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Store {
    async fn begin(&self, id: &IntentId, intent: &Intent, request: &Prepared) -> Result<(), JournalError> {
        self.write(Change::Begin(id.clone(), intent.clone(), request.clone())).await
    }

    async fn answer(&self, id: &IntentId, instances: &BTreeSet<InstanceId>) -> Result<(), JournalError> {
        self.write(Change::Answer(id.clone(), instances.clone())).await
    }

    async fn postpone(&self, id: &IntentId, retry_at: Time) -> Result<(), JournalError> {
        self.write(Change::Postpone(id.clone(), retry_at)).await
    }

    async fn close(&self, id: &IntentId) -> Result<(), JournalError> {
        self.write(Change::Close(id.clone())).await
    }

    fn ready_marks(&self) -> BTreeMap<InstanceId, Time> {
        self.lock().ready.clone()
    }

    async fn mark_ready(&self, instance: &InstanceId, at: Time) -> Result<(), JournalError> {
        if self.lock().ready.contains_key(instance) {
            return Ok(());
        }
        self.write(Change::Ready(instance.clone(), at)).await
    }

    fn knows(&self, instance: &InstanceId, intent: Option<&IntentId>) -> bool {
        let tables = self.lock();
        tables.tokens.contains_key(instance) || intent.is_some_and(|intent| tables.secret(intent).is_some())
    }

    fn boots(&self) -> BTreeMap<ResourceName, Boots> {
        self.lock().boots.clone()
    }

    async fn note_boots(&self, resource: &ResourceName, boots: &Boots) -> Result<(), JournalError> {
        self.write(Change::Boots(resource.clone(), boots.clone())).await
    }

    async fn open(&self) -> Result<BTreeMap<IntentId, (Intent, Prepared)>, JournalError> {
        Ok(self.lock().open())
    }

    fn note(&self, event: Event) {
        let Some(writer) = &self.writer else { return };
        let id = {
            let mut tables = self.lock();
            tables.last_event += 1;
            tables.last_event
        };
        let taken = writer.hand_over(Change::Note(id, event));
        let told = self.overrun.swap(!taken, Ordering::Relaxed);
        if !taken && !told {
            tracing::warn!("the disk is too slow for the history: events are missing from it");
        }
    }
}

fn holder(process: Option<&str>) -> String {
    process.map_or_else(String::new, |id| format!(" (process {id})"))
}
