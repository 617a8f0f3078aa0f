//! The world: what is so, whatever the controller believes. Events on a heap, virtual milliseconds.

pub(crate) mod agent;
pub(crate) mod calls;
pub(crate) mod clearml;
pub(crate) mod cloud;
pub(crate) mod judge;
pub(crate) mod link;
pub(crate) mod luck;
pub(crate) mod machine;
pub(crate) mod notes;
pub(crate) mod sidecar;
pub(crate) mod table;

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use planner::{Policy, Time};
use tokio::sync::{Notify, watch};

use self::calls::CrashPoint;
use self::clearml::Server;
use self::cloud::Region;
use self::judge::Judge;
use self::machine::Machine;
use self::notes::Notes;
use self::table::Table;
use crate::rng::Rng;
use crate::scenario::Scenario;

/// The world's beginning by the right clock, milliseconds since the Unix epoch.
pub(crate) const BASE: u64 = 1_800_000_000_000;

type Act = Box<dyn FnOnce(&mut World) + Send>;

/// Something that happens at an instant.
struct Event {
    at: u64,
    number: u64,
    act: Act,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The controller's process, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    /// Counts its lives; 0 before the first.
    pub(crate) run: u64,
    pub(crate) up: bool,
    pub(crate) epoch: u64,
    /// How much its clock is ahead of the right one.
    pub(crate) offset: i64,
    pub(crate) began: u64,
    pub(crate) journal_is_new: bool,
    /// It stands still until then.
    pub(crate) hung_until: u64,
    pub(crate) lease: bool,
    pub(crate) lease_lost_at: u64,
    /// It is to die here and now.
    pub(crate) crash: bool,
    /// It is to be started.
    pub(crate) start: bool,
    pub(crate) doors: Option<Doors>,
    pub(crate) crash_points: Vec<CrashPoint>,
    /// Its lines to ClearML and to EC2 are down until then.
    pub(crate) no_clearml_until: u64,
    pub(crate) no_cloud_until: u64,
}

/// The ways into its process.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) policy: watch::Sender<Arc<Policy>>,
    pub(crate) lease: watch::Sender<bool>,
    pub(crate) stop: Arc<Notify>,
    /// Kept, so that nobody takes the pace for withdrawn.
    pub(crate) _pace: watch::Sender<engine::Intervals>,
}

/// What is so.
pub(crate) struct World {
    pub(crate) now: u64,
    clock: Arc<AtomicU64>,
    pub(crate) rng: Rng,
    pub(crate) scenario: Scenario,
    heap: BinaryHeap<Event>,
    events: u64,
    pub(crate) quiet: bool,
    pub(crate) controller: Controller,
    /// The policy in force.
    pub(crate) policy: Policy,
    /// Policies that were in force until lately, with the end of each.
    pub(crate) policies: Vec<(u64, Policy)>,
    pub(crate) server: Server,
    pub(crate) region: Region,
    pub(crate) machines: Vec<Machine>,
    pub(crate) table: Table,
    pub(crate) notes: Notes,
    pub(crate) judge: Judge,
    pub(crate) sessions_changed: Arc<Notify>,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(mut rng: Rng, scenario: Scenario, trace: bool) -> Self {
        let policy = scenario.policy.clone();
        let rng = rng.fork();
        Self {
            now: 0,
            clock: Arc::default(),
            rng,
            heap: BinaryHeap::new(),
            events: 0,
            quiet: false,
            controller: Controller::default(),
            policies: Vec::new(),
            policy,
            server: Server::default(),
            region: Region::default(),
            machines: Vec::new(),
            table: Table::default(),
            notes: Notes::default(),
            judge: Judge::default(),
            sessions_changed: Arc::default(),
            scenario,
            trace,
        }
    }

    /// A view of the clock that needs no lock.
    pub(crate) fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.clock)
    }

    /// Has it done so many milliseconds from now.
    pub(crate) fn after(&mut self, delay: u64, act: impl FnOnce(&mut World) + Send + 'static) {
        self.events += 1;
        self.heap.push(Event { at: self.now + delay, number: self.events, act: Box::new(act) });
    }

    /// Goes on to the next event and lets it happen; false if there is none before `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        if self.heap.peek().is_none_or(|event| event.at > until) {
            self.set_now(until);
            return false;
        }
        let Some(event) = self.heap.pop() else { return false };
        self.set_now(event.at);
        (event.act)(self);
        true
    }

    fn set_now(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.clock.store(self.now, Ordering::Relaxed);
    }

    /// By the controller's clock.
    pub(crate) fn controller_time(&self) -> Time {
        Time((BASE + self.now).saturating_add_signed(self.controller.offset))
    }

    /// Chances that hold in the random phase alone.
    pub(crate) fn strikes(&mut self, chance: impl Fn(&crate::scenario::Luck) -> f64) -> bool {
        let chance = if self.quiet { 0.0 } else { chance(&self.scenario.luck) };
        self.rng.chance(chance)
    }

    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        self.rng.range(low, high)
    }

    /// A line of the seed's story.
    #[allow(clippy::print_stdout, reason = "the story of one seed, asked for by an option")]
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if self.trace {
            let (minute, second) = (self.now / 60_000, self.now / 1000 % 60);
            println!("{minute:02}:{second:02}.{:03} {}", self.now % 1000, line());
        }
    }
}
