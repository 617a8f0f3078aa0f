//! Sends what there is to ClearML, in order, until it arrives: console lines, points, plots.
//!
//! Whatever fails is tried again, with growing pauses; what waits meanwhile is bounded where it waits. A
//! console line may come twice if a reply is lost, which is better than not at all; points and plots have
//! a place of their own, and can't.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use clearml::{Client, Error, Event};
use tokio::sync::watch;

use super::feed::{ConsoleFeed, Taken};
use super::outage::Outage;
use super::outbox::Outbox;

/// Lines of one batch, and their bytes.
const LINES: usize = 500;
const BYTES: usize = 512 << 10;
/// Points of one batch.
const POINTS: usize = 1000;
/// News is waited for so long before it is sent, so that what belongs together comes together.
const GATHER: Duration = Duration::from_millis(500);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between two tries once the end is near.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Sends everything.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) task: String,
    /// What lines are signed with.
    pub(super) worker: String,
    pub(super) feed: ConsoleFeed,
    pub(super) outbox: Outbox,
    pub(super) ending: watch::Receiver<bool>,
}

impl Sender {
    /// Until it is told to end, and everything has been sent.
    pub(super) async fn run(mut self) {
        let mut outage = Outage::of("reporting to ClearML");
        let mut refusals = Refusals::default();
        loop {
            let ending = *self.ending.borrow_and_update();
            while let Some(batch) = self.next_batch() {
                self.deliver(&batch, &mut outage, &mut refusals).await;
            }
            if ending {
                return;
            }
            tokio::select! {
                () = self.feed.news() => {}
                () = self.outbox.news() => {}
                // Nobody is left who could tell it to end.
                told = self.ending.changed() => if told.is_err() { return },
            }
            if !*self.ending.borrow() {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<Event>> {
        let taken = self.feed.take(LINES, BYTES);
        if taken.dropped > 0 || !taken.lines.is_empty() {
            return Some(self.console(taken));
        }
        let (points, dropped) = self.outbox.take_points(POINTS);
        if dropped > 0 {
            tracing::warn!("{dropped} points of curves were lost while ClearML did not answer");
        }
        if !points.is_empty() {
            return Some(points.iter().map(|point| point.event(&self.task)).collect());
        }
        self.outbox.take_plot().map(|plot| vec![plot.event(&self.task)])
    }

    fn console(&self, taken: Taken) -> Vec<Event> {
        let Taken { dropped, lines } = taken;
        let log = |timestamp, level: &str, msg| Event::Log {
            task: self.task.clone(),
            timestamp,
            level: level.to_owned(),
            worker: self.worker.clone(),
            msg,
        };
        let first_ms = lines.first().map_or(0, |line| line.at_ms);
        let gap = (dropped > 0).then(|| {
            let text =
                format!("WARNING: {dropped} lines before the next one were lost: ClearML did not answer");
            log(first_ms.saturating_sub(1), "warning", text)
        });
        gap.into_iter().chain(lines.into_iter().map(|line| log(line.at_ms, line.level, line.text))).collect()
    }

    async fn deliver(&mut self, batch: &[Event], outage: &mut Outage, refusals: &mut Refusals) {
        let mut pauses = pauses();
        loop {
            match self.client.add_events(batch).await {
                Ok(added) => {
                    outage.over();
                    if added.errors > 0 {
                        refusals.tell(&format!("{} of {}", added.errors, batch.len()));
                    }
                    return;
                }
                // What the server understood and refused it will refuse again.
                Err(error @ Error::Refused { .. }) => {
                    refusals.tell(&error);
                    return;
                }
                Err(
                    error
                    @ (Error::Unavailable { .. } | Error::Unauthorized { .. } | Error::Malformed { .. }),
                ) => outage.failed(&error),
            }
            let ending = *self.ending.borrow_and_update();
            let pause = if ending { LAST_PAUSE } else { pauses.next().unwrap_or(LONGEST_PAUSE) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.ending.changed(), if !ending => {}
            }
        }
    }
}

/// Told once: the line that tells it is most likely refused as well.
#[derive(Default)]
struct Refusals {
    told: bool,
}

impl Refusals {
    fn tell(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("ClearML refuses reports of this task, which are dropped: {why}");
        }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
