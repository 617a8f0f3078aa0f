//! How long a pass takes: `cargo bench -p planner`. Prints figures, judges nothing.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use planner::{
    Freshness, Instance, InstanceId, LostReason, Market, Offering, Placement, Policy, Pool, QueueName,
    Resource, ResourceName, SidecarMode, Signal, Snapshot, Source, State, TaskId, TaskRef, Time, Word,
    Worker, WorkerId, check, plan,
};

const NOW: Time = Time(1_700_000_000_000);

/// More than any cache of the machines that this runs on.
const CACHE: usize = 256 << 20;

fn main() {
    println!("best and median of at least 15 passes, in ms");
    println!(
        "cold: something else filled the caches before each pass, as happens between two passes of a run"
    );
    println!("warm: pass upon pass, which flatters what fits into the caches");
    println!("instances  pools  waiting  actions  plan, cold     plan, warm     check, cold");
    let mut filler = vec![0; CACHE];
    let mut first = None;
    for scale in [1, 10] {
        let (policy, snapshot) = world(10_000 * scale, 1_000 * scale, 50_000 * scale);
        let made = plan(&policy, &snapshot);
        assert_eq!(check(&policy, &snapshot, &made), Ok(()));
        let planning = || drop(black_box(plan(black_box(&policy), black_box(&snapshot))));
        let checking = || drop(black_box(check(&policy, &snapshot, black_box(&made))));
        let cold = times(|| evict(&mut filler), planning);
        let warm = times(|| (), planning);
        let checked = times(|| evict(&mut filler), checking);
        println!(
            "{:>9} {:>6} {:>8} {:>8} {:>6.1} {:>6.1} {:>8.1} {:>6.1} {:>8.1} {:>6.1}",
            snapshot.instances.len(),
            policy.pools.len(),
            snapshot.queues.values().map(Vec::len).sum::<usize>(),
            made.actions.len(),
            cold.0,
            cold.1,
            warm.0,
            warm.1,
            checked.0,
            checked.1,
        );
        let (base_cold, base_warm) = *first.get_or_insert((cold, warm));
        if scale > 1 {
            println!(
                "{scale} times the work costs, by the median, {:.1} times as much cold, {:.1} times warm",
                cold.1 / base_cold.1,
                warm.1 / base_warm.1
            );
        }
    }
}

/// Fills the caches with something else.
fn evict(filler: &mut [u8]) {
    for line in filler.chunks_mut(64) {
        line[0] = line[0].wrapping_add(1);
    }
    black_box(filler);
}

/// The least and the median of as many runs as fit in two seconds, 15 at least, in milliseconds.
fn times(mut before: impl FnMut(), mut run: impl FnMut()) -> (f64, f64) {
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < 15 || began.elapsed() < Duration::from_secs(2) {
        before();
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// Every state in every pool, two pools a queue, ids as EC2 and ClearML make them.
fn world(instances: usize, pools: usize, waiting: usize) -> (Policy, Snapshot) {
    let queue = |pool: usize| QueueName(format!("queue-{:05}", pool / 2));
    let resource = |pool: usize| ResourceName(format!("resource-{pool:05}"));
    let offering = Offering {
        instance_type: "g4dn.xlarge".into(),
        placement: Placement::Zone("us-east-1b".to_owned()),
        market: Market::Spot,
    };
    let policy = Policy {
        fleet: "fleet".into(),
        prefix: "dynamic_worker".to_owned(),
        pools: (0..pools)
            .map(|pool| Pool { queue: queue(pool), resource: resource(pool), maximum: 14 })
            .collect(),
        resources: (0..pools)
            .map(|pool| (resource(pool), Resource { offerings: vec![offering.clone()], blocked: None }))
            .collect(),
        max_idle: Duration::from_secs(900),
        max_spin_up: Duration::from_secs(1800),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(10),
        launches_per_minute: 600,
        shutdown: None,
        requeue: planner::Requeue::default(),
    };
    let mut snapshot = Snapshot {
        now: NOW,
        started_at: Time(NOW.0 - 7_200_000),
        lease_held: true,
        epoch: 3,
        next_intent: 1,
        ..Snapshot::default()
    };
    for source in [Source::Queues, Source::Workers, Source::Tasks, Source::Cloud] {
        snapshot.freshness.insert(source, Freshness { read_began_at: Time(NOW.0 - 1000), stale_since: None });
    }
    let queues = pools / 2;
    let mut lists: BTreeMap<QueueName, Vec<TaskId>> =
        (0..queues).map(|number| (queue(number * 2), Vec::new())).collect();
    // A quarter of the queues are empty, so that there is something to drain.
    for (number, list) in (0..waiting).zip((0..queues).filter(|list| list % 4 != 0).cycle()) {
        lists.get_mut(&queue(list * 2)).unwrap().push(task(number));
    }
    snapshot.queues = lists;
    for number in 0..instances {
        snapshot
            .boots
            .entry(resource(number % pools))
            .or_insert_with(|| planner::Boots { proven: true, ..planner::Boots::default() });
        add(&policy, &mut snapshot, number, resource(number % pools), queue(number % pools), &offering);
    }
    // The engine makes a snapshot anew for every pass, in the order of its maps: so it lies in memory.
    let snapshot_of_a_pass = snapshot.clone();
    (policy, snapshot_of_a_pass)
}

fn add(
    policy: &Policy,
    snapshot: &mut Snapshot,
    number: usize,
    resource: ResourceName,
    queue: QueueName,
    offering: &Offering,
) {
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = InstanceId(format!("i-0{scattered:016x}"));
    let worker = WorkerId::of(&policy.prefix, &resource, &offering.instance_type, &id);
    let state = match (number / policy.pools.len()) % 10 {
        0..=3 => State::Busy { task: Some(task(10_000_000 + number)) },
        4 | 5 => State::Idle,
        6 => State::Booting { phase: "packages".to_owned() },
        7 => State::Drained,
        8 => State::Retired,
        _ => State::Lost { reason: LostReason::SessionLost },
    };
    let task = if let State::Busy { task } = &state { task.clone() } else { None };
    if let Some(task) = &task {
        snapshot.running.push(TaskRef {
            task: task.clone(),
            last_worker: Some(worker.clone()),
            status_changed: Some(NOW),
            queue: Some(queue.clone()),
            ..TaskRef::default()
        });
    }
    let held = task.iter().cloned().collect();
    snapshot.workers.insert(worker.clone(), Worker { task });
    let ago = |millis: u64| Time(NOW.0 - millis);
    let instance = Instance {
        resource,
        queue,
        offering: offering.clone(),
        zone: Some("us-east-1b".to_owned()),
        worker,
        intent: None,
        kept: false,
        accounted: true,
        launched_at: ago(1_000_000),
        adopted_at: ago(1_000_000),
        ready_at: (!matches!(state, State::Booting { .. })).then(|| ago(900_000)),
        since: ago(if matches!(state, State::Busy { .. }) { scattered % 300_000 } else { 950_000 }),
        state,
        signal: Signal::Sidecar,
        finishing: false,
        last_order: None,
        word: Word { held, settled_at: Some(NOW), ..Word::default() },
    };
    snapshot.instances.insert(id, instance);
}

fn task(number: usize) -> TaskId {
    TaskId(format!("{:032x}", (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
}
