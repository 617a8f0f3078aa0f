//! How fast instances may be launched: the operator's limit for the whole fleet, and EC2's own bucket,
//! which refuses those who come faster.

use std::time::Duration;

use crate::hold::Hold;
use crate::ids::Time;
use crate::plan::Plan;

/// EC2 lets an account launch so many at once,
const BUCKET: i64 = 1000;
/// and so many more for every second (EC2's API reference, "request throttling": RunInstances resources).
const REFILL_PER_SECOND: i64 = 2;
/// What comes drop by drop is gathered into calls of at least this many.
const HANDFUL: u32 = 20;
/// The span of the operator's limit.
const MINUTE: Duration = Duration::from_secs(60);
/// [`Snapshot::launches`](crate::Snapshot::launches) older than this no longer matter: an empty bucket is full again.
pub const LAUNCHES_KEPT: Duration = Duration::from_secs((BUCKET / REFILL_PER_SECOND).unsigned_abs());

/// What may still be launched now.
pub(crate) struct Pace {
    now: Time,
    left: u32,
    /// When more may be.
    more_at: Time,
}

impl Pace {
    /// From what was asked for lately, oldest first: when, and how many instances.
    pub(crate) fn of(now: Time, per_minute: u32, launches: &[(Time, u32)]) -> Self {
        let by_operator = within_the_minute(now, per_minute, launches);
        let by_ec2 = in_the_bucket(now, launches);
        let (left, more_at) = if by_ec2.0 < by_operator.0 { by_ec2 } else { by_operator };
        Self { now, left, more_at }
    }

    /// Takes as many of `wanted` as may be launched now; a hold tells of the rest.
    pub(crate) fn take(&mut self, wanted: u32, plan: &mut Plan) -> u32 {
        let taken = wanted.min(self.left);
        self.left -= taken;
        if taken < wanted {
            let until = self.more_at.max(self.now.after(Duration::from_millis(1)));
            plan.holds.push(Hold::Paced { count: wanted - taken, until });
            plan.wake(until);
        }
        taken
    }
}

fn within_the_minute(now: Time, per_minute: u32, launches: &[(Time, u32)]) -> (u32, Time) {
    let recent = launches.iter().filter(|(at, _)| now.since(*at) < MINUTE);
    let count = recent.clone().map(|(_, count)| *count).fold(0, u32::saturating_add);
    let more_at = recent.map(|(at, _)| at.after(MINUTE)).min().unwrap_or(now.after(MINUTE));
    (per_minute.saturating_sub(count), more_at)
}

/// The bucket, filled and emptied in the order of the launches.
fn in_the_bucket(now: Time, launches: &[(Time, u32)]) -> (u32, Time) {
    // In thousandths of an instance. More may have been taken than was there: a debt, to be refilled first.
    const FULL: i64 = BUCKET * 1000;
    let refill = |tokens: i64, span: Duration| {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        tokens.saturating_add(millis.saturating_mul(REFILL_PER_SECOND)).min(FULL)
    };
    let (mut tokens, mut at) = (FULL, Time(0));
    for (launched_at, count) in launches {
        tokens = refill(tokens, launched_at.since(at)).saturating_sub(i64::from(*count) * 1000);
        at = *launched_at;
    }
    tokens = refill(tokens, now.since(at));
    let whole = u32::try_from(tokens / 1000).unwrap_or(0);
    let left = if whole < HANDFUL { 0 } else { whole };
    let missing = u64::try_from(i64::from(HANDFUL) * 1000 - tokens).unwrap_or(0);
    (left, now.after(Duration::from_millis(missing.div_ceil(REFILL_PER_SECOND.unsigned_abs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(now: u64, per_minute: u32, launches: &[(u64, u32)]) -> (u32, Time) {
        let launches: Vec<(Time, u32)> = launches.iter().map(|(at, count)| (Time(*at), *count)).collect();
        let pace = Pace::of(Time(now), per_minute, &launches);
        (pace.left, pace.more_at)
    }

    #[test]
    fn the_operators_limit_is_over_any_sixty_seconds() {
        assert_eq!(pace(600_000, 600, &[]).0, 600);
        assert_eq!(pace(600_000, 600, &[(540_000, 500)]).0, 600, "a minute ago");
        assert_eq!(pace(600_000, 600, &[(545_000, 590), (570_000, 10)]), (0, Time(605_000)));
    }

    #[test]
    fn ec2s_bucket_refills_by_two_a_second_and_is_emptied_by_handfuls() {
        let fast = 100_000;
        assert_eq!(pace(1_000_000, fast, &[(1_000_000, 400)]).0, 600);
        assert_eq!(pace(1_009_500, fast, &[(1_000_000, 1000)]), (0, Time(1_010_000)));
        assert_eq!(pace(1_010_000, fast, &[(1_000_000, 1000)]).0, 20);
        assert_eq!(pace(1_500_000, fast, &[(1_000_000, 1000)]).0, 1000);
        assert_eq!(pace(1_100_000, fast, &[(1_000_000, 1000), (1_050_000, 100)]).0, 100);
    }
}
