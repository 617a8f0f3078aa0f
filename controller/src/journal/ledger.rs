//! The ledger's rows: stretches of instances' lives at one price. The statements keep to what PostgreSQL
//! understands too.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::ports::JournalError;
use planner::{InstanceId, InstanceType, Market, QueueName, ResourceName, Time};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::{Statement, Unreadable, instant, millis};

/// Stretches are kept for so long after their end, in which a year's bill is surely checked.
pub const LEDGER_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// More are not kept: the oldest go first.
const MOST_STRETCHES: i64 = 500_000;
/// EC2 lists an ended instance for about an hour; a row of one may be looked for as long as this.
const RECENT: Duration = Duration::from_secs(48 * 3600);

/// A stretch of an instance's life, at one price.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Whose.
    pub instance: InstanceId,
    /// Paid for from then on.
    pub from: Time,
    /// Until then, and who says so; `None` while it goes on.
    pub end: Option<(Time, EndedBy)>,
    /// Its resource.
    pub resource: ResourceName,
    /// The queue that it serves.
    pub queue: QueueName,
    /// EC2's type.
    pub instance_type: InstanceType,
    /// Where it is, once known.
    pub zone: Option<String>,
    /// How it is paid.
    pub market: Market,
    /// By EC2's clock.
    pub launched_at: Time,
    /// What it costs; `None` if nobody knows.
    pub price: Option<PricePaid>,
}

/// A price as it was known at the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PricePaid {
    /// US dollars.
    pub usd_per_hour: f64,
    /// Who said so.
    pub source: String,
    /// Of when it was, as `2026-01-31`.
    pub date: String,
}

/// Who says when a stretch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// EC2.
    Ec2,
    /// It was found ended then.
    Seen,
    /// Nobody: it was still there then, and gone when the controller looked again.
    LastSeen,
    /// It goes on, at another price.
    Price,
}

impl EndedBy {
    fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Seen => "seen",
            Self::LastSeen => "last_seen",
            Self::Price => "price",
        }
    }

    fn of(name: &str) -> Result<Self, Unreadable> {
        [Self::Ec2, Self::Seen, Self::LastSeen, Self::Price]
            .into_iter()
            .find(|end| end.name() == name)
            .ok_or_else(|| Unreadable::Row(format!("unknown end {name} in ledger")))
    }
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// US dollars, as far as prices are known.
    pub usd: f64,
    /// Milliseconds of instances whose price was not known.
    pub unpriced_ms: u64,
}

impl Spent {
    /// A stretch of this length at this price.
    pub fn of(length: Duration, usd_per_hour: Option<f64>) -> Self {
        match usd_per_hour {
            Some(price) => Self { usd: price * length.as_secs_f64() / 3600.0, unpriced_ms: 0 },
            None => Self { usd: 0.0, unpriced_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX) },
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { usd: self.usd + other.usd, unpriced_ms: self.unpriced_ms.saturating_add(other.unpriced_ms) }
    }
}

/// Where an earlier run's ledger ended.
#[derive(Clone, Debug, Default)]
pub struct LedgerState {
    /// Stretches that went on.
    pub open: Vec<Stretch>,
    /// Instances of which a stretch ended lately.
    pub ended: BTreeSet<InstanceId>,
    /// Everything that is over, what was dropped included.
    pub spent: Spent,
    /// When the fleet was last looked at.
    pub seen: Option<Time>,
}

const COLUMNS: &str = "instance, from_at, until_at, ended_by, resource, queue, instance_type, zone, market, \
                       launched_at, price, price_source, price_date";

/// Writes a stretch in place of what is known of it.
pub(super) fn put(stretch: &Stretch) -> Statement<'_> {
    let price = stretch.price.as_ref();
    sqlx::query(
        "INSERT INTO ledger (instance, from_at, until_at, ended_by, resource, queue, instance_type, zone, market, \
         launched_at, price, price_source, price_date) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (instance, from_at) DO UPDATE SET until_at = excluded.until_at, \
         ended_by = excluded.ended_by, zone = excluded.zone",
    )
    .bind(stretch.instance.as_str())
    .bind(millis(stretch.from))
    .bind(stretch.end.map(|(at, _)| millis(at)))
    .bind(stretch.end.map(|(_, by)| by.name()))
    .bind(stretch.resource.as_str())
    .bind(stretch.queue.as_str())
    .bind(stretch.instance_type.as_str())
    .bind(stretch.zone.as_deref())
    .bind(stretch.market.to_string())
    .bind(millis(stretch.launched_at))
    .bind(price.map(|price| price.usd_per_hour))
    .bind(price.map(|price| price.source.as_str()))
    .bind(price.map(|price| price.date.as_str()))
}

