//! A machine: from its launch through the boot script to the loss of its power, and why that came.

use std::time::Duration;

use engine::ports::{CloudState, Launch};
use planner::{InstanceId, IntentId, Offering, QueueName, ResourceName, WorkerId};
use sidecar::agent::{Boot, Event, PowerOff, Saved};

use super::World;
use super::agent::Shim;
use super::link::Line;
use super::sidecar::Process;
use crate::scenario::{MINUTE, PREFIX, SECOND};

/// Phases of the boot script.
const PHASES: [&str; 3] = ["prepare", "packages", "agent"];

/// Who or what ends a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ender {
    /// `TerminateInstances` by the controller.
    Controller,
    /// Its own sidecar.
    Sidecar(PowerOff),
    /// The shutdown that the first command armed.
    Armed,
    /// AWS takes a spot instance back.
    Spot,
    /// Somebody ends it in the console.
    Hand,
    /// Somebody stops it there.
    Stopped,
}

/// How its boot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fortune {
    Good,
    /// It never runs its first command.
    Dead,
    /// It arms the shutdown, and its sidecar never starts.
    NoSidecar,
    PhaseFails(usize),
    PhaseHangs(usize),
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) at: usize,
    pub(crate) id: InstanceId,
    pub(crate) ours: bool,
    pub(crate) resource: ResourceName,
    pub(crate) queue: QueueName,
    pub(crate) intent: IntentId,
    pub(crate) offering: Offering,
    pub(crate) worker: WorkerId,
    pub(crate) launched_at: u64,
    pub(crate) visible_at: u64,
    pub(crate) state: CloudState,
    /// Since when it is `terminated` or `stopped`.
    pub(crate) ended_at: Option<u64>,
    pub(crate) remembered_for: u64,
    pub(crate) booted_at: u64,
    pub(crate) fortune: Fortune,
    /// It has power.
    pub(crate) on: bool,
    pub(crate) script_received: bool,
    pub(crate) boot: Boot,
    pub(crate) armed: bool,
    pub(crate) shim: Shim,
    pub(crate) process: Option<Process>,
    /// Its sidecar will not start again.
    pub(crate) sidecar_broken: bool,
    pub(crate) saved: Saved,
    pub(crate) line: Line,
    /// Until then its agent does not reach ClearML.
    pub(crate) no_clearml_until: u64,
    /// AWS has said that it takes it back.
    pub(crate) taken: bool,
    /// Since when it is of no use to anybody: for the bound on its life.
    pub(crate) useless_since: u64,
    /// The newest order that its sidecar has heard, as (epoch, generation).
    pub(crate) newest_heard: (u64, u64),
    /// It said that it is drained, or retired, and has not been called back.
    pub(crate) said_drained: bool,
    pub(crate) said_retired: bool,
    pub(crate) last_done: Option<sidecar::agent::Order>,
    /// The controller last heard of it.
    pub(crate) heard_at: Option<u64>,
    /// Its agent has been reported as up to some run of the controller.
    pub(crate) reported_ready: bool,
}

impl Machine {
    pub(crate) fn new(at: usize, id: InstanceId, launch: &Launch, now: u64, visible_at: u64) -> Self {
        let worker = WorkerId::of(PREFIX, &launch.resource, &launch.offering.instance_type, &id);
        Self {
            at,
            id,
            ours: true,
            resource: launch.resource.clone(),
            queue: launch.queue.clone(),
            intent: launch.intent.clone(),
            offering: launch.offering.clone(),
            worker,
            launched_at: now,
            visible_at,
            state: CloudState::Pending,
            ended_at: None,
            remembered_for: 10 * MINUTE,
            booted_at: now,
            fortune: Fortune::Good,
            on: false,
            script_received: false,
            boot: Boot::Waiting,
            armed: false,
            shim: Shim::default(),
            process: None,
            sidecar_broken: false,
            saved: Saved::default(),
            line: Line::default(),
            no_clearml_until: 0,
            taken: false,
            useless_since: now,
            newest_heard: (0, 0),
            said_drained: false,
            said_retired: false,
            last_done: None,
            heard_at: None,
            reported_ready: false,
        }
    }

    /// It is on its way out, or gone.
    pub(crate) fn has_ended(&self) -> bool {
        match self.state {
            CloudState::Pending | CloudState::Running => false,
            CloudState::ShuttingDown
            | CloudState::Terminated
            | CloudState::Stopping
            | CloudState::Stopped => true,
        }
    }
}

