//! Calls of the controller: each may be lost on its way there or back, done late or twice, and be the
//! place at which the controller dies, before its effect or after it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::World;
use crate::scenario::SECOND;

/// Whom a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    ClearMl,
    Cloud,
    Journal,
}

/// A crash at a call: at the `nth` of this name from now on, before its effect or after.
#[derive(Clone, Debug)]
pub(crate) struct CrashPoint {
    pub(crate) name: &'static str,
    pub(crate) nth: u64,
    pub(crate) after: bool,
}

/// Calls at which a crash is planned.
pub(crate) const CRASH_NAMES: [&str; 14] = [
    "queues",
    "workers",
    "tasks",
    "describe",
    "gone",
    "launch",
    "terminate",
    "unregister",
    "begin",
    "answer",
    "postpone",
    "close",
    "mark ready",
    "open",
];

/// Why there is no proper answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Whether it was done is not known.
    Lost,
    /// It was surely not done: too many calls.
    Throttled,
}

/// The place where an answer arrives.
pub(crate) struct Slot<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    answer: Option<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { answer: None, waker: None })))
    }

    pub(crate) fn fill(&self, answer: T) {
        let mut inner = self.lock();
        inner.answer = Some(answer);
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Nobody waits any more.
    fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut inner = self.lock();
        match inner.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What becomes of a call.
enum Fate {
    Done,
    LostBefore,
    LostAfter,
    Refused(Failure),
}

impl World {
    /// Wakes whoever waits there, if anybody still does.
    pub(crate) fn wake_after(&mut self, delay: u64, slot: Slot<()>) {
        self.after(delay, move |_| {
            if !slot.is_dropped() {
                slot.fill(());
            }
        });
    }

    /// A call leaves the controller.
    pub(crate) fn begin_call<T: Send + 'static>(
        &mut self,
        to: To,
        name: &'static str,
        slot: Slot<T>,
        failed: fn(Failure) -> T,
        effect: impl FnMut(&mut World) -> T + Send + 'static,
    ) {
        let mut effect = effect;
        let run = self.controller.run;
        let crash = self.crash_point(name);
        if crash == Some(false) {
            self.controller.crash = true;
            self.tell(|| format!("controller: dies before {name}"));
            return;
        }
        let (there, back) = self.latency(to);
        let fate = self.fate(to, name);
        let late = self.range(2 * SECOND, 30 * SECOND);
        match fate {
            Fate::Refused(failure) => {
                return self.after(there + back, move |_| slot.fill(failed(failure)));
            }
            Fate::LostBefore => {
                // A refused connection is quick, a lost packet is not.
                let delay = if late.is_multiple_of(2) { there + back } else { late };
                return self.after(delay, move |_| slot.fill(failed(Failure::Lost)));
            }
            Fate::Done | Fate::LostAfter => {}
        }
        let lost = matches!(fate, Fate::LostAfter);
        // What was sent before a crash may still arrive.
        let survives = self.rng.chance(0.6);
        let twice = to == To::Cloud && self.strikes(|luck| luck.cloud_twice);
        self.after(there, move |world| {
            if world.controller.run != run && !survives {
                return;
            }
            let mut answer = effect(world);
            if twice {
                answer = effect(world);
            }
            if crash == Some(true) && world.controller.run == run {
                world.controller.crash = true;
                world.tell(|| format!("controller: dies after {name}"));
            } else if lost {
                world.tell(|| format!("answer to {name} lost"));
                world.after(late, move |_| slot.fill(failed(Failure::Lost)));
            } else {
                world.after(back, move |_| slot.fill(answer));
            }
        });
    }

    fn crash_point(&mut self, name: &'static str) -> Option<bool> {
        if self.quiet {
            return None;
        }
        let point = self.controller.crash_points.iter_mut().find(|point| point.name == name)?;
        point.nth = point.nth.saturating_sub(1);
        if point.nth > 0 {
            return None;
        }
        let after = point.after;
        let at = self.controller.crash_points.iter().position(|point| point.name == name)?;
        self.controller.crash_points.remove(at);
        Some(after)
    }

    fn latency(&mut self, to: To) -> (u64, u64) {
        let slow = to != To::Journal && self.strikes(|luck| luck.slow);
        let (low, high) = match to {
            To::ClearMl => (4, 80),
            To::Cloud => (50, 800),
            To::Journal => (1, 6),
        };
        if slow {
            // The controller gives up after 60 s.
            return (self.range(low, 20 * SECOND), self.range(low, 60 * SECOND));
        }
        (self.range(low, high), self.range(low, high))
    }

    fn fate(&mut self, to: To, name: &str) -> Fate {
        let now = self.now;
        match to {
            To::ClearMl => {
                if now < self.controller.no_clearml_until.max(self.server.down_until)
                    || self.strikes(|luck| luck.clearml_lost)
                {
                    return if self.rng.chance(0.8) { Fate::LostBefore } else { Fate::LostAfter };
                }
            }
            To::Cloud => {
                if now < self.controller.no_cloud_until || self.strikes(|luck| luck.cloud_lost_before) {
                    return Fate::LostBefore;
                }
                if self.strikes(|luck| luck.cloud_throttled) {
                    return Fate::Refused(Failure::Throttled);
                }
                if self.strikes(|luck| luck.cloud_lost_after) {
                    return Fate::LostAfter;
                }
            }
            To::Journal => {
                if name != "open" && self.strikes(|luck| luck.journal) {
                    return if self.rng.chance(0.5) { Fate::LostBefore } else { Fate::LostAfter };
                }
            }
        }
        Fate::Done
    }
}
