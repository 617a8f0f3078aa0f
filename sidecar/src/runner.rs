//! Carries the state machine's effects out and brings it its events: one task, one file of state.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use proto::v1::{FromSidecar, Hello, Welcome, hello::Credential};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::agent::{Boot, Effect, Event, Machine, Saved, Standing};
use crate::agents::Agents;
use crate::boot::Script;
use crate::config::{Config, Layout};
use crate::link::{self, Dialer, Incoming, keep};
use crate::probe::{self, Gpu, Gpus, Imds, Proc};
use crate::watch::Watch;
use crate::wire::{self, Surroundings};
use crate::{PROTOCOL_VERSION, VERSION, gate, log, power, saved, spot};

const CLOSE_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_RETRY: Duration = Duration::from_millis(20);
const DISK_EVERY: Duration = Duration::from_secs(60);
/// All processes are looked at so often, at most.
const WORK_EVERY: Duration = Duration::from_secs(15);
const GPUS_EVERY: Duration = Duration::from_secs(15);
/// The driver may be installed, or start, while the machine boots.
const GPU_TRIES: u32 = 10;
const HEARTBEAT: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(30);
const SHORTEST_SILENT_LIMIT: Duration = Duration::from_secs(1);
const LONGEST_SILENT_LIMIT: Duration = Duration::from_secs(365 * 86_400);
/// Phases that wait for a session.
const UNSENT: usize = 64;

/// Runs until the machine ends.
///
/// # Errors
/// The machine's own interfaces fail.
pub(crate) async fn run(config: Config) -> io::Result<()> {
    std::fs::create_dir_all(config.layout.home())?;
    let watch = Watch::new()?;
    watch.add_appended(&config.layout.home())?;
    let (ours, mut incoming) = mpsc::channel(16);
    let (done, mut disarmed) = mpsc::channel(1);
    let (gpus_seen, gpus) = watch::channel(Vec::new());
    let mut runner = Runner::new(config.layout.clone(), done, gpus);
    let (spot_seen, mut spot) = mpsc::channel(1);
    runner.begin(&watch).await;
    tokio::spawn(attach(config, ours));
    tokio::spawn(watch_gpus(gpus_seen));
    // Kept, so that its end, on a machine that is never taken, is no event.
    let _spot_seen = spot_seen.clone();
    tokio::spawn(spot::watch(spot_seen));

    loop {
        let now = probe::now();
        let wait = runner.wake_at(now).saturating_sub(now);
        let event = tokio::select! {
            changed = watch.changed() => {
                if changed?.boot {
                    runner.follow_boot();
                }
                None
            }
            message = incoming.recv() => match message {
                Some(message) => runner.receive(message, &watch).await,
                None => return Err(io::Error::other("the link has ended")),
            },
            Some(()) = disarmed.recv() => Some(Event::Disarmed),
            Some(ends_at) = spot.recv() => Some(Event::Notice(ends_at)),
            Some(whole) = runner.killed.recv() => {
                if !whole {
                    log::warn(format_args!("some of what ran for a task could not be killed"));
                }
                // What was seen before is no longer so.
                runner.at_work.0 = Duration::ZERO;
                Some(Event::Killed)
            }
            () = runner.agents.ended() => None,
            () = sleep(wait) => Some(Event::Tick),
        };
        if runner.layout.is_gone() {
            return Err(io::Error::other("the machine's directory is gone"));
        }
        runner.look();
        if let Some(event) = event {
            runner.handle(event);
        }
        runner.try_close();
    }
}

struct Runner {
    layout: Layout,
    machine: Machine,
    agents: Agents,
    script: Script,
    worker_ids: Vec<String>,
    sender: Option<mpsc::Sender<FromSidecar>>,
    sequence: u64,
    /// Until when the gates' locks are tried for.
    closing: Option<Duration>,
    phases_seen: usize,
    unsent: VecDeque<FromSidecar>,
    done: mpsc::Sender<()>,
    gpus: watch::Receiver<Vec<Gpu>>,
    free_disk: (Duration, u64),
    /// Tasks of which processes were seen, and when.
    at_work: (Duration, BTreeSet<String>),
    killing: mpsc::Sender<bool>,
    killed: mpsc::Receiver<bool>,
}

impl Runner {
    fn new(layout: Layout, done: mpsc::Sender<()>, gpus: watch::Receiver<Vec<Gpu>>) -> Self {
        let saved = saved::read(&layout.standing()).unwrap_or_else(|error| {
            // Closed, but not for good: the controller decides.
            log::warn(format_args!("cannot read {}: {error}", layout.standing().display()));
            Saved { standing: Standing::Drained, ..Saved::default() }
        });
        let script = Script::new(layout.clone());
        let (killing, killed) = mpsc::channel(1);
        Self {
            at_work: (Duration::ZERO, BTreeSet::new()),
            killing,
            killed,
            machine: Machine::new(probe::now(), saved),
            agents: Agents::default(),
            worker_ids: Vec::new(),
            sender: None,
            sequence: 0,
            closing: None,
            phases_seen: script.phases().len(),
            unsent: VecDeque::new(),
            done,
            gpus,
            free_disk: (Duration::ZERO, 0),
            script,
            layout,
        }
    }

