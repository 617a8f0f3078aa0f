//! Sessions: streams that keep the order of what they carry, until they break and lose it.

use sidecar::agent::{Answer, Event, Order};

use super::World;
use super::table::Said;
use super::table::order_of;
use crate::scenario::SECOND;

/// The gateway ends a stream that is silent for longer.
const SILENCE: u64 = 20 * SECOND;
/// A refused attach may wait for its admission for so long.
const ADMISSION: u64 = 5 * SECOND;
const LONGEST_PAUSE: u64 = 15 * SECOND;

/// A machine's line to the controller.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Lives of its sidecar.
    pub(crate) lives: u64,
    /// The stream that the sidecar takes for standing, and the controller's run at its other end.
    pub(crate) stream: Option<(u64, u64)>,
    pub(crate) pause: u64,
    /// Nothing passes until then.
    pub(crate) cut_until: u64,
    up_at: u64,
    down_at: u64,
}

impl World {
    fn line_delay(&mut self) -> u64 {
        if self.strikes(|luck| luck.message_late) { self.range(1, 4 * SECOND) } else { self.range(1, 60) }
    }

    /// When what is sent now arrives, if it does.
    fn arrives(&mut self, at: usize, up: bool) -> Option<u64> {
        let delay = self.line_delay();
        let now = self.now;
        let line = &mut self.machines[at].line;
        if line.cut_until > now + SILENCE {
            return None;
        }
        let last = if up { &mut line.up_at } else { &mut line.down_at };
        *last = (now.max(line.cut_until) + delay).max(*last + 1);
        Some(*last - now)
    }

    /// The sidecar dials.
    pub(crate) fn connect(&mut self, at: usize, life: u64) {
        let delay = self.range(5, 300);
        self.after(delay, move |world| {
            if !world.lives(at, life) || world.machines[at].line.stream.is_some() {
                return;
            }
            let reached = world.controller.up
                && world.now >= world.controller.hung_until
                && world.now >= world.machines[at].line.cut_until;
            if reached {
                let until = world.now + ADMISSION;
                world.attach(at, life, until);
            } else {
                world.connect_later(at, life);
            }
        });
    }

    fn connect_later(&mut self, at: usize, life: u64) {
        let line = &mut self.machines[at].line;
        let pause = line.pause;
        line.pause = (pause * 2).min(LONGEST_PAUSE);
        let delay = self.range(pause / 2, pause);
        self.after(delay, move |world| world.connect(at, life));
    }

    /// The gateway judges its hello; an admission may be on its way.
    fn attach(&mut self, at: usize, life: u64, until: u64) {
        if !self.lives(at, life) || !self.controller.up {
            return self.connect_later(at, life);
        }
        let id = self.machines[at].id.clone();
        if !self.table.admission.instances.contains_key(&id) {
            if self.now >= until {
                return self.connect_later(at, life);
            }
            return self.after(250, move |world| world.attach(at, life, until));
        }
        self.judge.streams += 1;
        let serial = self.judge.streams;
        let (run, epoch) = (self.controller.run, self.controller.epoch);
        let now = self.controller_time();
        self.table.seat(&id, serial, now);
        let Some(delay) = self.arrives(at, false) else { return self.connect_later(at, life) };
        self.after(delay, move |world| {
            let stands = world.controller.run == run && world.controller.up;
            if !world.lives(at, life) || !stands {
                return world.connect_later(at, life);
            }
            world.tell(|| format!("{} attached", world.machines[at].id));
            world.machines[at].line.stream = Some((serial, run));
            world.machines[at].line.pause = 500;
            world.machines[at].useless_since = world.now;
            world.welcomed(at, epoch);
        });
    }

    pub(crate) fn send_report(&mut self, at: usize, report: Said) {
        let Some((serial, run)) = self.machines[at].line.stream else { return };
        let Some(delay) = self.arrives(at, true) else { return };
        self.after(delay, move |world| {
            if world.controller.run != run || !world.controller.up {
                return;
            }
            let now = world.controller_time();
            let id = world.machines[at].id.clone();
            let Some(entry) = world.table.of(&id, serial) else { return };
            let news = entry.report(&report, now);
            let real = world.now;
            let machine = &mut world.machines[at];
            machine.heard_at = Some(real);
            machine.reported_ready |= report.report.boot.phase() == "ready";
            if news {
                world.sessions_changed.notify_one();
            }
        });
    }

