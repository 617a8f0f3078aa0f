//! What was called, and what is to go wrong next: the side that tests and the demo hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::error::ApiError;
use super::options::Rate;

/// Calls kept in the log; the totals go on counting.
const LOG_LIMIT: usize = 20_000;

/// One call, as it was answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// For example `RunInstances`.
    pub action: String,
    /// When it arrived, on the steady clock.
    pub at: Instant,
    /// When it arrived, on the wall clock.
    pub time: Timestamp,
    /// As sent. User data is in it.
    pub params: BTreeMap<String, String>,
    /// What it launched or was told to terminate.
    pub instances: Vec<String>,
    /// The error code that it was answered with.
    pub error: Option<String>,
    /// The IAM actions that it needs, if it was let through to where they are asked for.
    pub permissions: BTreeSet<String>,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instances that were launched.
    pub launched: u64,
    /// Those of them that are terminated.
    pub terminated: u64,
    /// Those of them that are not.
    pub left: u64,
}

/// What happens to a call in place of what should.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done; this is the answer.
    Refuse(ApiError),
    /// The work is done, then the connection is closed without an answer.
    LoseReply,
    /// The work is done this much later.
    Delay(Duration),
}

/// The log, the faults to come, and the throttle's buckets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) calls: VecDeque<Call>,
    pub(crate) launched: u64,
    pub(crate) terminated: u64,
    faults: BTreeMap<String, VecDeque<Fault>>,
    buckets: BTreeMap<String, Bucket>,
}

impl Ledger {
    pub(crate) fn record(&mut self, call: Call) {
        if self.calls.len() == LOG_LIMIT {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    pub(crate) fn plan_faults(&mut self, action: &str, times: usize, fault: &Fault) {
        self.faults.entry(action.into()).or_default().extend(std::iter::repeat_n(fault.clone(), times));
    }

    pub(crate) fn next_fault(&mut self, action: &str) -> Option<Fault> {
        self.faults.get_mut(action)?.pop_front()
    }

    /// Takes tokens out of a bucket; `false` if it holds too few.
    pub(crate) fn spend(&mut self, bucket: &str, rate: Rate, tokens: f64, now: Instant) -> bool {
        let full = Bucket { tokens: rate.burst, at: now };
        self.buckets.entry(bucket.into()).or_insert(full).spend(rate, tokens, now)
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn spend(&mut self, rate: Rate, tokens: f64, now: Instant) -> bool {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second;
        self.tokens = (self.tokens + refilled).min(rate.burst);
        self.at = now;
        let enough = self.tokens >= tokens;
        if enough {
            self.tokens -= tokens;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let mut ledger = Ledger::default();
        let rate = Rate { burst: 2.0, per_second: 0.5 };
        let start = Instant::now();
        assert!(ledger.spend("RunInstances", rate, 1.0, start));
        assert!(ledger.spend("RunInstances", rate, 1.0, start));
        assert!(!ledger.spend("RunInstances", rate, 1.0, start + Duration::from_secs(1)));
        assert!(ledger.spend("RunInstances", rate, 1.0, start + Duration::from_secs(2)));
        assert!(!ledger.spend("RunInstances", rate, 3.0, start + Duration::from_secs(900)));
    }
}
