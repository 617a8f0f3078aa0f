//! The loop's stories on virtual time.

mod support;

use std::time::Duration;

use engine::Intervals;
use engine::ports::{CloudError, CloudState, Gate};
use planner::{OrderKind, TaskId, TaskRef, WorkerId};
use support::{World, pass, policy};

fn kinds(world: &World) -> Vec<OrderKind> {
    world.state().orders.iter().map(|(_, order)| order.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn tasks_wait_and_one_call_launches_for_all_of_them() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b", "c"]);
    let _run = world.start(policy(10), 1).await;
    pass(20).await;
    assert_eq!(world.state().launch_calls.len(), 1);
    assert_eq!(world.live(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_asked_for_again_with_the_same_token_and_launches_nothing_twice() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    world.state().replies_to_lose = 2;
    world.state().invisible = true;
    let _run = world.start(policy(10), 1).await;
    pass(60).await;
    world.state().invisible = false;
    pass(60).await;
    let state = world.state();
    assert_eq!(state.launch_calls.len(), 3);
    assert!(state.launch_calls.iter().all(|call| call.token == state.launch_calls[0].token));
    assert_eq!(state.instances.len(), 2);
    assert!(state.intents.is_empty(), "the answered intent is settled");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_second_asking_says_nothing_of_the_first() {
    for refusal in [CloudError::Throttled("slow down".to_owned()), CloudError::Denied("expired".to_owned())] {
        let world = World::new();
        world.enqueue("gpu", &["a", "b"]);
        world.state().replies_to_lose = 1;
        world.state().invisible = true;
        let _run = world.start(policy(2), 1).await;
        pass(3).await;
        world.state().refuse_next = Some(refusal);
        pass(120).await;
        world.state().invisible = false;
        pass(60).await;
        let state = world.state();
        assert_eq!(state.instances.len(), 2, "no more than the maximum");
        assert!(state.launch_calls.iter().all(|call| call.token == state.launch_calls[0].token));
        assert!(state.intents.is_empty(), "the answered intent is settled");
    }
}

#[tokio::test(start_paused = true)]
async fn instances_that_ec2_shows_answer_for_a_lost_reply() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    world.state().replies_to_lose = 1;
    let _run = world.start(policy(10), 1).await;
    pass(60).await;
    let state = world.state();
    assert_eq!(state.launch_calls.len(), 1);
    assert_eq!(state.instances.len(), 2);
    assert!(state.intents.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_launch_leaves_a_note_that_the_next_run_follows() {
    for milliseconds in [0, 1, 400, 799, 801, 1_500] {
        let world = World::new();
        world.enqueue("gpu", &["a", "b"]);
        let run = world.start(policy(10), 1).await;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        run.crash().await;
        let _run = world.start(policy(10), 2).await;
        pass(60).await;
        assert_eq!(world.live(), 2, "after a crash at {milliseconds} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_is_drained_retired_seen_free_afresh_and_then_terminated() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    world.state().queues.clear();
    world.enqueue("gpu", &[]);
    pass(50).await;
    assert_eq!(kinds(&world), []);
    let reads = world.state().task_reads;
    pass(15).await;
    assert_eq!(kinds(&world), [OrderKind::Drain, OrderKind::Retire]);
    assert!(world.state().task_reads > reads, "the tasks were read after the acknowledgement");
    assert_eq!(world.state().terminated.len(), 1);
    assert_eq!(world.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_clearml_shows_on_a_retired_instance_keeps_it() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    {
        let mut state = world.state();
        state.queues.insert("gpu".into(), Vec::new());
        let id = state.instances.keys().next().unwrap().clone();
        state.tasks.push(TaskRef {
            task: TaskId::from("late"),
            last_worker: Some(WorkerId(format!("dynamic:t4:g4dn.xlarge:{id}"))),
            ..TaskRef::default()
        });
    }
    pass(300).await;
    assert_eq!(world.state().terminated, []);
    world.state().tasks.clear();
    pass(30).await;
    assert_eq!(world.state().terminated.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_agent_refuses_to_drain_and_lives() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    world.report(|state, now| {
        state.queues.insert("gpu".into(), Vec::new());
        for session in state.sessions.values_mut() {
            session.gate = Gate::Busy(Some("a".into()));
            session.gate_since = now;
        }
    });
    run.policy.send(policy(0).into()).unwrap();
    pass(3_000).await;
    assert_eq!(world.live(), 1);
    world.report(|state, now| {
        for session in state.sessions.values_mut() {
            session.gate = Gate::Idle;
            session.gate_since = now;
        }
    });
    pass(10).await;
    assert_eq!(world.live(), 0, "over its maximum, it goes as soon as it is idle");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_clearml_removes_nothing_and_ends_in_the_right_place() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    let _run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    world.state().queues.insert("gpu".into(), Vec::new());
    pass(6).await;
    world.state().clearml_down = true;
    pass(4 * 3600).await;
    assert_eq!(world.live(), 2, "stale input removes nothing");
    assert_eq!(kinds(&world), []);
    world.state().clearml_down = false;
    pass(120).await;
    assert_eq!(world.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_capacity_is_remembered_and_tried_again_later() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    world.state().refuse_next = Some(CloudError::NoCapacity("InsufficientInstanceCapacity".to_owned()));
    let _run = world.start(policy(10), 1).await;
    pass(100).await;
    assert_eq!(world.state().launch_calls.len(), 1);
    pass(120).await;
    let state = world.state();
    assert_eq!(state.launch_calls.len(), 2);
    assert_ne!(
        state.launch_calls[0].token, state.launch_calls[1].token,
        "a refused launch is another launch"
    );
    assert_eq!(state.instances.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_lost_its_lease_launches_nothing() {
    let world = World::new();
    let run = world.start(policy(10), 1).await;
    run.lease.send(false).unwrap();
    world.enqueue("gpu", &["a"]);
    pass(120).await;
    assert_eq!(world.live(), 0);
    run.lease.send(true).unwrap();
    pass(10).await;
    assert_eq!(world.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_adopts_the_fleet_before_it_decides() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    let run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    pass(5).await;
    run.crash().await;
    let _run = world.start(policy(10), 2).await;
    pass(40).await;
    assert_eq!(world.state().instances.len(), 2, "both were adopted as capacity");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_never_becomes_ready_is_replaced() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(1), 1).await;
    pass(590).await;
    assert_eq!(world.state().instances.len(), 1);
    pass(60).await;
    let state = world.state();
    assert_eq!(state.terminated.len(), 1);
    assert_eq!(state.instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_ghost_is_unregistered_once_ec2_calls_its_machine_gone() {
    let world = World::new();
    let _run = world.start(policy(1), 1).await;
    let ghost = WorkerId::from("dynamic:t4:g4dn.xlarge:i-dead");
    world.state().workers.insert(ghost.clone(), planner::Worker { task: None });
    pass(30).await;
    assert!(!world.state().workers.contains_key(&ghost));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_fleet_costs_few_passes() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let mut run = world.start(policy(1), 1).await;
    pass(10).await;
    world.attach_all();
    pass(10).await;
    let mut passes = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while tokio::time::timeout_at(deadline, run.published.changed()).await.is_ok() {
        passes += 1;
    }
    assert!(passes < 40, "{passes} passes in 40 quiet seconds");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_aws_ended_is_replaced() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(1), 1).await;
    pass(10).await;
    for instance in world.state().instances.values_mut() {
        instance.state = CloudState::Terminated;
    }
    pass(45).await;
    assert_eq!(world.state().instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_pace_is_taken_up_at_once() {
    let world = World::new();
    let run = world.start(policy(10), 1).await;
    let pace = |every| Intervals { queues: every, workers: every, cloud: every };
    run.intervals.send(pace(Duration::from_secs(3600))).unwrap();
    pass(20).await;
    world.enqueue("gpu", &["a"]);
    pass(20).await;
    assert_eq!(world.live(), 0, "nobody has looked");
    run.intervals.send(pace(Duration::from_secs(1))).unwrap();
    pass(3).await;
    assert_eq!(world.live(), 1);
}
