//! EC2 counts an account's calls in buckets, one for each kind of call, and refuses those that come too fast.
//! Waiting here is cheaper than being refused: a refusal counts as a call, too.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Kinds of call that EC2 counts apart ("Request throttling for the Amazon EC2 API": bucket, refill per second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RunInstances: 5, 2.
    Launch,
    /// Calls that change something: 50, 5.
    Change,
    /// Calls that only read, filtered or by pages: 100, 20.
    Read,
}

/// The buckets of one connection, shared by its clones.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    launch: Bucket,
    change: Bucket,
    read: Bucket,
}

type Bucket = Arc<RateLimiter<NotKeyed, InMemoryState, MonotonicClock>>;

impl Default for Buckets {
    fn default() -> Self {
        Self { launch: bucket(5, 2), change: bucket(50, 5), read: bucket(100, 20) }
    }
}

impl Buckets {
    /// Waits until a call of this kind may be made: as a rule, not at all.
    pub(crate) async fn turn(&self, kind: Kind) {
        let bucket = match kind {
            Kind::Launch => &self.launch,
            Kind::Change => &self.change,
            Kind::Read => &self.read,
        };
        while let Err(not_yet) = bucket.check() {
            // A call that waits longer than that is given up by its caller.
            let wait = not_yet.wait_time_from(MonotonicClock.now());
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

fn bucket(size: u32, per_second: u32) -> Bucket {
    let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(size));
    Arc::new(RateLimiter::direct_with_clock(quota, MonotonicClock))
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_that_is_empty_makes_the_next_call_wait_and_no_other_kind() {
        let buckets = Buckets::default();
        for _ in 0..5 {
            buckets.turn(Kind::Launch).await;
        }
        assert!(buckets.launch.check().is_err(), "a sixth call at once");
        assert!(buckets.read.check().is_ok() && buckets.change.check().is_ok());
        buckets.turn(Kind::Launch).await;
    }
}