    /// Takes up what an earlier life of the sidecar left.
    async fn begin(&mut self, watch: &Watch) {
        if self.script.is_received() {
            self.start_script(watch).await;
        }
        self.look();
    }

    fn wake_at(&self, now: Duration) -> Duration {
        let machine = self.machine.wake_at(now);
        if self.closing.is_some() { machine.min(now + CLOSE_RETRY) } else { machine }
    }

    /// Reads the gates.
    fn look(&mut self) {
        let agents = self.agents.read(probe::now());
        self.handle(Event::Agents(agents));
    }

    fn follow_boot(&mut self) {
        let phases = self.script.phases();
        for phase in phases.iter().skip(self.phases_seen) {
            let tail = if phase.failed { self.script.log_tail() } else { String::new() };
            log::info(format_args!("boot phase {}{}", phase.name, if phase.failed { " failed" } else { "" }));
            self.send_or_keep(wire::boot_log(phase.name.clone(), phase.failed, tail));
        }
        if phases.len() > self.phases_seen {
            self.phases_seen = phases.len();
            self.handle(Event::Boot(self.script.boot()));
        }
    }

    async fn receive(&mut self, message: Incoming, watch: &Watch) -> Option<Event> {
        match message {
            Incoming::Attached { welcome, sender } => {
                self.welcome(*welcome, sender, watch).await;
                None
            }
            Incoming::Order(order) => {
                let known = wire::order(order);
                match known {
                    Some(order) => log::info(format_args!("order {order}")),
                    None => log::warn(format_args!("an order of an unknown kind is left alone")),
                }
                known.map(Event::Order)
            }
            Incoming::Detached => {
                self.sender = None;
                Some(Event::Detached)
            }
        }
    }

    async fn welcome(&mut self, welcome: Welcome, sender: mpsc::Sender<FromSidecar>, watch: &Watch) {
        let Welcome { instance_token, boot_script, silent_idle_limit_ms, epoch } = welcome;
        if !instance_token.is_empty()
            && let Err(error) = gate::replace(&self.layout.token(), &instance_token, true)
        {
            log::warn(format_args!("cannot keep the instance's token: {error}"));
        }
        self.sender = Some(sender);
        self.sequence = 0;
        let limit = match silent_idle_limit_ms {
            // As good as not said.
            0 => Duration::from_secs(15 * 60),
            limit => Duration::from_millis(limit).clamp(SHORTEST_SILENT_LIMIT, LONGEST_SILENT_LIMIT),
        };
        let heartbeat_in = link::evenly_below(HEARTBEAT);
        self.handle(Event::Attached { epoch, silent_idle_limit: limit, heartbeat_in });
        while let Some(message) = self.unsent.pop_front() {
            self.send(message);
        }
        if let Some(script) = boot_script
            && !self.script.is_received()
        {
            match self.script.receive(&script) {
                Ok(()) => self.start_script(watch).await,
                Err(error) => self.boot_failed("receive", &error),
            }
        }
    }

    /// Starts the script unless it was, and follows it and the agents that it starts.
    async fn start_script(&mut self, watch: &Watch) {
        self.worker_ids = self.script.worker_ids();
        let opened = self.agents.open(&self.layout, self.worker_ids.len());
        let watched = opened.and_then(|()| watch.add(&self.layout.boot()));
        let watched = watched
            .and_then(|()| self.agents.gates().iter().try_for_each(|gate| watch.add(gate.directory())));
        if let Err(error) = watched {
            // The heartbeat's look still sees them.
            log::warn(format_args!("cannot watch the gates: {error}"));
        }
        self.handle(Event::Boot(self.script.boot()));
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        if let Err(error) = timeout(START_LIMIT, self.script.start()).await.unwrap_or_else(late) {
            self.boot_failed("start", &error);
        }
        self.follow_boot();
    }

    fn boot_failed(&mut self, phase: &str, error: &io::Error) {
        log::warn(format_args!("boot phase {phase} failed: {error}"));
        self.send_or_keep(wire::boot_log(phase.to_owned(), true, error.to_string()));
        self.handle(Event::Boot(Boot::Failed(phase.to_owned())));
    }

