//! How long an offering is left alone after EC2 refused it: by what it said, longer each time in a row.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::policy::Offering;

/// Why EC2 refused a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has none now, or the account's limit is reached.
    NoCapacity,
    /// Too many calls.
    Throttled,
    /// Something that the request names is not there (any more).
    Gone,
    /// Credentials, permissions or the request itself: an operator must act.
    Wrong,
}

/// Until an offering that was refused `times` in a row is asked for again. Never in step with other
/// controllers: a part of it hangs on `salt`.
pub fn pause_after(refusal: Refusal, times: u32, offering: &Offering, salt: &str) -> Duration {
    let (first, longest) = match refusal {
        Refusal::NoCapacity => (120, 30 * 60),
        Refusal::Throttled => (5, 60),
        Refusal::Gone => (1, 60),
        Refusal::Wrong => (300, 60 * 60),
    };
    let grown = Duration::from_secs(first).saturating_mul(1 << times.saturating_sub(1).min(16));
    let pause = grown.min(Duration::from_secs(longest));
    let digest = Sha256::digest(format!("{salt}|{offering}|{times}"));
    pause + pause.mul_f64(f64::from(digest[0]) / 255.0 * 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Market, Placement};

    #[test]
    fn pauses_grow_with_every_refusal_and_have_an_end() {
        let offering =
            Offering { instance_type: "g4dn.xlarge".into(), placement: Placement::Any, market: Market::Spot };
        let pause = |refusal, times| pause_after(refusal, times, &offering, "fleet");
        let within = |pause: Duration, seconds: u64| {
            (Duration::from_secs(seconds)..=Duration::from_secs(seconds).mul_f64(1.25)).contains(&pause)
        };
        for (times, seconds) in [(1, 120), (2, 240), (3, 480), (4, 960), (5, 1800), (40, 1800)] {
            assert!(within(pause(Refusal::NoCapacity, times), seconds), "{times}");
        }
        assert!(within(pause(Refusal::Throttled, 1), 5));
        assert!(within(pause(Refusal::Throttled, 9), 60));
        let other = pause_after(Refusal::NoCapacity, 1, &offering, "another fleet");
        assert_ne!(pause(Refusal::NoCapacity, 1), other, "two controllers in step");
    }
}
