//! The last passes of a run, on virtual time: what becomes of the fleet when its autoscaler ends.

mod support;

use std::sync::Arc;

use engine::ports::Gate;
use planner::{Hold, ShutdownAction};
use support::{Run, World, pass, policy};

/// Three instances with sidecars: the first holds a task, the others are idle and wanted by tasks.
async fn three(world: &World) -> Run {
    world.enqueue("gpu", &["a", "b", "c"]);
    let run = world.start(policy(3), 1).await;
    pass(10).await;
    world.attach_all();
    world.report(|state, now| {
        if let Some(session) = state.sessions.values_mut().next() {
            session.gate = Gate::Busy(Some("a".into()));
            session.gate_since = now;
        }
    });
    pass(1).await;
    run
}

fn shut_down(run: &Run, action: ShutdownAction) {
    run.policy.send_modify(|policy| Arc::make_mut(policy).shutdown = Some(action));
}

fn remaining(run: &Run) -> Option<u32> {
    let published = run.published.borrow();
    published.plan.holds.iter().find_map(|hold| match hold {
        Hold::ShuttingDown { remaining, .. } => Some(*remaining),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn the_idle_go_at_once_and_the_busy_stay() {
    let world = World::new();
    let run = three(&world).await;
    shut_down(&run, ShutdownAction::Idle);
    pass(10).await;
    assert_eq!(world.state().terminated.len(), 2);
    assert_eq!(world.live(), 1);
    assert_eq!(remaining(&run), Some(0));
    pass(600).await;
    assert_eq!(world.live(), 1, "the task goes on");
    assert_eq!(world.state().launch_calls.len(), 1, "two tasks wait, and nothing is launched");
}

#[tokio::test(start_paused = true)]
async fn all_go_if_the_operator_says_so() {
    let world = World::new();
    let run = three(&world).await;
    shut_down(&run, ShutdownAction::All);
    pass(10).await;
    assert_eq!(world.live(), 0);
    assert_eq!(remaining(&run), Some(0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_if_the_fleet_is_left_as_it_is() {
    let world = World::new();
    let run = three(&world).await;
    shut_down(&run, ShutdownAction::Nothing);
    pass(600).await;
    assert_eq!(world.live(), 3);
    assert_eq!(world.state().orders, []);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_a_lost_reply_brought_goes_with_the_rest() {
    let world = World::new();
    world.enqueue("gpu", &["a", "b"]);
    world.state().replies_to_lose = 1;
    let run = world.start(policy(3), 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    shut_down(&run, ShutdownAction::All);
    pass(60).await;
    assert_eq!(world.live(), 0);
    assert_eq!(world.state().launch_calls.len(), 1);
}
