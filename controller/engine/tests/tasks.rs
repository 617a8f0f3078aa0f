//! What becomes of tasks in trouble, told on virtual time: limbo, dead machines, spot notices, and crashes of
//! the controller between any two steps.

mod support;

use std::time::Duration;

use engine::ports::{CloudState, Gate};
use planner::{
    InstanceId, NOT_RESPONSIVE, Notice, OtherWorker, Policy, Requeue, RequeueWhen, TaskId, TaskStatus,
    TaskStep, WorkerId,
};
use support::{World, pass, policy};

fn asked(when: RequeueWhen) -> Policy {
    Policy { requeue: Requeue { when, reset: false }, ..policy(2) }
}

/// One instance, `i-0000`, that runs task `a`.
async fn at_work(world: &World) -> TaskId {
    world.enqueue("gpu", &["a"]);
    pass(10).await;
    world.attach_all();
    let task = world.run_first("gpu", "i-0000");
    world.beat(30).await;
    task
}

fn steps(world: &World) -> Vec<&'static str> {
    let name = |step: &TaskStep| match step {
        TaskStep::Note { .. } => "note",
        TaskStep::Abort => "abort",
        TaskStep::Stop { .. } => "stop",
        TaskStep::Claim { .. } => "claim",
        TaskStep::Reset => "reset",
        TaskStep::Enqueue { .. } => "enqueue",
        TaskStep::Release { .. } => "release",
    };
    world.state().steps.iter().map(|(_, step)| name(step)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_in_limbo_is_first_in_its_queue_again_within_90_s() {
    let world = World::new();
    let _run = world.start(policy(1), 1).await;
    world.enqueue("gpu", &["a"]);
    pass(10).await;
    world.attach_all();
    world.beat(5).await;
    let task = world.pop("gpu");
    world.state().queues.get_mut("gpu").unwrap().push("next".into());
    world.beat(55).await;
    assert_eq!(steps(&world), [] as [&str; 0], "a minute is not over");
    world.beat(35).await;
    assert_eq!(steps(&world), ["enqueue"]);
    assert_eq!(world.state().queues["gpu"][0], task);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_comes_and_goes_between_two_reads_is_found_too() {
    let world = World::new();
    let _run = world.start(policy(1), 1).await;
    world.state().queues.insert("gpu".into(), Vec::new());
    world.beat(3).await;
    world.enqueue("gpu", &["a"]);
    world.pop("gpu");
    world.beat(90).await;
    assert_eq!(steps(&world), ["enqueue"]);
}

#[tokio::test(start_paused = true)]
async fn limbo_that_a_gate_holds_or_may_hold_is_left_alone() {
    for doubt in ["held", "unsettled", "silent", "another's worker"] {
        let world = World::new();
        let run = world.start(policy(1), 1).await;
        world.enqueue("gpu", &["a"]);
        pass(10).await;
        world.attach_all();
        world.beat(5).await;
        let task = world.pop("gpu");
        world.state().queues.get_mut("gpu").unwrap().push("next".into());
        for _ in 0..120 {
            world.report(|state, now| {
                let session = state.sessions.values_mut().next().unwrap();
                if doubt != "silent" {
                    session.last_seen = now;
                    session.word.settled_at = Some(now);
                }
                match doubt {
                    "held" => {
                        session.gate = Gate::Busy(Some(task.clone()));
                        session.word.held.insert(task.clone());
                    }
                    "unsettled" => {
                        session.gate = Gate::Unknown;
                        session.word.settled_at = None;
                    }
                    "silent" => session.connected = false,
                    _ => {
                        let other =
                            OtherWorker { queues: [planner::QueueName::from("gpu")].into(), task: None };
                        state.others.insert(WorkerId::from("theirs:0"), other);
                    }
                }
            });
            pass(1).await;
        }
        assert_eq!(steps(&world), [] as [&str; 0], "{doubt}");
        let published = run.published.borrow().clone();
        let told = published
            .plan
            .holds
            .iter()
            .any(|hold| hold.describe(published.now).contains("task a left queue"));
        assert!(told, "{doubt}: {:?}", published.plan.holds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_machine_was_killed_is_stopped_and_back_in_its_queue_within_60_s() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::All), 1).await;
    let task = at_work(&world).await;
    world.kill("i-0000");
    world.beat(60).await;
    assert_eq!(steps(&world), ["note", "stop", "claim", "enqueue", "release"]);
    let now = world.task(&task);
    assert_eq!((now.status, now.marks.attempts, now.marks.tagged), (TaskStatus::Queued, 1, false));
    assert_eq!(world.state().queues["gpu"][0], task);
}

#[tokio::test(start_paused = true)]
async fn by_default_it_is_stopped_with_the_watchdogs_words_and_stays_so() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::Spot), 1).await;
    let task = at_work(&world).await;
    world.kill("i-0000");
    world.beat(60).await;
    assert_eq!(steps(&world), ["stop"]);
    let now = world.task(&task);
    assert_eq!(now.status_message, NOT_RESPONSIVE);
    assert_eq!(now.status_reason, "clearml-autoscaler: instance i-0000 is gone");
}

