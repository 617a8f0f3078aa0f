//! Bad luck with a date: everything that strikes a seed besides the chances of its calls.

use std::sync::Arc;
use std::time::Duration;

use planner::{NOT_RESPONSIVE, Policy, ShutdownAction};
use sidecar::agent::Event;

use super::calls::{CRASH_NAMES, CrashPoint};
use super::clearml::Status;
use super::machine::Ender;
use super::{BASE, World};
use crate::scenario::{MINUTE, SECOND};

/// AWS gives this much notice.
const SPOT_NOTICE: u64 = 120 * SECOND;

impl World {
    /// Sets a seed's whole course: its work and its bad luck.
    pub(crate) fn set_course(&mut self) {
        self.set_work();
        let luck = self.scenario.luck.clone();
        self.strew(luck.crashes, |world| world.controller.crash = world.controller.up);
        self.strew(luck.hangs, World::hang);
        self.strew(luck.cuts, |world| {
            let lasts = world.range(2 * SECOND, 90 * SECOND);
            world.cut_some(lasts);
        });
        self.strew(luck.long_cuts, |world| {
            let lasts = world.range(3 * MINUTE, 16 * MINUTE);
            world.cut_some(lasts);
        });
        self.strew(luck.breaks, |world| {
            if let Some(at) = world.some_machine() {
                world.break_line(at);
            }
        });
        self.strew(luck.clearml_outages, |world| {
            let lasts = world.range(3 * SECOND, 3 * MINUTE);
            let until = world.now + lasts;
            world.tell(|| format!("ClearML out of reach for {} s", lasts / SECOND));
            if world.rng.chance(0.5) {
                world.server.down_until = until;
            } else {
                world.controller.no_clearml_until = until;
            }
        });
        self.strew(luck.agents_without_clearml, |world| {
            let lasts = world.range(3 * SECOND, 90 * SECOND);
            if let Some(at) = world.some_machine() {
                world.machines[at].no_clearml_until = world.now + lasts;
            }
        });
        self.strew(luck.cloud_outages, |world| {
            let lasts = world.range(3 * SECOND, 3 * MINUTE);
            world.tell(|| format!("EC2 out of reach for {} s", lasts / SECOND));
            world.controller.no_cloud_until = world.now + lasts;
        });
        self.after(15 * MINUTE, World::watch_dog);
        self.strew(luck.shortages, World::run_short);
        self.strew(luck.spot, World::spot);
        self.strew(luck.by_hand, |world| {
            if let Some(at) = world.some_machine() {
                let by = if world.rng.chance(0.3) { Ender::Stopped } else { Ender::Hand };
                world.end_machine(at, by);
            }
        });
        self.strew(luck.agent_deaths, |world| {
            if let Some(at) = world.some_machine() {
                world.kill_agent(at);
            }
        });
        self.strew(luck.sidecar_deaths, |world| {
            let for_good = world.rng.chance(0.1);
            if let Some(at) = world.some_machine() {
                world.kill_sidecar(at, for_good);
            }
        });
        self.strew(luck.user_acts, World::user_act);
        self.strew(luck.policy_changes, World::change_policy);
        self.strew(luck.shutdowns, World::shut_down);
        self.strew(luck.lease_losses, World::lose_lease);
        for _ in 0..luck.crash_points {
            let name = self.rng.pick(&CRASH_NAMES).copied().unwrap_or("launch");
            let (nth, after) = (self.range(1, 8), self.rng.chance(0.5));
            self.controller.crash_points.push(CrashPoint { name, nth, after });
        }
    }

    fn strew(&mut self, count: u64, strike: fn(&mut World)) {
        let end = self.scenario.quiet_at;
        for _ in 0..count {
            let at = self.range(5 * SECOND, end);
            self.after(at, move |world| {
                if !world.quiet {
                    strike(world);
                }
            });
        }
    }

    /// Bursts of tasks, short ones and a few long ones.
    fn set_work(&mut self) {
        let queues: Vec<_> = self.policy.pools.iter().map(|pool| pool.queue.clone()).collect();
        for queue in &queues {
            self.server.queues.entry(queue.clone()).or_default();
        }
        let end = self.scenario.quiet_at;
        for _ in 0..self.range(3, 12) {
            let at = self.range(0, end);
            let Some(queue) = self.rng.pick(&queues).cloned() else { return };
            for _ in 0..self.range(1, 7) {
                let lasts = match self.range(0, 20) {
                    0 => self.range(5 * MINUTE, 14 * MINUTE),
                    1..=6 => self.range(30 * SECOND, 3 * MINUTE),
                    _ => self.range(SECOND, 30 * SECOND),
                };
                let (at, queue) = (at + self.range(0, 20 * SECOND), queue.clone());
                self.after(at, move |world| world.enqueue_new(&queue, lasts));
            }
        }
    }

    fn some_machine(&mut self) -> Option<usize> {
        let live = self.machines.iter().filter(|machine| machine.ours && !machine.has_ended());
        let live: Vec<usize> = live.map(|machine| machine.at).collect();
        self.rng.pick(&live).copied()
    }

