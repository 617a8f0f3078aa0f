//! Rows of the journal's file: all of them read at the start, and each change written as it comes. The
//! statements keep to what PostgreSQL understands too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::ports::JournalError;
use planner::{FleetId, InstanceId, Intent, IntentId, ResourceName, Time};
use secrecy::ExposeSecret;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite, SqliteConnection};

use super::tables::{Change, IntentRow, Stale, Tables};
use super::{TokenRecord, history, ledger, operator};

/// Why the file's rows could not be read.
pub(super) enum Unreadable {
    Sql(sqlx::Error),
    /// A row that this program cannot have written.
    Row(String),
}

impl From<sqlx::Error> for Unreadable {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Row(error.to_string()),
            other => Self::Sql(other),
        }
    }
}

/// Everything that the file holds; a file without a birthday gets one.
pub(super) async fn load(connection: &mut SqliteConnection, now: Time) -> Result<Tables, Unreadable> {
    let mut tables = Tables::default();
    let mut born = false;
    for row in sqlx::query("SELECT name, value FROM meta").fetch_all(&mut *connection).await? {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        match name.as_str() {
            "born_at" => {
                tables.born_at = Time(number(&name, &value)?);
                born = true;
            }
            "epoch" => tables.epoch = number(&name, &value)?,
            "intent_block" => tables.intent_block = number(&name, &value)?,
            "fleet" => tables.fleet = Some(FleetId(value)),
            "runs" => tables.runs = parsed(&name, &value)?,
            "ledger_seen" => tables.ledger_seen = Some(Time(number(&name, &value)?)),
            "ledger_dropped" => tables.ledger_dropped = parsed(&name, &value)?,
            "key" => {
                let key = STANDARD.decode(&value);
                let key = key.map_err(|_| Unreadable::Row("key in meta is not base64".to_owned()))?;
                tables.identity = Some(key.into());
            }
            unknown => return Err(Unreadable::Row(format!("unknown entry {unknown} in meta"))),
        }
    }
    if !born {
        tables.born_at = now;
        set("born_at", now.0.to_string()).execute(&mut *connection).await?;
    }
    let intents = "SELECT id, created_at, secret, intent, request, retry_at, answered FROM intents";
    for row in sqlx::query(intents).fetch_all(&mut *connection).await? {
        let (id, intent) = intent_row(&row)?;
        tables.intents.insert(id, intent);
    }
    let tokens = "SELECT instance, sha256, boot_id, used, created_at FROM tokens";
    for row in sqlx::query(tokens).fetch_all(&mut *connection).await? {
        let (instance, sha256): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        let sha256 =
            sha256.try_into().map_err(|_| Unreadable::Row(format!("token of {instance}: not 32 bytes")))?;
        let token = TokenRecord {
            sha256,
            boot_id: row.try_get(2)?,
            used: row.try_get(3)?,
            created_at: instant(&row, 4)?,
        };
        tables.tokens.insert(InstanceId(instance), token);
    }
    for row in sqlx::query("SELECT instance, ready_at FROM ready").fetch_all(&mut *connection).await? {
        tables.ready.insert(InstanceId(row.try_get(0)?), instant(&row, 1)?);
    }
    for row in sqlx::query("SELECT resource, boots FROM boots").fetch_all(&mut *connection).await? {
        let (resource, boots): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let boots = serde_json::from_str(&boots);
        let boots = boots.map_err(|error| Unreadable::Row(format!("boots of {resource}: {error}")))?;
        tables.boots.insert(ResourceName(resource), boots);
    }
    tables.last_event = history::last_id(connection).await?;
    tables.operator = operator::load(connection).await?;
    Ok(tables)
}

fn intent_row(row: &SqliteRow) -> Result<(IntentId, IntentRow), Unreadable> {
    let id: String = row.try_get(0)?;
    let malformed = |error: serde_json::Error| Unreadable::Row(format!("intent {id}: {error}"));
    let (intent, request): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
    let open = match (intent, request) {
        (Some(intent), Some(request)) => {
            let mut intent: Intent = serde_json::from_str(&intent).map_err(malformed)?;
            intent.retry_at = instant(row, 5)?;
            let answered: Option<String> = row.try_get(6)?;
            intent.answered =
                answered.map(|ids| serde_json::from_str(&ids)).transpose().map_err(malformed)?;
            Some((intent, request))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Unreadable::Row(format!("intent {id}: half closed")));
        }
    };
    let row = IntentRow { created_at: instant(row, 1)?, secret: row.try_get(2)?, open };
    Ok((IntentId(id), row))
}

fn number(name: &str, value: &str) -> Result<u64, Unreadable> {
    value.parse().map_err(|_| Unreadable::Row(format!("{name} in meta is not a number")))
}

fn parsed<T: serde::de::DeserializeOwned>(name: &str, value: &str) -> Result<T, Unreadable> {
    serde_json::from_str(value).map_err(|error| Unreadable::Row(format!("{name} in meta: {error}")))
}