/// Forgets what ended before.
pub(super) fn drop_before(at: Time) -> Statement<'static> {
    sqlx::query("DELETE FROM ledger WHERE until_at < $1").bind(millis(at))
}

/// Stretches that touch the time from `since` on, in the order of their beginning.
pub(super) async fn since(
    connection: &mut SqliteConnection,
    since: Time,
) -> Result<Vec<Stretch>, Unreadable> {
    let query = format!(
        "SELECT {COLUMNS} FROM ledger WHERE until_at IS NULL OR until_at > $1 ORDER BY from_at, instance"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(millis(since));
    query.fetch_all(connection).await?.iter().map(stretch).collect()
}

/// What goes on, what ended lately, and the sum of what is over.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    now: Time,
) -> Result<(Vec<Stretch>, BTreeSet<InstanceId>, Spent), Unreadable> {
    let query = format!("SELECT {COLUMNS} FROM ledger WHERE until_at IS NULL");
    let open = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
    let open = open.iter().map(stretch).collect::<Result<_, _>>()?;
    let recent = Time(now.0.saturating_sub(RECENT.as_millis() as u64));
    let ended = sqlx::query("SELECT DISTINCT instance FROM ledger WHERE until_at > $1").bind(millis(recent));
    let ended = ended.fetch_all(&mut *connection).await?;
    let ended = ended.iter().map(|row| row.try_get(0).map(InstanceId)).collect::<Result<_, _>>()?;
    Ok((open, ended, sum_before(connection, Time(u64::MAX)).await?))
}

/// The sum of what ended before.
pub(super) async fn sum_before(connection: &mut SqliteConnection, at: Time) -> Result<Spent, Unreadable> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(price * (until_at - from_at) / 3600000.0), 0) AS DOUBLE PRECISION), \
         CAST(COALESCE(SUM(CASE WHEN price IS NULL THEN until_at - from_at ELSE 0 END), 0) AS BIGINT) \
         FROM ledger WHERE until_at < $1",
    )
    .bind(millis(at))
    .fetch_one(connection)
    .await?;
    let unpriced: i64 = row.try_get(1)?;
    Ok(Spent { usd: row.try_get(0)?, unpriced_ms: u64::try_from(unpriced).unwrap_or(0) })
}

/// Before when all may be dropped: by age, and for want of room.
pub(super) async fn stale_before(connection: &mut SqliteConnection, now: Time) -> Result<Time, Unreadable> {
    let old = Time(now.0.saturating_sub(LEDGER_KEPT.as_millis() as u64));
    let excess = sqlx::query(
        "SELECT until_at FROM ledger WHERE until_at IS NOT NULL ORDER BY until_at DESC LIMIT 1 OFFSET $1",
    )
    .bind(MOST_STRETCHES)
    .fetch_optional(connection)
    .await?;
    Ok(match excess {
        Some(row) => old.max(instant(&row, 0)?),
        None => old,
    })
}

fn stretch(row: &SqliteRow) -> Result<Stretch, Unreadable> {
    let until: Option<i64> = row.try_get(2)?;
    let ended_by: Option<String> = row.try_get(3)?;
    let end = match (until, ended_by) {
        (Some(_), Some(by)) => Some((instant(row, 2)?, EndedBy::of(&by)?)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(Unreadable::Row("ledger: half ended".to_owned())),
    };
    let market: String = row.try_get(8)?;
    let market = [Market::Spot, Market::OnDemand].into_iter().find(|known| known.to_string() == market);
    let price: Option<f64> = row.try_get(10)?;
    let (source, date): (Option<String>, Option<String>) = (row.try_get(11)?, row.try_get(12)?);
    Ok(Stretch {
        instance: InstanceId(row.try_get(0)?),
        from: instant(row, 1)?,
        end,
        resource: ResourceName(row.try_get(4)?),
        queue: QueueName(row.try_get(5)?),
        instance_type: InstanceType(row.try_get(6)?),
        zone: row.try_get(7)?,
        market: market.ok_or_else(|| Unreadable::Row("ledger: unknown market".to_owned()))?,
        launched_at: instant(row, 9)?,
        price: price.map(|usd_per_hour| PricePaid {
            usd_per_hour,
            source: source.unwrap_or_default(),
            date: date.unwrap_or_default(),
        }),
    })
}

impl From<Unreadable> for JournalError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Sql(error) => Self(format!("read: {error}")),
            Unreadable::Row(reason) => Self(format!("read: {reason}")),
        }
    }
}
