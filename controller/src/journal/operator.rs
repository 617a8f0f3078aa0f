//! The operator's will in the journal: drains and a pause stand until they are taken back, whatever ends
//! and starts again meanwhile.

use std::collections::BTreeSet;

use engine::ports::JournalError;
use planner::{InstanceId, Operator, Pause, Time};
use sqlx::{Row as _, SqliteConnection};

use super::Store;
use super::rows::{Statement, Unreadable, instant, millis};
use super::tables::Change;

impl Store {
    /// What the operator has asked for and not taken back.
    pub fn operator(&self) -> Operator {
        self.lock().operator.clone()
    }

    /// From now on these instances are drained. One that is already keeps its instant.
    ///
    /// # Errors
    /// It could not be made durable: promise nothing.
    pub async fn ask_drains(&self, instances: BTreeSet<InstanceId>, at: Time) -> Result<(), JournalError> {
        self.write(Change::AskDrains(instances, at)).await
    }

    /// These are drained no more.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn drop_drains(&self, instances: BTreeSet<InstanceId>) -> Result<(), JournalError> {
        self.write(Change::DropDrains(instances)).await
    }

    /// Launches are paused, or go on.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn set_pause(&self, pause: Option<Pause>) -> Result<(), JournalError> {
        self.write(Change::Pause(pause)).await
    }
}

pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Operator, Unreadable> {
    let mut operator = Operator::default();
    let drains = "SELECT instance, asked_at FROM operator_drains";
    for row in sqlx::query(drains).fetch_all(&mut *connection).await? {
        operator.drains.insert(InstanceId(row.try_get(0)?), instant(&row, 1)?);
    }
    let pause = sqlx::query("SELECT since, reason FROM operator_pause").fetch_optional(connection).await?;
    if let Some(row) = pause {
        operator.paused = Some(Pause { since: instant(&row, 0)?, reason: row.try_get(1)? });
    }
    Ok(operator)
}

pub(super) fn ask(instances: &BTreeSet<InstanceId>, at: Time) -> Vec<Statement<'_>> {
    let insert =
        "INSERT INTO operator_drains (instance, asked_at) VALUES ($1, $2) ON CONFLICT (instance) DO NOTHING";
    instances.iter().map(|id| sqlx::query(insert).bind(id.as_str()).bind(millis(at))).collect()
}

pub(super) fn drop<'q>(instances: impl IntoIterator<Item = &'q InstanceId>) -> Vec<Statement<'q>> {
    let delete = "DELETE FROM operator_drains WHERE instance = $1";
    instances.into_iter().map(|id| sqlx::query(delete).bind(id.as_str())).collect()
}

pub(super) fn pause(pause: Option<&Pause>) -> Vec<Statement<'_>> {
    let mut statements = vec![sqlx::query("DELETE FROM operator_pause")];
    statements.extend(pause.map(|Pause { since, reason }| {
        let insert = "INSERT INTO operator_pause (since, reason) VALUES ($1, $2)";
        sqlx::query(insert).bind(millis(*since)).bind(reason.as_deref())
    }));
    statements
}
