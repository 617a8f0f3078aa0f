//! The sidecar's process: carries out what its real state machine decides, as its runner does, and dies at
//! any effect. What it saved is there when it starts again.

use std::collections::VecDeque;
use std::time::Duration;

use sidecar::agent::{self, Agent, Boot, Effect, Event, Reading, Standing};

use super::World;
use super::machine::Ender;
use super::table::Said;
use crate::scenario::SECOND;

/// How long closing the gates is tried.
const CLOSE_LIMIT: u64 = 10 * SECOND;
const CLOSE_RETRY: u64 = 20;

/// The process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Which life of the sidecar this is.
    pub(crate) life: u64,
    machine: agent::Machine,
    closing: Option<u64>,
    /// When the next tick is set for.
    tick_at: u64,
    trying: bool,
}

impl World {
    pub(crate) fn start_sidecar(&mut self, at: usize) {
        let now = self.boottime(at);
        let machine = &mut self.machines[at];
        if !machine.on || machine.process.is_some() || machine.sidecar_broken {
            return;
        }
        machine.line.lives += 1;
        // What it could not save is no promise any more.
        machine.said_drained &= machine.saved.standing != Standing::Open;
        let life = machine.line.lives;
        let process = Process {
            life,
            machine: agent::Machine::new(now, machine.saved.clone()),
            closing: None,
            tick_at: u64::MAX,
            trying: false,
        };
        machine.process = Some(process);
        machine.line.pause = 500;
        let boot = machine.script_received.then(|| machine.boot.clone());
        self.tell(|| format!("{} sidecar up", self.machines[at].id));
        self.sidecar_event(at, boot.map(Event::Boot));
        self.connect(at, life);
    }

    pub(crate) fn kill_sidecar(&mut self, at: usize, for_good: bool) {
        if self.machines[at].process.take().is_none() {
            return;
        }
        self.tell(|| {
            format!("{} sidecar dies{}", self.machines[at].id, if for_good { " for good" } else { "" })
        });
        self.machines[at].sidecar_broken = for_good;
        // What it heard and had not written down, it has not heard.
        let saved = (self.machines[at].saved.epoch, self.machines[at].saved.generation);
        self.machines[at].newest_heard = saved;
        self.cut_line(at);
        if !for_good {
            let delay = if self.rng.chance(0.8) { 2 * SECOND } else { self.range(2 * SECOND, 90 * SECOND) };
            self.after(delay, move |world| world.start_sidecar(at));
        }
    }

    /// Something happened, or may have: the gates are looked at, then the event is taken.
    pub(crate) fn sidecar_event(&mut self, at: usize, event: Option<Event>) {
        if self.machines[at].process.is_none() {
            return;
        }
        self.look(at);
        if let Some(event) = event {
            self.sidecar_handle(at, event);
        }
        self.try_close(at);
        self.set_tick(at);
    }

    fn look(&mut self, at: usize) {
        let machine = &self.machines[at];
        let agents = if machine.script_received {
            vec![Agent { reading: machine.shim.reading.clone(), alive: machine.shim.alive, ungated: false }]
        } else {
            Vec::new()
        };
        self.sidecar_handle(at, Event::Agents(agents));
    }