    fn handle(&mut self, event: Event) {
        let mut effects = VecDeque::from(self.machine.handle(probe::now(), event));
        while let Some(effect) = effects.pop_front() {
            if let Some(event) = self.carry_out(effect) {
                effects.extend(self.machine.handle(probe::now(), event));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::RenewLeases { until } => self.agents.renew(until),
            Effect::CloseGates => self.closing = Some(probe::now() + CLOSE_LIMIT),
            Effect::StopClosing => self.closing = None,
            Effect::Save(saved) => {
                let written = saved::write(&self.layout.standing(), &saved);
                if let Err(error) = &written {
                    log::warn(format_args!("cannot write {}: {error}", self.layout.standing().display()));
                }
                return Some(Event::Saved(written.is_ok()));
            }
            Effect::Answer(answer) => {
                log::info(format_args!("answer to {}: {:?}", answer.order, answer.outcome));
                self.send(wire::answer(answer));
            }
            Effect::Report => self.report(),
            Effect::Disarm => {
                let (done, layout) = (self.done.clone(), self.layout.clone());
                tokio::spawn(async move {
                    power::disarm(&layout).await;
                    let _ = done.send(()).await;
                });
            }
            Effect::Shut => self.agents.shut(),
            Effect::Kill => {
                log::warn(format_args!(
                    "AWS takes the machine: freezing its agents and killing what they run"
                ));
                let (daemons, tasks) = self.agents.work(probe::now());
                let killing = self.killing.clone();
                tokio::task::spawn_blocking(move || {
                    let whole = Proc::default().kill_work(&daemons, &tasks);
                    // The runner outlives it, unless all ends.
                    let _ = killing.blocking_send(whole);
                });
            }
            Effect::PowerOff(reason) => {
                log::warn(format_args!("powering off: {reason}"));
                if !self.layout.is_gone() {
                    tokio::spawn(power::off());
                }
            }
        }
        None
    }

    /// One try at closing the gates, if that is wanted.
    fn try_close(&mut self) {
        let Some(limit) = self.closing else { return };
        let now = probe::now();
        let event = match self.agents.try_close(now) {
            Ok(Some(readings)) => Event::Closed(readings),
            Ok(None) if now < limit => return,
            Ok(None) => Event::NotClosed,
            Err(error) => {
                log::warn(format_args!("cannot close the gates: {error}"));
                Event::NotClosed
            }
        };
        self.closing = None;
        self.handle(event);
    }

    fn report(&mut self) {
        let now = probe::now();
        if self.free_disk.0.is_zero() || now > self.free_disk.0 + DISK_EVERY {
            self.free_disk = (now, probe::free_disk(&self.layout.home()).unwrap_or(0));
        }
        if self.at_work.0.is_zero() || now > self.at_work.0 + WORK_EVERY {
            self.at_work = (now, Proc::default().tasks());
        }
        self.sequence += 1;
        let message = {
            let gpus = self.gpus.borrow();
            let surroundings = Surroundings {
                sequence: self.sequence,
                worker_ids: &self.worker_ids,
                gpus: &gpus,
                free_disk_bytes: self.free_disk.1,
                at_work: Some(&self.at_work.1),
            };
            wire::report(self.machine.report(now), &surroundings)
        };
        self.send(message);
    }

    fn send(&mut self, message: FromSidecar) {
        if let Some(sender) = &self.sender
            && let Err(error) = sender.try_send(message)
        {
            // A session that does not keep up is none: its end is the way to a better one.
            log::warn(format_args!("cannot send to the controller: {error}"));
            self.sender = None;
        }
    }

    fn send_or_keep(&mut self, message: FromSidecar) {
        if self.sender.is_some() {
            self.send(message);
        } else if self.unsent.len() < UNSENT {
            self.unsent.push_back(message);
        }
    }
}

/// Finds out who this instance is, then holds the session up.
async fn attach(config: Config, incoming: mpsc::Sender<Incoming>) {
    let Config { target, launch_secret, intent, layout } = config;
    let dialer = match Dialer::new(target) {
        Ok(dialer) => dialer,
        Err(error) => return log::warn(format_args!("{}", log::chain(&error))),
    };
    let instance_id = instance_id().await;
    let boot_id = Proc::default().boot_id().unwrap_or_default();
    let script = Script::new(layout.clone());
    let hello = move || {
        let credential = match std::fs::read(layout.token()) {
            Ok(token) if !token.is_empty() => Credential::InstanceToken(token),
            _ => Credential::LaunchSecret(launch_secret.clone()),
        };
        Hello {
            protocol_version: PROTOCOL_VERSION,
            sidecar_version: VERSION.to_owned(),
            instance_id: instance_id.clone(),
            boot_id: boot_id.clone(),
            intent_id: intent.clone(),
            wants_boot_script: !script.is_received(),
            credential: Some(credential),
        }
    };
    keep(dialer, hello, incoming).await;
}

async fn instance_id() -> String {
    let mut pause = Duration::from_millis(200);
    loop {
        let answer = match Imds::from_environment() {
            Ok(imds) => imds.instance_id().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(id) => return id,
            Err(error) => log::warn(format_args!("{}", log::chain(&error))),
        }
        sleep(link::jittered(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// A driver that hangs must hold nothing else up: it is asked on a thread of its own, once at a time.
async fn watch_gpus(seen: watch::Sender<Vec<Gpu>>) {
    let mut gpus = None;
    for _ in 0..GPU_TRIES {
        gpus = tokio::task::spawn_blocking(Gpus::open).await.ok().flatten();
        if gpus.is_some() {
            break;
        }
        sleep(GPUS_EVERY * 4).await;
    }
    let Some(mut gpus) = gpus else { return };
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let now = gpus.read();
            (gpus, now)
        });
        let Ok((back, now)) = read.await else { return };
        gpus = back;
        seen.send_replace(now);
        sleep(GPUS_EVERY).await;
    }
}
