//! Time: leases, heartbeats, and the reasons for which a machine ends itself.

use std::time::Duration;

use super::types::{
    Agent, AgentReport, Answer, Boot, Effect, Event, Order, OrderKind, PowerOff, Reading, Report, Saved,
    Standing,
};

/// How long a renewal lets the agent poll.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often the lease is renewed.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// How long a retired machine waits to be terminated before it ends itself.
pub const RETIRED_GRACE: Duration = Duration::from_secs(60);
/// How much longer than the idle limit a machine waits for a silent controller.
pub const SILENT_GRACE: Duration = Duration::from_secs(60);

/// So long before AWS takes the machine, what still runs there is killed, so that its last word can be written.
pub const KILL_BEFORE: Duration = Duration::from_secs(25);
/// A machine that AWS has not taken by then ends itself.
pub const TAKEN_GRACE: Duration = Duration::from_secs(60);

/// A machine without a controller takes tasks for no longer than this. The controller waits for at least ten
/// minutes before it ends one that is silent, and must find its gate closed then.
const DETACHED_SERVICE: Duration = Duration::from_secs(9 * 60);
/// A renewal that is due so soon is done with whatever else is.
const RENEWAL_SLACK: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_secs(5);
const AGENT_ENDED_GRACE: Duration = Duration::from_secs(10);
const BOOT_FAILED_GRACE: Duration = Duration::from_secs(60);
const POWER_OFF_RETRY: Duration = Duration::from_secs(15);
const CLOSE_RETRY: Duration = Duration::from_secs(30);
/// Before the first Welcome has said another.
const DEFAULT_SILENT_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long a boot may take while the controller is silent: nobody else would end one that hangs.
const BOOT_LIMIT: Duration = Duration::from_secs(30 * 60);
/// An agent whose last poll failed holds nothing itself, but the next poll should say so: it gets this much longer.
const UNKNOWN_GRACE: Duration = Duration::from_secs(8 * 60);
/// A poll that lasts shorter is not worth a report.
const POLL_SHOWS_AFTER: Duration = Duration::from_millis(150);

/// The sidecar's decisions. See the module.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) saved: Saved,
    pub(super) agents: Vec<Agent>,
    pub(super) closing: Option<Closing>,
    /// A retirement that is being written down.
    pub(super) retiring: Option<Order>,
    /// The kind that goes with the newest number, if this process saw it.
    pub(super) newest_kind: Option<OrderKind>,
    pub(super) last_answer: Option<Answer>,
    pub(super) next_renewal: Duration,
    polls_seen: Vec<Option<Duration>>,
    boot: Boot,
    link: Link,
    next_own_close: Duration,
    disarming: bool,
    retired_at: Option<Duration>,
    boot_failed_at: Option<Duration>,
    agent_ended_at: Option<Duration>,
    silent_end: bool,
    next_power_off: Duration,
    notice: Option<Noticed>,
    shown: Option<Shown>,
}

/// AWS's notice, and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noticed {
    ends_at: Duration,
    killing: bool,
    killed: bool,
}

/// Why the gates are being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    Ordered(Order),
    /// The task ended behind which they were closed: whether there is none any more is told under the lock.
    Finished,
    /// To end the machine under a silent controller.
    Own,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Attached { next_heartbeat: Duration },
    Detached { since: Duration },
}

/// What a report must tell at once when it changes: durations are not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    boot: Boot,
    agents: Vec<Agent>,
    standing: Standing,
    number: (u64, u64),
    notice: Option<Noticed>,
}

impl Machine {
    /// A machine that starts now, detached, with what an earlier run of it saved.
    pub fn new(now: Duration, saved: Saved) -> Self {
        let retired_at = (saved.standing == Standing::Retired).then_some(now);
        Self {
            saved,
            agents: Vec::new(),
            closing: None,
            retiring: None,
            newest_kind: None,
            last_answer: None,
            next_renewal: now,
            polls_seen: Vec::new(),
            boot: Boot::Waiting,
            link: Link::Detached { since: now },
            next_own_close: now,
            disarming: false,
            retired_at,
            boot_failed_at: None,
            agent_ended_at: None,
            silent_end: false,
            next_power_off: now,
            notice: None,
            shown: None,
        }
    }

