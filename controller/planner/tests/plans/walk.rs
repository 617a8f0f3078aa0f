//! The planner steers a living fleet for a while, through faults, restarts and changes of mind.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::{Action, Plan, Policy, Pool, QueueName, Resource, SidecarMode, Source, check, plan};
use proptest::prelude::*;

use crate::text::offering;
use crate::world::World;

fn policy(sidecar: SidecarMode, maxima: [u32; 3]) -> Policy {
    let lines = [("red", "small", maxima[0]), ("red", "large", maxima[1]), ("blue", "gpu", maxima[2])];
    let resources = lines.iter().map(|(_, resource, _)| {
        let offerings =
            vec![offering(&format!("spot:{resource}")), offering(&format!("on-demand:{resource}"))];
        ((*resource).into(), Resource { offerings, blocked: None })
    });
    Policy {
        fleet: "fleet".into(),
        prefix: "walk".to_owned(),
        resources: resources.collect::<BTreeMap<_, _>>(),
        pools: lines
            .iter()
            .map(|(queue, resource, maximum)| Pool {
                queue: (*queue).into(),
                resource: (*resource).into(),
                maximum: *maximum,
            })
            .collect(),
        max_idle: Duration::from_secs(60),
        max_spin_up: Duration::from_secs(150),
        sidecar,
        silent_grace: Duration::from_secs(60),
        order_patience: Duration::from_secs(10),
        launches_per_minute: 600,
        shutdown: None,
    }
}

/// One pass of the loop, with every promise that can be tested from outside.
fn step(world: &mut World, last: &Plan) -> Plan {
    for source in [Source::Queues, Source::Workers, Source::Tasks, Source::Cloud] {
        let due = last.refresh.contains(&source)
            || world
                .seen
                .freshness
                .get(&source)
                .is_none_or(|age| world.seen.now.since(age.read_began_at) >= Duration::from_secs(10));
        if due {
            world.read(source);
        }
    }
    // A list is a moment old when it is used.
    let moment = Duration::from_millis(1 + world.dice.below(300));
    world.pass(moment);
    let snapshot = world.look().clone();
    let made = plan(&world.policy, &snapshot);
    assert_eq!(check(&world.policy, &snapshot, &made), Ok(()));
    world.apply(&made);
    for action in &made.actions {
        if let Action::Launch { resource, .. } = action {
            let maximum = world.policy.pool(resource).unwrap().maximum as usize;
            assert!(world.alive_of(resource) <= maximum, "{} of {resource} run", world.alive_of(resource));
        }
    }
    made
}

fn live(sidecar: SidecarMode, seed: u64) {
    let mut world = World::new(policy(sidecar, [2, 2, 3]), seed);
    let mut last = Plan::default();
    let queues: [QueueName; 2] = ["red".into(), "blue".into()];
    for round in 0..350 {
        for queue in &queues {
            if world.dice.percent(if round % 100 < 50 { 8 } else { 1 }) {
                world.enqueue(queue);
            }
        }
        if world.dice.percent(1) {
            world.restart();
        }
        if world.dice.percent(1) {
            let maxima = [1, 2, 3].map(|most| 1 + u32::try_from(world.dice.below(most)).unwrap());
            world.policy = policy(sidecar, maxima);
        }
        let nap = Duration::from_millis(1 + world.dice.below(8_000));
        let to_wake = last.wake_at.map_or(nap, |at| at.since(world.seen.now));
        world.pass(nap.min(to_wake.max(Duration::from_millis(1))));
        last = step(&mut world, &last);
    }
    // Then nothing more comes and nothing more fails: all work is done, and nothing is left running.
    world.faults = false;
    let mut quiet = 0;
    for _ in 0..2000 {
        world.pass(Duration::from_secs(2));
        last = step(&mut world, &last);
        // A pool that is paused for its failed boots is not over.
        let waits = world.waiting.values().any(|waiting| !waiting.is_empty());
        quiet = if world.alive() == 0 && last.actions.is_empty() && !waits { quiet + 1 } else { 0 };
        if quiet == 20 {
            break;
        }
    }
    let left: usize = world.waiting.values().map(std::collections::VecDeque::len).sum();
    assert_eq!((left, world.done.len()), (0, world.asked as usize), "tasks left, tasks done; {last:?}");
    assert_eq!(world.alive(), 0, "machines left; {last:?}");
    assert_eq!(last.actions, Vec::new());
    assert!(world.seen.workers.is_empty(), "ghosts left");
    assert!(world.seen.intents.is_empty(), "notes left");
}

/// A few, each is a life; `PROPTEST_CASES` makes it many. Nothing to shrink: a seed is a seed.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(12), max_shrink_iters: 0, ..usual }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_fleet_with_sidecars_does_all_its_work_and_comes_to_nothing(seed in any::<u64>()) {
        live(SidecarMode::Required, seed);
    }

    #[test]
    fn a_fleet_on_its_own_does_all_its_work_and_comes_to_nothing(seed in any::<u64>()) {
        live(SidecarMode::Off, seed);
    }
}
