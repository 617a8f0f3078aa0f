//! The drain race with the real agent: tasks arrive at random around the idle limit, when the autoscaler is
//! about to drain the instance that would take them. No task may be lost, killed or run twice.
//!
//! Sixty cycles run with `cargo test`. Any number, with the summary on the terminal:
//!
//! ```text
//! DRAIN_RACE_CYCLES=1000 cargo test -p tests --test drain_race -- --nocapture
//! ```
//!
//! `DRAIN_RACE_QUEUES` (6) is how many queues race at the same time: more for a machine with more cores.
//! `DRAIN_RACE_SEED` (1) chooses the arrivals.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::time::{ClockId, clock_gettime};
use sandbox::clearml::{Status, TaskInfo};
use sandbox::ec2::{InstanceView, State};
use tests::harness::{Setting, Stage, gate_file};

const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// A task arrives by as much before or after the idle limit.
const JITTER_MS: u64 = 600;

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the summary is what one runs this for")]
async fn tasks_that_arrive_while_their_instance_is_drained_run_once() -> anyhow::Result<()> {
    let cycles = number("DRAIN_RACE_CYCLES", 60)?;
    let lanes = number("DRAIN_RACE_QUEUES", 6)?.clamp(1, cycles.max(1));
    let seed = number("DRAIN_RACE_SEED", 1)?;
    let queues: Vec<String> = (0..lanes).map(|lane| format!("race-{lane}")).collect();
    // Room for a second instance while the first one goes: what waits then may start on either.
    let setting = Setting { idle_limit: IDLE_LIMIT, queues, maximum: 2, ..Setting::default() };
    let stage = Stage::set(&setting).await?;

    let mut races = Vec::new();
    for (lane, queue) in (0_u64..).zip(&setting.queues) {
        // The first lanes take what does not divide.
        let share = cycles / lanes + u64::from(lane < cycles % lanes);
        races.push(race(&stage, queue, share, Random(seed.wrapping_mul(1000) + lane)));
    }
    let ended = all(races).await;
    let swept = stage.wait("every instance is terminated", Stage::is_swept).await;
    let summary = Summary::of(&stage);
    println!("{summary}");
    ended?;
    swept?;
    ensure!(summary.is_clean(cycles), "{summary}\n{}", stage.story());
    ensure!(summary.drains > 0, "nothing raced: no drain is in the log: {summary}");
    stage.strike().await
}

/// All at once, in this task: they wait most of the time.
async fn all(races: Vec<impl Future<Output = anyhow::Result<()>>>) -> anyhow::Result<()> {
    let mut races: Vec<_> = races.into_iter().map(|race| Some(Box::pin(race))).collect();
    std::future::poll_fn(move |context| {
        for slot in &mut races {
            if let Some(race) = slot
                && let std::task::Poll::Ready(outcome) = race.as_mut().poll(context)
            {
                *slot = None;
                if outcome.is_err() {
                    return std::task::Poll::Ready(outcome);
                }
            }
        }
        let over = races.iter().all(Option::is_none);
        if over { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
    })
    .await
}

/// One queue's tasks, one after the other.
async fn race(stage: &Stage, queue: &str, cycles: u64, mut random: Random) -> anyhow::Result<()> {
    let id = stage.queue(queue)?;
    for cycle in 0..cycles {
        let task = stage.clearml().create_script(&format!("{queue} {cycle}"), "true\n")?;
        stage.clearml().enqueue(&task, &id)?;
        let what = format!("task {task} of cycle {cycle} in {queue} ends");
        stage.wait(&what, |stage| stage.task(&task).is_ok_and(|task| has_ended(&task))).await?;

        let worker = stage.task(&task)?.last_worker.context("a task that ended had a worker")?;
        let is_its = |instance: &InstanceView| worker.ends_with(&instance.id);
        // The agent notices a little later than ClearML, and its idle time begins only then.
        let idle = |stage: &Stage| {
            let instance = stage.sandbox.ec2.instances().into_iter().find(is_its);
            match instance.filter(|instance| instance.state == State::Running) {
                Some(instance) => idle_since(&instance).map(Some),
                None => Some(None),
            }
        };
        stage.wait(&format!("{worker} is idle or gone"), |stage| idle(stage).is_some()).await?;
        if let Some(Some(since)) = idle(stage) {
            let arrival = since + IDLE_LIMIT + Duration::from_millis(random.below(2 * JITTER_MS));
            let arrival = arrival.saturating_sub(Duration::from_millis(JITTER_MS));
            // Not to wait for anything: the arrival itself is what is tried.
            tokio::time::sleep(arrival.saturating_sub(boottime()?)).await;
        }
    }
    Ok(())
}

fn has_ended(task: &TaskInfo) -> bool {
    matches!(task.status, Status::Completed | Status::Stopped | Status::Failed | Status::Closed)
}

/// Since when the agent holds no task, on the clock since boot; `None` while it holds one.
fn idle_since(instance: &InstanceView) -> Option<Duration> {
    let state = gate_file(instance, "state")?;
    let (kind, since) = state.trim().split_once(' ')?;
    let idle = kind == "idle" || kind == "polling";
    idle.then(|| since.parse().ok().map(Duration::from_nanos)).flatten()
}

fn boottime() -> anyhow::Result<Duration> {
    let now = clock_gettime(ClockId::Boottime);
    Ok(Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?))
}

fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(value) => value.parse().with_context(|| format!("{variable} is a number, not {value:?}")),
        Err(_) => Ok(default),
    }
}

/// The same arrivals for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What became of the tasks, and how the drains went.
struct Summary {
    completed: usize,
    lost: usize,
    killed: usize,
    twice: usize,
    drains: usize,
    undrains: usize,
    retired: usize,
    refusals: usize,
    launched: u64,
    terminated: u64,
    left: u64,
}

impl Summary {
    fn of(stage: &Stage) -> Self {
        let tasks = stage.clearml().tasks();
        let with = |status: Status| tasks.iter().filter(|task| task.status == status).count();
        let completed = with(Status::Completed);
        let killed = with(Status::Stopped) + with(Status::Failed);
        let drains = Drains::of(&stage.log());
        let counts = stage.sandbox.ec2.counts();
        Self {
            completed,
            lost: tasks.len() - completed - killed,
            killed,
            twice: tasks.iter().filter(|task| task.starts > 1).count(),
            drains: drains.drains,
            undrains: drains.undrains,
            retired: drains.retired,
            refusals: drains.refusals,
            launched: counts.launched,
            terminated: counts.terminated,
            left: counts.left,
        }
    }

    fn is_clean(&self, cycles: u64) -> bool {
        let Self { completed, lost, killed, twice, left, .. } = self;
        usize::try_from(cycles) == Ok(*completed) && (*lost, *killed, *twice, *left) == (0, 0, 0, 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            completed,
            lost,
            killed,
            twice,
            drains,
            undrains,
            retired,
            refusals,
            launched,
            terminated,
            left,
        } = self;
        write!(
            f,
            "drain race: {completed} tasks completed, {lost} lost, {killed} killed, {twice} run twice; \
             {drains} drains: {refusals} refused, {undrains} undone, {retired} retired; \
             instances: {launched} launched, {terminated} terminated, {left} left"
        )
    }
}

/// The orders in the controller's log.
#[derive(Default)]
struct Drains {
    drains: usize,
    undrains: usize,
    retired: usize,
    /// Drains that were followed neither by an undrain nor by a retire.
    refusals: usize,
}

impl Drains {
    fn of(log: &str) -> Self {
        let mut drains = Self::default();
        let mut open: BTreeMap<&str, bool> = BTreeMap::new();
        for line in log.lines() {
            let Some((before, order)) = line.split_once(": told to ") else { continue };
            let Some(instance) = before.split_whitespace().last() else { continue };
            let kind = order.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let drained = open.entry(instance).or_default();
            match kind {
                "drain" => {
                    drains.drains += 1;
                    drains.refusals += usize::from(std::mem::replace(drained, true));
                }
                "undrain" => {
                    drains.undrains += 1;
                    *drained = false;
                }
                "retire" => {
                    drains.retired += usize::from(std::mem::take(drained));
                }
                _ => {}
            }
        }
        drains.refusals += open.values().filter(|drained| **drained).count();
        drains
    }
}