#[tokio::test(start_paused = true)]
async fn ec2s_reason_tells_a_spot_loss_of_the_time_when_no_controller_ran() {
    let world = World::new();
    let run = world.start(asked(RequeueWhen::Spot), 1).await;
    let task = at_work(&world).await;
    run.crash().await;
    world.kill("i-0000");
    world.state().taken.insert("i-0000".into());
    world.state().sessions.clear();
    world.beat(600).await;
    let _run = world.start(asked(RequeueWhen::Spot), 2).await;
    world.beat(60).await;
    assert_eq!(steps(&world), ["note", "stop", "claim", "enqueue", "release"]);
    assert_eq!(world.task(&task).marks.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_steps_is_gone_on_from() {
    for milliseconds in (30_000..52_000).step_by(371) {
        let world = World::new();
        let run = world.start(asked(RequeueWhen::All), 1).await;
        let task = at_work(&world).await;
        world.kill("i-0000");
        for _ in 0..milliseconds / 1000 {
            world.beat(1).await;
        }
        tokio::time::sleep(Duration::from_millis(milliseconds % 1000)).await;
        run.crash().await;
        let _run = world.start(asked(RequeueWhen::All), 2).await;
        world.beat(120).await;
        let now = world.task(&task);
        let whole = (now.status, now.marks.attempts, now.marks.tagged);
        assert_eq!(
            whole,
            (TaskStatus::Queued, 1, false),
            "after a crash at {milliseconds} ms: {:?}",
            steps(&world)
        );
        let times = world.state().queues["gpu"].iter().filter(|waiting| **waiting == task).count();
        assert_eq!(times, 1, "after a crash at {milliseconds} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_task_comes_back_three_times_and_no_more() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::All), 1).await;
    world.enqueue("gpu", &["a"]);
    let task = TaskId::from("a");
    for round in 0..4 {
        let id = format!("i-{round:04}");
        world.beat(20).await;
        world.attach_all();
        world.beat(2).await;
        assert_eq!(world.run_first("gpu", &id), task);
        world.beat(40).await;
        world.kill(&id);
        world.beat(70).await;
    }
    let now = world.task(&task);
    assert_eq!((now.status, now.marks.attempts), (TaskStatus::Stopped, 3));
}

#[tokio::test(start_paused = true)]
async fn one_task_whose_steps_fail_stops_no_other() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::All), 1).await;
    world.enqueue("gpu", &["a", "b"]);
    pass(10).await;
    world.attach_all();
    let stuck = world.run_first("gpu", "i-0000");
    let other = world.run_first("gpu", "i-0001");
    world.beat(30).await;
    world.state().refused.insert(stuck.clone());
    world.kill("i-0000");
    world.kill("i-0001");
    world.beat(60).await;
    assert_eq!(world.task(&stuck).status, TaskStatus::InProgress);
    assert_eq!(world.task(&other).status, TaskStatus::Queued);
    world.state().refused.clear();
    world.beat(120).await;
    assert_eq!(world.task(&stuck).status, TaskStatus::Queued);
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_marks_the_task_launches_its_replacement_and_brings_it_back() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::Spot), 1).await;
    let task = at_work(&world).await;
    let noticed = world.state().launch_calls.len();
    let notice = |killed| {
        world.report(|state, now| {
            let session = state.sessions.get_mut(&InstanceId::from("i-0000")).unwrap();
            let seen_at = session.word.notice.map_or(now, |notice| notice.seen_at);
            let ends_at = seen_at.after(Duration::from_secs(120));
            session.word.notice = Some(Notice { seen_at, ends_at, killed });
        });
    };
    notice(false);
    world.beat(2).await;
    assert_eq!(world.state().launch_calls.len(), noticed + 1, "launched at the notice, not after the loss");
    assert_eq!(steps(&world), ["note"]);
    world.beat(93).await;
    notice(true);
    world.beat(2).await;
    assert_eq!(steps(&world), ["note", "stop"]);
    world.beat(23).await;
    assert_eq!(steps(&world), ["note", "stop"], "its machine is not gone yet");
    world.kill("i-0000");
    world.beat(10).await;
    assert_eq!(steps(&world), ["note", "stop", "claim", "enqueue", "release"]);
    assert_eq!(world.task(&task).status, TaskStatus::Queued);
    world.attach_all();
    world.beat(30).await;
    assert_eq!(world.state().launch_calls.len(), noticed + 1, "one replacement for one task");
}