    fn sidecar_handle(&mut self, at: usize, event: Event) {
        let now = self.boottime(at);
        let Some(process) = &mut self.machines[at].process else { return };
        let mut effects = VecDeque::from(process.machine.handle(now, event));
        while let Some(effect) = effects.pop_front() {
            let weighty = !matches!(effect, Effect::Report | Effect::RenewLeases { .. });
            if weighty && self.strikes(|luck| luck.sidecar_dies * 20.0) {
                return self.kill_sidecar(at, false);
            }
            let event = self.carry_out(at, effect);
            let Some(process) = &mut self.machines[at].process else { return };
            if let Some(event) = event {
                effects.extend(process.machine.handle(now, event));
            }
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) -> Option<Event> {
        let now = self.now;
        match effect {
            Effect::RenewLeases { until } => {
                self.judge_renewed(at);
                self.machines[at].shim.lease = until;
            }
            Effect::Shut => self.machines[at].shim.lease = Duration::ZERO,
            Effect::Kill => {
                self.freeze_agent(at);
                return Some(Event::Killed);
            }
            Effect::CloseGates => {
                if let Some(process) = &mut self.machines[at].process {
                    process.closing = Some(now + CLOSE_LIMIT);
                }
            }
            Effect::StopClosing => {
                if let Some(process) = &mut self.machines[at].process {
                    process.closing = None;
                }
            }
            Effect::Save(saved) => {
                let written = !self.strikes(|luck| luck.save_fails);
                if written {
                    self.machines[at].saved = saved;
                }
                return Some(Event::Saved(written));
            }
            Effect::Answer(answer) => {
                self.judge_answered(at, &answer);
                self.tell(|| {
                    format!("{} answers {}: {:?}", self.machines[at].id, answer.order, answer.outcome)
                });
                self.send_answer(at, answer);
            }
            Effect::Report => {
                let boottime = self.boottime(at);
                if let Some(process) = &self.machines[at].process {
                    let report = process.machine.report(boottime);
                    self.judge_standing(at, report.standing);
                    let at_work = self.at_work(at);
                    self.send_report(at, Said { report, at_work });
                }
            }
            Effect::Disarm => {
                let delay = self.range(50, 2 * SECOND);
                let life = self.machines[at].line.lives;
                self.after(delay, move |world| {
                    world.machines[at].armed = false;
                    if world.lives(at, life) {
                        world.sidecar_event(at, Some(Event::Disarmed));
                    }
                });
            }
            Effect::PowerOff(reason) => {
                self.tell(|| format!("{} powers off: {reason}", self.machines[at].id));
                // The order to the system is carried out a moment later.
                let delay = self.range(100, 2 * SECOND);
                self.after(delay, move |world| {
                    if world.machines[at].on {
                        world.end_machine(at, Ender::Sidecar(reason));
                    }
                });
            }
        }
        None
    }

    pub(crate) fn lives(&self, at: usize, life: u64) -> bool {
        self.machines[at].process.as_ref().is_some_and(|process| process.life == life)
    }

    /// One try at closing the gate, if that is wanted.
    fn try_close(&mut self, at: usize) {
        let now = self.now;
        let locked = self.machines[at].shim.locked;
        let Some(process) = &mut self.machines[at].process else { return };
        let Some(limit) = process.closing else { return };
        let event = if !locked {
            let machine = &mut self.machines[at];
            machine.shim.lease = Duration::ZERO;
            let readings: Vec<Reading> =
                if machine.script_received { vec![machine.shim.reading.clone()] } else { Vec::new() };
            Event::Closed(readings)
        } else if now < limit {
            if !process.trying {
                process.trying = true;
                let life = process.life;
                self.after(CLOSE_RETRY, move |world| {
                    if world.lives(at, life) {
                        if let Some(process) = &mut world.machines[at].process {
                            process.trying = false;
                        }
                        world.sidecar_event(at, None);
                    }
                });
            }
            return;
        } else {
            Event::NotClosed
        };
        if let Some(process) = &mut self.machines[at].process {
            process.closing = None;
        }
        self.sidecar_handle(at, event);
    }

    fn set_tick(&mut self, at: usize) {
        let (now, boottime) = (self.now, self.boottime(at));
        let Some(process) = &mut self.machines[at].process else { return };
        let wait = process.machine.wake_at(boottime).saturating_sub(boottime);
        let due = now + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).clamp(1, 60 * SECOND);
        if process.tick_at <= due && process.tick_at > now {
            return;
        }
        process.tick_at = due;
        let life = process.life;
        self.after(due - now, move |world| {
            let now = world.now;
            match &mut world.machines[at].process {
                Some(process) if process.life == life && process.tick_at == now => process.tick_at = u64::MAX,
                Some(_) | None => return,
            }
            world.sidecar_event(at, Some(Event::Tick));
        });
    }

    /// The controller's Welcome has come.
    pub(crate) fn welcomed(&mut self, at: usize, epoch: u64) {
        let heartbeat_in = Duration::from_millis(self.range(0, 5 * SECOND));
        let silent_idle_limit = self.policy.max_idle.max(Duration::from_secs(1));
        self.machines[at].newest_heard = self.machines[at].newest_heard.max((epoch, 0));
        self.sidecar_event(at, Some(Event::Attached { epoch, silent_idle_limit, heartbeat_in }));
        if self.machines[at].process.is_some() && !self.machines[at].script_received {
            self.run_script(at);
            let boot = self.machines[at].boot.clone();
            self.sidecar_event(at, Some(Event::Boot(boot)));
        }
    }

    /// Whether its sidecar, by what it saved, has closed its gate for good.
    pub(crate) fn is_retired(&self, at: usize) -> bool {
        self.machines[at].saved.standing == Standing::Retired
    }

    /// Whether the boot is still under way, by what is so.
    pub(crate) fn is_booting(&self, at: usize) -> bool {
        self.machines[at].boot != Boot::Ready
    }
}