    fn cut_some(&mut self, lasts: u64) {
        if self.rng.chance(0.3) {
            for at in 0..self.machines.len() {
                self.partition(at, lasts);
            }
        } else if let Some(at) = self.some_machine() {
            self.partition(at, lasts);
        }
    }

    /// The controller's process stands still, and goes on where it was.
    fn hang(&mut self) {
        let lasts = self.range(2 * SECOND, 2 * MINUTE);
        self.tell(|| format!("controller: stands still for {} s", lasts / SECOND));
        self.controller.hung_until = self.now + lasts;
        for at in 0..self.machines.len() {
            self.partition(at, lasts);
        }
    }

    fn run_short(&mut self) {
        let offerings = self.scenario.policy.resources.values().flat_map(|resource| &resource.offerings);
        let offerings: Vec<_> = offerings.cloned().collect();
        let (lasts, left) = (self.range(30 * SECOND, 6 * MINUTE), self.range(0, 3));
        if let Some(offering) = self.rng.pick(&offerings) {
            let short = (self.now + lasts, usize::try_from(left).unwrap_or(0));
            self.region.shortages.insert(offering.clone(), short);
        }
    }

    /// The server's own: what has been in progress and silent for two hours is stopped.
    fn watch_dog(&mut self) {
        let now = BASE + self.now;
        for at in 0..self.server.tasks.len() {
            let task = &self.server.tasks[at];
            let silent = task.runs_on.is_none() && now - task.last_update > 120 * MINUTE;
            if task.status == Status::InProgress && silent {
                NOT_RESPONSIVE.clone_into(&mut self.server.tasks[at].message);
                self.set_status(at, Status::Stopped);
            }
        }
        self.after(15 * MINUTE, World::watch_dog);
    }

    fn spot(&mut self) {
        let Some(at) = self.some_machine() else { return };
        if self.machines[at].offering.market == planner::Market::Spot {
            self.tell(|| format!("{} is to be taken back", self.machines[at].id));
            let ends = self.now + SPOT_NOTICE;
            self.machines[at].taken = true;
            self.notice(at, ends);
            self.after(SPOT_NOTICE, move |world| world.end_machine(at, Ender::Spot));
        }
    }

    /// The sidecar looks every few seconds, and so does one that has started again.
    fn notice(&mut self, at: usize, ends: u64) {
        if self.machines[at].ended_at.is_some() || self.now >= ends {
            return;
        }
        let left = Duration::from_millis(ends - self.now);
        let ends_at = self.boottime(at) + left;
        self.sidecar_event(at, Some(Event::Notice(ends_at)));
        let delay = self.range(SECOND, 5 * SECOND);
        self.after(delay, move |world| world.notice(at, ends));
    }

    /// Another maximum, or a pool less.
    fn change_policy(&mut self) {
        let mut policy = self.policy.clone();
        let at = usize::try_from(self.range(0, policy.pools.len() as u64)).unwrap_or(0);
        match self.range(0, 4) {
            0 => policy = self.scenario.policy.clone(),
            1 if policy.pools.len() > 1 => {
                policy.pools.remove(at);
            }
            _ => {
                let maximum = u32::try_from(self.range(0, 6)).unwrap_or(1);
                if let Some(pool) = policy.pools.get_mut(at) {
                    pool.maximum = maximum;
                }
            }
        }
        policy.shutdown = self.policy.shutdown;
        self.set_policy(policy);
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        let pools: Vec<String> =
            policy.pools.iter().map(|pool| format!("{} {}", pool.resource, pool.maximum)).collect();
        self.tell(|| format!("policy: {}, at shutdown {:?}", pools.join(", "), policy.shutdown));
        let now = self.now;
        let before = std::mem::replace(&mut self.policy, policy);
        self.policies.retain(|(until, _)| now <= until + MINUTE);
        self.policies.push((now, before));
        if let Some(doors) = &self.controller.doors {
            doors.policy.send_replace(Arc::new(self.policy.clone()));
        }
    }

    /// The operator ends the controller in good order, and starts it again later.
    fn shut_down(&mut self) {
        if !self.controller.up {
            return;
        }
        let action = match self.range(0, 7) {
            0..=2 => ShutdownAction::Nothing,
            3..=5 => ShutdownAction::Idle,
            _ => ShutdownAction::All,
        };
        let mut policy = self.policy.clone();
        policy.shutdown = Some(action);
        self.set_policy(policy);
        let delay = self.range(SECOND, 3 * MINUTE);
        let run = self.controller.run;
        self.after(delay, move |world| {
            if let Some(doors) = world.controller.doors.as_ref().filter(|_| world.controller.run == run) {
                doors.stop.notify_one();
            }
        });
    }

    fn lose_lease(&mut self) {
        self.set_lease(false);
        let lasts = self.range(2 * SECOND, 2 * MINUTE);
        self.after(lasts, |world| world.set_lease(true));
    }

    pub(crate) fn set_lease(&mut self, held: bool) {
        if self.controller.lease && !held {
            self.controller.lease_lost_at = self.now;
        }
        self.controller.lease = held;
        if let Some(doors) = &self.controller.doors {
            doors.lease.send_replace(held);
        }
    }
}
