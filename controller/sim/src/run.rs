//! One seed: the engine's own future, polled by hand, against the world; lives, crashes, quiet, verdict.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use engine::ports::Launch;
use engine::{Engine, Intervals, Published, Start};
use planner::{ClientToken, Market, Offering, Placement};
use tokio::sync::{Notify, watch};

use crate::ports::Ports;
use crate::rng::Rng;
use crate::scenario::{MINUTE, SECOND, Scenario};
use crate::world::judge::Broken;
use crate::world::{Doors, World};

/// The quiet phase lasts no longer.
const QUIET_LIMIT: u64 = 300 * MINUTE;
/// When all is over, so long passes until the books are read.
const AFTERWARDS: u64 = 100 * SECOND;

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Orders to drain that came to a sidecar.
    pub drains: u64,
    /// Instances launched.
    pub launches: u64,
    /// What must not be.
    pub broken: Vec<Broken>,
}

/// Runs one seed; `trace` prints its story.
pub fn run_seed(seed: u64, trace: bool) -> Verdict {
    let mut rng = Rng::new(seed);
    let scenario = Scenario::draw(&mut rng);
    if trace {
        World::new(rng.clone(), scenario.clone(), true).tell(|| format!("{scenario:#?}"));
    }
    let world = Arc::new(Mutex::new(World::new(rng, scenario, trace)));
    let mut simulation = Simulation { world, run: None, woken: Arc::default() };
    simulation.live();
    let world = simulation.world();
    let broken = world.judge.broken.clone();
    Verdict { drains: world.judge.drains, launches: world.judge.launches, broken }
}

struct Woken(AtomicBool);

impl Default for Woken {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Published_ = Arc<Mutex<Option<watch::Receiver<Arc<Published>>>>>;

/// A run of the controller.
struct Run {
    engine: Pin<Box<dyn Future<Output = ()> + Send>>,
    published: Published_,
}

struct Simulation {
    world: Arc<Mutex<World>>,
    run: Option<Run>,
    woken: Arc<Woken>,
}

impl Simulation {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&mut self) {
        let quiet_at = {
            let mut world = self.world();
            for number in 0..world.range(0, 4) {
                let foreign = foreign(number);
                world.add_foreign(&foreign);
            }
            world.set_course();
            world.controller.start = true;
            world.scenario.quiet_at
        };
        while self.step(quiet_at) {}
        self.be_quiet();
        let limit = quiet_at + QUIET_LIMIT;
        let mut over_at = None;
        loop {
            let until = self.world().now + 5 * SECOND;
            while self.step(until) {}
            let mut world = self.world();
            world.judge_bounds();
            if !world.is_over() {
                over_at = None;
            }
            let since = world.now;
            let over = world.is_over().then(|| *over_at.get_or_insert(since));
            if over.is_some_and(|over| since >= over + AFTERWARDS) || since >= limit {
                world.judge_end_of_all();
                break;
            }
        }
        self.judge_rest();
    }

    /// Lets the engine go on as far as it can, then the next event happen. False if there is none before `until`.
    fn step(&mut self, until: u64) -> bool {
        let hung = {
            let world = self.world();
            world.now < world.controller.hung_until
        };
        if !hung {
            self.poll();
        }
        self.follow();
        let mut world = self.world();
        let until_now = if hung { until.min(world.controller.hung_until) } else { until };
        let went_on = world.step(until_now);
        let more = went_on || world.now < until;
        drop(world);
        self.follow();
        more
    }

    /// The controller's process dies or starts.
    fn follow(&mut self) {
        let (crash, start) = {
            let mut world = self.world();
            (std::mem::take(&mut world.controller.crash), std::mem::take(&mut world.controller.start))
        };
        if crash && self.run.is_some() {
            self.end("dies");
        }
        if start && self.run.is_none() {
            self.start();
        }
    }