#[tokio::test(start_paused = true)]
async fn the_maximum_is_never_overshot_by_a_replacement() {
    let world = World::new();
    let one = Policy { pools: policy(1).pools, ..asked(RequeueWhen::Spot) };
    let _run = world.start(one, 1).await;
    at_work(&world).await;
    world.report(|state, now| {
        let session = state.sessions.get_mut(&InstanceId::from("i-0000")).unwrap();
        let ends_at = now.after(Duration::from_secs(120));
        session.word.notice = Some(Notice { seen_at: now, ends_at, killed: false });
    });
    world.beat(100).await;
    assert_eq!(world.live(), 1);
    world.kill("i-0000");
    world.beat(60).await;
    assert_eq!(world.live(), 1, "its place is taken once it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_users_abort_outlives_the_machine_and_is_not_undone() {
    let world = World::new();
    let _run = world.start(asked(RequeueWhen::All), 1).await;
    let task = at_work(&world).await;
    for known in &mut world.state().tasks {
        known.status_message = "stopping".to_owned();
    }
    world.kill("i-0000");
    world.beat(120).await;
    assert_eq!(steps(&world), ["stop"]);
    let now = world.task(&task);
    assert_eq!(now.status, TaskStatus::Stopped);
    assert_ne!(now.status_message, NOT_RESPONSIVE, "no pipeline waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_stopped_and_started_again_is_one_of_ours_again() {
    let world = World::new();
    let run = world.start(policy(1), 1).await;
    at_work(&world).await;
    let set = |to: CloudState| {
        let mut state = world.state();
        state.instances.get_mut(&InstanceId::from("i-0000")).unwrap().state = to;
    };
    world.kill("i-0000");
    world.beat(60).await;
    set(CloudState::Running);
    world.state().sessions.clear();
    world.beat(200).await;
    let published = run.published.borrow().clone();
    assert!(published.snapshot.losses.is_empty(), "{:?}", published.snapshot.losses);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_waiting_tasks_are_read_once_and_then_what_changes() {
    let world = World::new();
    let names: Vec<String> = (0..10_000).map(|number| format!("t{number:05}")).collect();
    world.enqueue("gpu", &names.iter().map(String::as_str).collect::<Vec<_>>());
    pass(120).await;
    let _run = world.start(policy(0), 1).await;
    world.beat(100).await;
    world.pop("gpu");
    world.beat(20).await;
    let scopes = world.state().scopes.clone();
    assert!(scopes.len() <= 10, "{} reads in two minutes", scopes.len());
    assert_eq!(scopes.iter().filter(|scope| scope.queued_since.is_none()).count(), 1);
    assert_eq!(scopes.last().unwrap().ids.len(), 1, "the one that left its queue");
}
