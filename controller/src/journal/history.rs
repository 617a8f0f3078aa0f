//! The history's rows. The statements keep to what PostgreSQL understands too.

use std::time::Duration;

use engine::history::{Event, EventKind, History};
use engine::ports::JournalError;
use planner::Time;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::{Statement, Unreadable, instant, millis};

/// Events are kept for so long.
pub const HISTORY_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// More are not kept: the oldest go first.
const MOST_EVENTS: i64 = 200_000;
/// One reason, in bytes.
const LONGEST_REASON: usize = 1000;

/// Writes an event.
pub(super) fn put(id: u64, event: &Event) -> Result<Statement<'_>, JournalError> {
    let json = serde_json::to_string(&event.instances);
    let instances = json.map_err(|error| JournalError(format!("write history: {error}")))?;
    let reason = &event.reason[..event.reason.floor_char_boundary(LONGEST_REASON)];
    let query = sqlx::query(
        "INSERT INTO history (id, at, kind, instances, resource, queue, task, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    Ok(query
        .bind(millis(Time(id)))
        .bind(millis(event.at))
        .bind(event.kind.name())
        .bind(instances)
        .bind(event.resource.as_ref().map(|resource| resource.as_str()))
        .bind(event.queue.as_ref().map(|queue| queue.as_str()))
        .bind(event.task.as_ref().map(|task| task.as_str()))
        .bind(reason))
}

/// Forgets what is older, and what has no room.
pub(super) fn drop_before(at: Time, id: u64) -> Statement<'static> {
    sqlx::query("DELETE FROM history WHERE at < $1 OR id <= $2").bind(millis(at)).bind(millis(Time(id)))
}

/// The newest events since then, oldest first.
pub(super) async fn since(
    connection: &mut SqliteConnection,
    since: Time,
    most: u32,
) -> Result<History, Unreadable> {
    let count = sqlx::query("SELECT COUNT(*) FROM history WHERE at >= $1").bind(millis(since));
    let count: i64 = count.fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = sqlx::query(
        "SELECT at, kind, instances, resource, queue, task, reason FROM history WHERE at >= $1 \
         ORDER BY id DESC LIMIT $2",
    );
    let rows = rows.bind(millis(since)).bind(i64::from(most)).fetch_all(connection).await?;
    let events = rows.iter().rev().map(event).collect::<Result<Vec<_>, _>>()?;
    let omitted = u64::try_from(count).unwrap_or(0).saturating_sub(events.len() as u64);
    Ok(History { since, events, omitted })
}

/// The newest event's id, 0 if there is none.
pub(super) async fn last_id(connection: &mut SqliteConnection) -> Result<u64, Unreadable> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM history").fetch_one(connection).await?;
    let id: i64 = row.try_get(0)?;
    Ok(u64::try_from(id).unwrap_or(0))
}

/// What may be forgotten: everything before the instant, and up to the id.
pub(super) async fn stale(connection: &mut SqliteConnection, now: Time) -> Result<(Time, u64), Unreadable> {
    let old = Time(now.0.saturating_sub(HISTORY_KEPT.as_millis() as u64));
    let excess = sqlx::query("SELECT id FROM history ORDER BY id DESC LIMIT 1 OFFSET $1");
    let excess: Option<SqliteRow> = excess.bind(MOST_EVENTS).fetch_optional(connection).await?;
    let id: i64 = excess.map_or(Ok(0), |row| row.try_get(0))?;
    Ok((old, u64::try_from(id).unwrap_or(0)))
}

fn event(row: &SqliteRow) -> Result<Event, Unreadable> {
    let kind: String = row.try_get(1)?;
    let kind: EventKind = read(&format!("\"{kind}\""))?;
    let instances: String = row.try_get(2)?;
    let (resource, queue, task): (Option<String>, Option<String>, Option<String>) =
        (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    Ok(Event {
        at: instant(row, 0)?,
        kind,
        instances: read(&instances)?,
        resource: resource.map(Into::into),
        queue: queue.map(Into::into),
        task: task.map(Into::into),
        reason: row.try_get(6)?,
    })
}

fn read<T: DeserializeOwned>(json: &str) -> Result<T, Unreadable> {
    serde_json::from_str(json).map_err(|error| Unreadable::Row(format!("history: {error}")))
}
