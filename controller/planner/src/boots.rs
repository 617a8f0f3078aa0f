//! A breaker per pool: how many of its instances may be on their way at once, by how its last boots ended.
//!
//! A pool that has not yet shown a ready instance gets a few to try; what is broken costs those few, not
//! the whole maximum. The first that becomes ready lets all others through. Three that fail without one
//! success between them pause the pool, longer with every further failure; then one at a time may try.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hold::Hold;
use crate::ids::{ResourceName, Time};

/// So many boots may fail before a pool is paused, and so many may be tried before one has succeeded.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);

/// How a pool's boots ended so far. Survives the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// An instance of it became ready, and fewer than three boots have failed since.
    pub proven: bool,
    /// Boots that failed since the last one that succeeded.
    pub failed: u32,
    /// When the last of those failed.
    pub last_failed_at: Time,
    /// Why, with the end of the boot log if there is one.
    pub reason: String,
}

impl Boots {
    /// An instance became ready.
    pub fn succeed(&mut self) {
        *self = Self { proven: true, ..Self::default() };
    }

    /// A boot failed.
    pub fn fail(&mut self, at: Time, reason: String) {
        self.failed = self.failed.saturating_add(1);
        self.last_failed_at = at;
        self.reason = reason;
        self.proven &= self.failed < TRIES;
    }

    /// Nobody should wait for this pool.
    pub(crate) fn is_broken(&self) -> bool {
        self.failed >= TRIES
    }

    /// Until when the pool is paused, if it is.
    fn paused_until(&self) -> Option<Time> {
        let beyond = self.failed.checked_sub(TRIES)?;
        let pause = FIRST_PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PAUSE);
        Some(self.last_failed_at.after(pause))
    }

    /// How many of the pool's instances may be on their way at once now; `None` for any number.
    pub(crate) fn limit(&self, now: Time) -> Option<u32> {
        match self.paused_until() {
            Some(until) if now < until => Some(0),
            Some(_) => Some(1),
            None if self.failed > 0 || !self.proven => Some(TRIES - self.failed),
            None => None,
        }
    }

    /// Why no more may be on their way.
    pub(crate) fn hold(&self, resource: &ResourceName, now: Time) -> Hold {
        let (resource, reason) = (resource.clone(), self.reason.clone());
        match self.paused_until().filter(|until| now < *until) {
            Some(until) => Hold::PoolPaused { resource, failures: self.failed, until, reason },
            None => Hold::Unproven { resource, failures: self.failed, reason },
        }
    }
}