    /// How orders left the gate.
    pub fn standing(&self) -> Standing {
        self.saved.standing
    }

    /// Takes an event; gives what is to be done about it, in order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Agents(agents) => self.see(now, agents),
            Event::Boot(boot) => {
                if matches!(boot, Boot::Failed(_)) {
                    self.boot_failed_at.get_or_insert(now);
                }
                self.boot = boot;
            }
            Event::Attached { epoch, silent_idle_limit, heartbeat_in } => {
                self.attach(now, epoch, silent_idle_limit, heartbeat_in, &mut effects);
            }
            Event::Detached => {
                if matches!(self.link, Link::Attached { .. }) {
                    self.link = Link::Detached { since: now };
                }
            }
            Event::Order(order) => self.obey(now, order, &mut effects),
            Event::Closed(readings) => {
                for (agent, reading) in self.agents.iter_mut().zip(readings) {
                    agent.reading = reading;
                }
                self.closed(now, &mut effects);
            }
            Event::NotClosed => self.not_closed(now, &mut effects),
            Event::Saved(durably) => self.retirement_saved(now, durably, &mut effects),
            Event::Disarmed => {
                self.saved.disarmed = true;
                effects.push(Effect::Save(self.saved.clone()));
            }
            Event::Notice(ends_at) => {
                let before = self.notice;
                let (killing, killed) = before.map_or((false, false), |it| (it.killing, it.killed));
                self.notice = Some(Noticed { ends_at, killing, killed });
                effects.push(Effect::Shut);
            }
            Event::Killed => {
                if let Some(notice) = &mut self.notice {
                    notice.killed = true;
                }
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When `Tick` is due at the latest, if nothing happens before.
    pub fn wake_at(&self, now: Duration) -> Duration {
        let heartbeat = match self.link {
            Link::Attached { next_heartbeat } => Some(next_heartbeat),
            Link::Detached { .. } => None,
        };
        let renewal = self.may_renew(now).then_some(self.next_renewal).map(|due| match heartbeat {
            // One waking instead of two.
            Some(beat) if beat > due && beat < due + RENEWAL => beat,
            Some(_) | None => due,
        });
        let end = self.end_at().map(|(at, _)| at.max(self.next_power_off));
        let own_close = self.silent_end_at().map(|at| at.max(self.next_own_close));
        let own_close = own_close.filter(|_| self.closing.is_none() && !self.silent_end);
        let finished = self.has_finished().then_some(self.next_own_close);
        let polls =
            self.polls_seen.iter().flatten().map(|seen| *seen + POLL_SHOWS_AFTER).filter(|at| *at > now);
        let kill = self.kill_at();
        [heartbeat, renewal, end, own_close, finished, kill]
            .into_iter()
            .flatten()
            .chain(polls)
            .chain([now + Duration::from_secs(60)])
            .min()
            .unwrap_or(now)
            .max(now)
    }

    /// The machine's part of a report, as of now.
    pub fn report(&self, now: Duration) -> Report {
        let agents = self.shown_agents(now).into_iter().map(|agent| {
            let lasted = agent.reading.since().map_or(Duration::ZERO, |since| now.saturating_sub(since));
            AgentReport { agent, lasted }
        });
        Report {
            boot: self.boot.clone(),
            agents: agents.collect(),
            standing: self.saved.standing,
            epoch: self.saved.epoch,
            generation: self.saved.generation,
            notice: self.notice.map(|notice| (notice.ends_at.saturating_sub(now), notice.killed)),
        }
    }

    fn attach(
        &mut self,
        now: Duration,
        epoch: u64,
        limit: Duration,
        heartbeat_in: Duration,
        fx: &mut Vec<Effect>,
    ) {
        self.link = Link::Attached { next_heartbeat: now + heartbeat_in };
        self.shown = None;
        if self.closing == Some(Closing::Own) {
            self.closing = None;
            fx.push(Effect::StopClosing);
        }
        let before = self.saved.clone();
        if epoch > self.saved.epoch {
            self.saved.epoch = epoch;
            self.saved.generation = 0;
            self.newest_kind = None;
        }
        self.saved.silent_idle_limit = Some(limit);
        if self.saved != before {
            fx.push(Effect::Save(self.saved.clone()));
        }
    }

    fn see(&mut self, now: Duration, agents: Vec<Agent>) {
        self.polls_seen.resize(agents.len(), None);
        for (seen, agent) in self.polls_seen.iter_mut().zip(&agents) {
            match agent.reading {
                Reading::Polling { .. } => {
                    seen.get_or_insert(now);
                }
                Reading::Absent | Reading::Idle { .. } | Reading::Busy { .. } | Reading::Unknown { .. } => {
                    *seen = None;
                }
            }
        }
        self.agents = agents;
        let ended = self.agents.iter().any(|agent| !agent.alive && agent.reading != Reading::Absent);
        self.agent_ended_at = ended.then_some(self.agent_ended_at.unwrap_or(now));
    }

    pub(super) fn set_standing(&mut self, now: Duration, standing: Standing, fx: &mut Vec<Effect>) {
        self.saved.standing = standing;
        if standing == Standing::Retired {
            self.retired_at.get_or_insert(now);
        }
        fx.push(Effect::Save(self.saved.clone()));
    }

    /// It was written down before it is said.
    pub(super) fn retired(&mut self, now: Duration) {
        self.saved.standing = Standing::Retired;
        self.retired_at.get_or_insert(now);
    }

    /// The gates are closed for the machine's own end: is there still a reason to?
    pub(super) fn end_if_silent(&mut self, now: Duration, fx: &mut Vec<Effect>) {
        if self.silent_end_at().is_some_and(|at| at <= now) {
            self.silent_end = true;
            self.set_standing(now, Standing::Retired, fx);
        } else {
            self.put_off_own_close(now);
        }
    }

    pub(super) fn put_off_own_close(&mut self, now: Duration) {
        self.next_own_close = now + CLOSE_RETRY;
    }

    /// What time alone brings about.
    fn settle(&mut self, now: Duration, fx: &mut Vec<Effect>) {
        let received = self.boot != Boot::Waiting;
        // Once the boot script is here, this process watches over the machine's end, with or without a controller;
        // a shutdown that stays armed would kill a task.
        if received && !self.saved.disarmed && !self.disarming {
            self.disarming = true;
            fx.push(Effect::Disarm);
        }
        if self.closing.is_none()
            && !self.silent_end
            && now >= self.next_own_close
            && self.silent_end_at().is_some_and(|at| at <= now)
        {
            self.closing = Some(Closing::Own);
            fx.push(Effect::CloseGates);
        }
        if self.has_finished() && now >= self.next_own_close {
            self.closing = Some(Closing::Finished);
            fx.push(Effect::CloseGates);
        }
        if self.may_renew(now) && now + RENEWAL_SLACK >= self.next_renewal {
            self.next_renewal = now + RENEWAL;
            fx.push(Effect::RenewLeases { until: now + LEASE });
        }
        if self.kill_at().is_some_and(|at| at <= now)
            && let Some(notice) = &mut self.notice
        {
            notice.killing = true;
            fx.push(Effect::Kill);
        }
        if let Some((at, reason)) = self.end_at()
            && now >= at.max(self.next_power_off)
        {
            self.next_power_off = now + POWER_OFF_RETRY;
            fx.push(Effect::PowerOff(reason));
        }
        self.report_if_due(now, fx);
    }

    fn report_if_due(&mut self, now: Duration, fx: &mut Vec<Effect>) {
        let Link::Attached { next_heartbeat } = self.link else { return };
        let mut shown = Shown {
            boot: self.boot.clone(),
            agents: self.shown_agents(now),
            standing: self.saved.standing,
            number: (self.saved.epoch, self.saved.generation),
            notice: self.notice,
        };
        for agent in &mut shown.agents {
            // An idle clock that was set right is news for a heartbeat.
            if let Reading::Idle { since } | Reading::Polling { since } = &mut agent.reading {
                *since = Duration::ZERO;
            }
        }
        let changed = self.shown.as_ref() != Some(&shown);
        if now >= next_heartbeat {
            // Keeps its phase, unless it was late by more than a beat.
            let next = (next_heartbeat + HEARTBEAT).max(now + HEARTBEAT / 2);
            self.link = Link::Attached { next_heartbeat: next };
        } else if !changed {
            return;
        }
        self.shown = Some(shown);
        fx.push(Effect::Report);
    }

    fn shown_agents(&self, now: Duration) -> Vec<Agent> {
        let seen = self.polls_seen.iter().copied().chain(std::iter::repeat(None));
        self.agents
            .iter()
            .zip(seen)
            .map(|(agent, seen)| match agent.reading {
                Reading::Polling { since } if seen.is_none_or(|seen| now < seen + POLL_SHOWS_AFTER) => {
                    Agent { reading: Reading::Idle { since }, ..agent.clone() }
                }
                Reading::Absent
                | Reading::Idle { .. }
                | Reading::Polling { .. }
                | Reading::Busy { .. }
                | Reading::Unknown { .. } => agent.clone(),
            })
            .collect()
    }

    /// The tasks seem to have ended behind which the gates were closed.
    fn has_finished(&self) -> bool {
        let busy = self.agents.iter().any(|agent| matches!(agent.reading, Reading::Busy { .. }));
        self.saved.standing == Standing::Finishing
            && self.closing.is_none()
            && !self.silent_end
            && !self.agents.is_empty()
            && !busy
    }

    fn may_renew(&self, now: Duration) -> bool {
        let ending = self.silent_end || self.boot_failed_at.is_some() || self.notice.is_some();
        (self.saved.standing == Standing::Open || fault!("no-gate"))
            && self.retiring.is_none()
            && !ending
            && match self.link {
                Link::Attached { .. } => true,
                // Behind the task that it holds, too: by the time at which the controller gives up a silent
                // machine, none of its agents may take another.
                Link::Detached { since } => now < since + self.silent_limit().min(DETACHED_SERVICE),
            }
    }

    /// When what still runs here is killed. An idle machine has nothing to be killed.
    fn kill_at(&self) -> Option<Duration> {
        let notice = self.notice.filter(|notice| !notice.killing)?;
        let works = |agent: &Agent| match agent.reading {
            Reading::Busy { .. } | Reading::Unknown { .. } | Reading::Polling { .. } => true,
            Reading::Absent | Reading::Idle { .. } => false,
        };
        self.agents.iter().any(works).then(|| notice.ends_at.saturating_sub(KILL_BEFORE))
    }

    fn silent_limit(&self) -> Duration {
        self.saved.silent_idle_limit.unwrap_or(DEFAULT_SILENT_LIMIT)
    }

    /// When the machine is to end, and why, if nothing changes.
    fn end_at(&self) -> Option<(Duration, PowerOff)> {
        if self.silent_end {
            return Some((Duration::ZERO, PowerOff::Silent));
        }
        let may_hold = self.agents.iter().any(|agent| {
            agent.alive
                && match agent.reading {
                    Reading::Absent | Reading::Idle { .. } => false,
                    Reading::Polling { .. } | Reading::Busy { .. } | Reading::Unknown { .. } => true,
                }
        });
        let retired = self.retired_at.map(|at| (at + RETIRED_GRACE, PowerOff::Retired));
        let failed = self.boot_failed_at.filter(|_| !may_hold);
        let failed = failed.map(|at| (at + BOOT_FAILED_GRACE, PowerOff::BootFailed));
        let ended = self.agent_ended_at.map(|at| (at + AGENT_ENDED_GRACE, PowerOff::AgentEnded));
        let taken = self.notice.map(|notice| (notice.ends_at + TAKEN_GRACE, PowerOff::Interrupted));
        [retired, failed, ended, taken].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the machine may end itself under a silent controller; never while a task is held.
    fn silent_end_at(&self) -> Option<Duration> {
        let Link::Detached { since: detached } = self.link else { return None };
        let limit = self.silent_limit();
        let absent = [Agent::ABSENT];
        let agents = if self.agents.is_empty() { &absent[..] } else { &self.agents[..] };
        let mut at = detached;
        for agent in agents {
            let free_at = match agent.reading {
                Reading::Absent => detached + limit.max(BOOT_LIMIT),
                Reading::Idle { since } | Reading::Polling { since } => since + limit,
                Reading::Unknown { since } => since + limit + UNKNOWN_GRACE,
                Reading::Busy { since, .. } if fault!("silent-end-while-busy") => since + limit,
                Reading::Busy { .. } => return None,
            };
            at = at.max(free_at);
        }
        Some(at + SILENT_GRACE)
    }
}