    pub(crate) fn send_answer(&mut self, at: usize, answer: Answer) {
        let Some((serial, run)) = self.machines[at].line.stream else { return };
        let Some(delay) = self.arrives(at, true) else { return };
        self.after(delay, move |world| {
            if world.controller.run != run || !world.controller.up {
                return;
            }
            let now = world.controller_time();
            let id = world.machines[at].id.clone();
            let Some(entry) = world.table.of(&id, serial) else { return };
            if entry.answer(&answer, now) {
                world.sessions_changed.notify_one();
            }
        });
    }

    /// An order goes out to the stream that the table has; false if there is none.
    pub(crate) fn send_order(&mut self, at: usize, order: Order) -> bool {
        let id = self.machines[at].id.clone();
        let Some(entry) = self.table.entries.get_mut(&id) else { return false };
        let serial = entry.serial;
        let Some(session) = entry.session.as_mut().filter(|session| entry.stands && session.connected) else {
            return false;
        };
        session.last_answer = Some((order_of(order), planner::Answer::Awaited));
        self.tell(|| format!("{id} told to {order}"));
        let Some(delay) = self.arrives(at, false) else { return true };
        self.after(delay, move |world| world.deliver(at, Some(serial), order));
        if self.strikes(|luck| luck.order_twice) {
            // By whatever way: an old order comes up again.
            let late = delay + self.range(1, 40 * SECOND);
            self.after(late, move |world| world.deliver(at, None, order));
        }
        true
    }

    fn deliver(&mut self, at: usize, serial: Option<u64>, order: Order) {
        let stream = self.machines[at].line.stream.map(|(serial, _)| serial);
        if stream.is_none() || serial.is_some_and(|serial| stream != Some(serial)) {
            return;
        }
        self.judge_ordered(at, order);
        self.sidecar_event(at, Some(Event::Order(order)));
    }

    /// The stream breaks: each end learns of it in its own time, and what was under way is lost.
    pub(crate) fn break_line(&mut self, at: usize) {
        let Some((serial, _)) = self.machines[at].line.stream else { return };
        let (here, there) = (self.range(1, 2 * SECOND), self.range(1, 2 * SECOND));
        self.after(here, move |world| world.sidecar_detached(at, serial));
        self.after(there, move |world| world.table_lost(at, serial));
    }

    fn table_lost(&mut self, at: usize, serial: u64) {
        let now = self.controller_time();
        let id = self.machines[at].id.clone();
        if let Some(entry) = self.table.of(&id, serial) {
            entry.end(now);
            self.sessions_changed.notify_one();
        }
    }

    fn sidecar_detached(&mut self, at: usize, serial: u64) {
        let line = &mut self.machines[at].line;
        if line.stream.is_none_or(|(of, _)| of != serial) {
            return;
        }
        line.stream = None;
        line.pause = 500;
        self.sidecar_event(at, Some(Event::Detached));
        let life = self.machines[at].line.lives;
        if self.lives(at, life) {
            self.connect_later(at, life);
        }
    }

    /// The sidecar's end is gone: its process died, or its power.
    pub(crate) fn cut_line(&mut self, at: usize) {
        let Some((serial, _)) = self.machines[at].line.stream.take() else { return };
        // A reset from a machine that lives, silence from one that does not.
        let delay = if self.machines[at].on { self.range(1, SECOND) } else { SILENCE };
        self.after(delay, move |world| world.table_lost(at, serial));
    }

    /// Nothing passes between a machine and the controller for a while.
    pub(crate) fn partition(&mut self, at: usize, lasts: u64) {
        let until = self.now + lasts;
        let line = &mut self.machines[at].line;
        line.cut_until = line.cut_until.max(until);
        let Some((serial, _)) = line.stream else { return };
        self.tell(|| format!("{} cut off for {} s", self.machines[at].id, lasts / SECOND));
        if lasts > SILENCE {
            self.after(SILENCE, move |world| world.table_lost(at, serial));
            let notices = self.range(20 * SECOND, 30 * SECOND);
            self.after(notices, move |world| world.sidecar_detached(at, serial));
        }
    }

    /// The controller's end of all lines is gone.
    pub(crate) fn cut_all(&mut self) {
        self.table = super::table::Table::default();
        for at in 0..self.machines.len() {
            if let Some((serial, _)) = self.machines[at].line.stream {
                let delay = self.range(1, SECOND) + self.machines[at].line.cut_until.saturating_sub(self.now);
                self.after(delay.min(30 * SECOND), move |world| world.sidecar_detached(at, serial));
            }
        }
    }
}