    fn poll(&mut self) {
        while self.run.is_some() && self.woken.0.swap(false, Ordering::Relaxed) {
            let waker = Waker::from(Arc::clone(&self.woken));
            let Some(run) = &mut self.run else { return };
            if run.engine.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                return self.end("ends");
            }
            let published = run.published.lock().unwrap_or_else(PoisonError::into_inner);
            let news = published.as_ref().filter(|seen| seen.has_changed().unwrap_or(false));
            let violation = news.and_then(|seen| seen.borrow().violation.clone());
            drop(published);
            if let Some(violation) = violation {
                self.world().broken("plan refused", violation.to_string());
            }
            if self.world().controller.crash {
                return;
            }
        }
    }

    fn end(&mut self, how: &str) {
        self.run = None;
        let mut world = self.world();
        world.tell(|| format!("controller: {how}"));
        world.controller.up = false;
        world.controller.doors = None;
        world.cut_all();
        if world.policy.shutdown.is_some() {
            let mut policy = world.policy.clone();
            policy.shutdown = None;
            world.set_policy(policy);
        }
        if world.quiet && world.scenario.dies_for_good {
            return;
        }
        let pause = match world.range(0, 10) {
            0 => world.range(MINUTE, 10 * MINUTE),
            1 | 2 => world.range(20 * SECOND, MINUTE),
            _ => world.range(300, 20 * SECOND),
        };
        world.after(pause, |world| {
            let stays = world.controller.up || (world.quiet && world.scenario.dies_for_good);
            world.controller.start = !stays;
        });
    }

    fn start(&mut self) {
        let mut world = self.world();
        let skew = world.scenario.luck.skew;
        let away = |world: &mut World| {
            let away = i64::try_from(world.range(0, 2 * skew + 1)).unwrap_or(0);
            away - i64::try_from(skew).unwrap_or(0)
        };
        world.controller.offset = away(&mut world);
        if world.controller.run == 0 {
            world.region.offset = away(&mut world);
        }
        let now = world.now;
        if world.controller.run > 0 && skew == 0 && world.strikes(|luck| luck.journal_lost) {
            world.tell(|| "controller: its journal is lost".to_owned());
            world.notes = crate::world::notes::Notes::default();
        }
        let born = *world.notes.born_at.get_or_insert(now);
        world.controller.journal_is_new = world.controller.run > 0 && now < born + MINUTE;
        // Nothing was ever launched by a fleet that begins: the minute would only pass.
        if world.controller.run == 0 {
            world.notes.born_at = Some(0);
        }
        world.controller.run += 1;
        world.controller.up = true;
        world.controller.lease = true;
        world.controller.began = now;
        let time = world.controller_time();
        let epoch = world.notes.next_epoch(time);
        let next_intent = world.notes.next_intent();
        world.controller.epoch = epoch;
        world.judge_run();
        let (policy_tx, policy) = watch::channel(Arc::new(world.policy.clone()));
        let (lease_tx, lease) = watch::channel(true);
        let (pace_tx, intervals) = watch::channel(Intervals {
            queues: Duration::from_secs(5),
            workers: Duration::from_secs(10),
            cloud: Duration::from_secs(30),
        });
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        world.controller.doors = Some(Doors { policy: policy_tx, lease: lease_tx, stop, _pace: pace_tx });
        let journal_is_new = world.controller.journal_is_new;
        let run = world.controller.run;
        world.tell(|| format!("controller: run {run} begins, epoch {epoch}"));
        drop(world);
        let ports = Ports::new(&self.world);
        let (operator_tx, operator) = watch::channel(Arc::new(planner::Operator::default()));
        let start = Start { policy, operator, intervals, epoch, next_intent, journal_is_new, lease };
        let published = Published_::default();
        let seen = Arc::clone(&published);
        let engine = Box::pin(async move {
            let ports = engine::Ports {
                clearml: Arc::new(ports.clone()),
                cloud: Arc::new(ports.clone()),
                sessions: Arc::new(ports.clone()),
                journal: Arc::new(ports.clone()),
                clock: ports,
            };
            let Ok(engine) = Engine::new(ports, start).await else { return };
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine.published());
            engine.run(async move { stopped.notified().await }).await;
            drop(operator_tx);
        });
        self.run = Some(Run { engine, published });
        self.woken.0.store(true, Ordering::Relaxed);
    }

    /// The faults end; what is left must come to its end by itself.
    fn be_quiet(&mut self) {
        let mut world = self.world();
        world.tell(|| "quiet from now on".to_owned());
        world.quiet = true;
        world.region.shortages.clear();
        let now = world.now;
        world.server.down_until = now;
        world.controller.no_clearml_until = now;
        world.controller.no_cloud_until = now;
        world.set_lease(true);
        let policy = world.scenario.policy.clone();
        let shutdown = world.policy.shutdown;
        world.set_policy(planner::Policy { shutdown, ..policy });
        if world.scenario.dies_for_good {
            world.controller.crash = world.controller.up;
        } else if !world.controller.up {
            world.controller.start = true;
        }
    }

    /// What a plan was for is done: there is nothing left to do.
    fn judge_rest(&mut self) {
        let Some(run) = &self.run else { return };
        let published = run.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(published) = published {
            let pass = published.borrow().clone();
            let again = planner::plan(&pass.policy, &pass.snapshot);
            let mut world = self.world();
            for hold in &pass.plan.holds {
                world.tell(|| format!("hold: {}", hold.describe(pass.now)));
            }
            if again != pass.plan {
                world.broken("same plan", "the same snapshot gave another plan".to_owned());
            }
            if !pass.plan.actions.is_empty() {
                world.broken("rest", format!("{:?} at the end", pass.plan.actions));
            }
        }
    }
}

fn foreign(number: u64) -> Launch {
    Launch {
        intent: format!("f-{number}").into(),
        resource: "r00".into(),
        queue: "q0".into(),
        offering: Offering {
            instance_type: "g4dn.xlarge".into(),
            placement: Placement::Any,
            market: Market::OnDemand,
        },
        count: 1,
        token: ClientToken::from("foreign"),
    }
}