impl World {
    /// Time since boot, as the machine's own clock has it.
    pub(crate) fn boottime(&self, at: usize) -> Duration {
        Duration::from_millis(self.now.saturating_sub(self.machines[at].booted_at))
    }

    /// Somebody else's machines.
    pub(crate) fn add_foreign(&mut self, launch: &Launch) {
        let at = self.machines.len();
        let id = InstanceId(format!("i-{at:08x}"));
        let mut machine = Machine::new(at, id, launch, self.now, self.now);
        machine.ours = false;
        machine.state = CloudState::Running;
        let worker = machine.worker.clone();
        self.machines.push(machine);
        if at.is_multiple_of(2) {
            // It serves another fleet under our prefix: its worker is on the list all the time.
            self.foreign_reports(worker);
        }
    }

    fn foreign_reports(&mut self, worker: WorkerId) {
        self.report_worker(&worker, None);
        self.after(30 * SECOND, move |world| world.foreign_reports(worker));
    }

    pub(crate) fn begin_machine(&mut self, at: usize) {
        let fails = self.strikes(|luck| luck.boot_fails);
        let phase = usize::try_from(self.range(0, 3)).unwrap_or(0);
        self.machines[at].fortune = match (fails, self.range(0, 8)) {
            (false, _) => Fortune::Good,
            (true, 0 | 1) => Fortune::Dead,
            (true, 2 | 3) => Fortune::NoSidecar,
            (true, 4 | 5) => Fortune::PhaseFails(phase),
            (true, _) => Fortune::PhaseHangs(phase),
        };
        let delay = self.range(2 * SECOND, 20 * SECOND);
        self.after(delay, move |world| world.power_on(at));
    }

    fn power_on(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        if machine.has_ended() {
            return;
        }
        machine.state = CloudState::Running;
        machine.on = true;
        machine.booted_at = now;
        if machine.fortune == Fortune::Dead {
            return;
        }
        machine.armed = true;
        // `shutdown -P` counts in minutes.
        let limit = u64::try_from(self.policy.max_spin_up.as_millis()).unwrap_or(u64::MAX).div_ceil(MINUTE);
        self.after(limit * MINUTE + 2 * SECOND, move |world| {
            if world.machines[at].on && world.machines[at].armed {
                world.end_machine(at, Ender::Armed);
            }
        });
        if self.machines[at].fortune != Fortune::NoSidecar {
            let delay = self.range(4 * SECOND, 20 * SECOND);
            self.after(delay, move |world| world.start_sidecar(at));
        }
    }

    /// The script was received for the first time.
    pub(crate) fn run_script(&mut self, at: usize) {
        self.machines[at].script_received = true;
        self.machines[at].boot = Boot::Running("script".to_owned());
        self.boot_phase(at, 0);
    }

    fn boot_phase(&mut self, at: usize, phase: usize) {
        let delay = self.range(SECOND, 15 * SECOND);
        self.after(delay, move |world| {
            let machine = &mut world.machines[at];
            if !machine.on {
                return;
            }
            if machine.fortune == Fortune::PhaseHangs(phase) {
                return;
            }
            let Some(name) = PHASES.get(phase) else {
                return world.boot_ready(at);
            };
            machine.boot = if machine.fortune == Fortune::PhaseFails(phase) {
                Boot::Failed((*name).to_owned())
            } else {
                Boot::Running((*name).to_owned())
            };
            let boot = machine.boot.clone();
            let failed = matches!(boot, Boot::Failed(_));
            world.sidecar_event(at, Some(Event::Boot(boot)));
            if !failed {
                world.boot_phase(at, phase + 1);
            }
        });
    }

    fn boot_ready(&mut self, at: usize) {
        self.start_agent(at);
        self.machines[at].boot = Boot::Ready;
        self.sidecar_event(at, Some(Event::Boot(Boot::Ready)));
    }

    /// Whatever ran there runs no more.
    pub(crate) fn power_gone(&mut self, at: usize, by: Ender) {
        let cause = match by {
            Ender::Controller => "terminated",
            Ender::Sidecar(_) => "its machine powered itself off",
            Ender::Armed => "the armed shutdown came",
            Ender::Spot => "spot interruption",
            Ender::Hand | Ender::Stopped => "ended by hand",
        };
        self.lose_agent(at, cause);
        let machine = &mut self.machines[at];
        machine.on = false;
        machine.process = None;
        self.cut_line(at);
    }
}
