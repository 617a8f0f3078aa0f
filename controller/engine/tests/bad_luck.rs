//! Bad luck, contained: boots that fail, EC2 that has nothing, machines that nothing accounts for, and the
//! operator's word that spares one.

mod support;

use std::collections::BTreeSet;

use engine::ports::{CloudError, CloudState, Gate};
use planner::InstanceId;
use support::{World, pass, policy};

const TASKS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Every instance on its way reports that its boot failed, then powers itself off.
fn fail_boots(world: &World) {
    world.report(|state, now| {
        for (id, instance) in &mut state.instances {
            if instance.state == CloudState::Pending {
                instance.state = CloudState::Terminated;
                let mut session = World::idle_session(now);
                session.boot_phase = "failed".to_owned();
                session.boot_failure = Some("phase packages: E: Unable to locate package cuda".to_owned());
                session.gate = Gate::Absent;
                state.sessions.insert(id.clone(), session);
            }
        }
    });
}

fn launched(world: &World) -> usize {
    world.state().instances.len()
}

#[tokio::test(start_paused = true)]
async fn a_broken_pool_costs_three_boots_and_then_one_an_hour_or_so() {
    let world = World::new();
    world.enqueue("gpu", &TASKS);
    let _run = world.start(policy(8), 1).await;
    for _ in 0..20 {
        pass(10).await;
        fail_boots(&world);
    }
    assert_eq!(launched(&world), 3);
    assert_eq!(world.state().boots["t4"].failed, 3);
    assert!(world.state().boots["t4"].reason.contains("Unable to locate package cuda"));
    for _ in 0..6 * 60 * 10 {
        pass(10).await;
        fail_boots(&world);
    }
    let tried = launched(&world) - 3;
    assert!((4..=9).contains(&tried), "{tried} further tries in ten hours");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_was_mended_gets_all_its_instances() {
    let world = World::new();
    world.enqueue("gpu", &TASKS);
    let _run = world.start(policy(8), 1).await;
    for _ in 0..6 {
        pass(10).await;
        fail_boots(&world);
    }
    assert_eq!(launched(&world), 3);
    for _ in 0..60 {
        pass(10).await;
        world.attach_all();
    }
    assert_eq!(launched(&world), 3 + 8);
    assert_eq!(world.live(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_broken_pool_stays_paused_over_a_restart() {
    let world = World::new();
    world.enqueue("gpu", &TASKS);
    let run = world.start(policy(8), 1).await;
    for _ in 0..6 {
        pass(10).await;
        fail_boots(&world);
    }
    run.crash().await;
    let _run = world.start(policy(8), 2).await;
    pass(100).await;
    assert_eq!(launched(&world), 3);
}

#[tokio::test(start_paused = true)]
async fn ec2_without_capacity_is_asked_less_and_less_often() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(4), 1).await;
    for _ in 0..6 * 60 * 3 {
        world.state().refuse_next = Some(CloudError::NoCapacity("InsufficientInstanceCapacity".to_owned()));
        pass(10).await;
    }
    let calls = world.state().launch_calls.len();
    assert!((7..=11).contains(&calls), "{calls} calls in three hours");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_nothing_accounts_for_goes_within_ninety_seconds() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let run = world.start(policy(4), 1).await;
    pass(20).await;
    run.crash().await;
    {
        // Its launch is on nobody's record, and no sidecar of it can prove anything.
        let mut state = world.state();
        state.intents.clear();
        state.queues.clear();
        state.queues.insert("gpu".into(), Vec::new());
        state.strange = state.instances.keys().cloned().collect();
    }
    let _run = world.start(policy(4), 2).await;
    pass(25).await;
    assert_eq!(world.state().terminated, [], "it is looked at once more first");
    pass(65).await;
    assert_eq!(world.state().terminated, [InstanceId::from("i-0000")]);
}

#[tokio::test(start_paused = true)]
async fn a_tag_spares_an_idle_instance_for_good() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    let _run = world.start(policy(4), 1).await;
    pass(20).await;
    world.attach_all();
    {
        let mut state = world.state();
        state.queues.insert("gpu".into(), Vec::new());
        state.instances.get_mut("i-0001").unwrap().kept = true;
    }
    pass(1_200).await;
    let ended: BTreeSet<InstanceId> = world.state().terminated.iter().cloned().collect();
    assert_eq!(ended, [InstanceId::from("i-0000")].into());
}
