//! The live clock: the wall clock once, at the start, then the monotonic one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::ports::Clock;
use planner::Time;

/// Steady time: a jump of the host's clock moves nothing.
#[derive(Clone, Copy, Debug)]
pub struct LiveClock {
    began: Instant,
    epoch: Time,
}

impl LiveClock {
    /// Starts from the wall clock.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), epoch: Time(0).after(since_epoch) }
    }
}

impl Clock for LiveClock {
    fn now(&self) -> Time {
        self.epoch.after(self.began.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