pub(super) fn instant(row: &SqliteRow, column: usize) -> Result<Time, Unreadable> {
    let millis: i64 = row.try_get(column)?;
    let millis = u64::try_from(millis).map_err(|_| Unreadable::Row("an instant before 1970".to_owned()))?;
    Ok(Time(millis))
}

pub(super) type Statement<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Writes one change, within a transaction.
pub(super) async fn write(connection: &mut SqliteConnection, change: &Change) -> Result<(), JournalError> {
    for statement in statements(change)? {
        let done = statement.execute(&mut *connection).await;
        done.map_err(|error| JournalError(format!("write: {error}")))?;
    }
    Ok(())
}

fn statements(change: &Change) -> Result<Vec<Statement<'_>>, JournalError> {
    let statements = match change {
        Change::Epoch(epoch) => vec![set("epoch", epoch.to_string())],
        Change::IntentBlock(block) => vec![set("intent_block", block.to_string())],
        Change::Fleet(fleet) => vec![set("fleet", fleet.to_string())],
        Change::Identity(key) => vec![set("key", STANDARD.encode(key.expose_secret()))],
        Change::Begin(id, intent, prepared) => vec![
            sqlx::query(
                "INSERT INTO intents (id, created_at, secret, intent, request, retry_at, answered) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(id.as_str())
            .bind(millis(intent.created_at))
            .bind(prepared.secret.as_slice())
            .bind(json(id, intent)?)
            .bind(prepared.request.as_str())
            .bind(millis(intent.retry_at))
            .bind(intent.answered.as_ref().map(|ids| json(id, ids)).transpose()?),
        ],
        Change::Answer(id, instances) => vec![
            sqlx::query("UPDATE intents SET answered = $1 WHERE id = $2")
                .bind(json(id, instances)?)
                .bind(id.as_str()),
        ],
        Change::Postpone(id, retry_at) => vec![
            sqlx::query("UPDATE intents SET retry_at = $1 WHERE id = $2")
                .bind(millis(*retry_at))
                .bind(id.as_str()),
        ],
        Change::Close(id) => vec![
            sqlx::query("UPDATE intents SET intent = NULL, request = NULL WHERE id = $1").bind(id.as_str()),
        ],
        Change::Token(instance, token) => vec![
            sqlx::query(
                "INSERT INTO tokens (instance, sha256, boot_id, used, created_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (instance) DO UPDATE SET sha256 = excluded.sha256, boot_id = excluded.boot_id, \
                 used = excluded.used, created_at = excluded.created_at",
            )
            .bind(instance.as_str())
            .bind(token.sha256.as_slice())
            .bind(token.boot_id.as_str())
            .bind(token.used)
            .bind(millis(token.created_at)),
        ],
        Change::Ready(instance, at) => vec![
            sqlx::query(
                "INSERT INTO ready (instance, ready_at) VALUES ($1, $2) ON CONFLICT (instance) DO NOTHING",
            )
            .bind(instance.as_str())
            .bind(millis(*at)),
        ],
        Change::Boots(resource, boots) => vec![
            sqlx::query(
                "INSERT INTO boots (resource, boots) VALUES ($1, $2) \
                 ON CONFLICT (resource) DO UPDATE SET boots = excluded.boots",
            )
            .bind(resource.as_str())
            .bind(
                serde_json::to_string(boots)
                    .map_err(|error| JournalError(format!("write boots of {resource}: {error}")))?,
            ),
        ],
        Change::Forget(stale) => forget(stale),
        Change::Runs(runs) => vec![set("runs", text("runs", runs)?)],
        Change::Note(id, event) => vec![history::put(*id, event)?],
        Change::Stretches(stretches) => stretches.iter().map(ledger::put).collect(),
        Change::LedgerSeen(at) => vec![set("ledger_seen", at.0.to_string())],
        Change::DropHistory(at, id) => vec![history::drop_before(*at, *id)],
        Change::DropLedger(at, dropped) => {
            vec![ledger::drop_before(*at), set("ledger_dropped", text("ledger_dropped", dropped)?)]
        }
        Change::AskDrains(instances, at) => operator::ask(instances, *at),
        Change::DropDrains(instances) => operator::drop(instances),
        Change::Pause(pause) => operator::pause(pause.as_ref()),
    };
    Ok(statements)
}

fn forget(stale: &Stale) -> Vec<Statement<'_>> {
    let intents =
        stale.intents.iter().map(|id| sqlx::query("DELETE FROM intents WHERE id = $1").bind(id.as_str()));
    let instances = stale.instances.iter().flat_map(|id| {
        ["DELETE FROM tokens WHERE instance = $1", "DELETE FROM ready WHERE instance = $1"]
            .map(|statement| sqlx::query(statement).bind(id.as_str()))
    });
    intents.chain(instances).chain(operator::drop(&stale.instances)).collect()
}

fn set<'q>(name: &'q str, value: String) -> Statement<'q> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
}

pub(super) fn millis(at: Time) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// A note or a set of instances.
fn json<T: serde::Serialize>(id: &IntentId, value: &T) -> Result<String, JournalError> {
    text(&format!("intent {id}"), value)
}

fn text<T: serde::Serialize>(what: &str, value: &T) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| JournalError(format!("write {what}: {error}")))
}
