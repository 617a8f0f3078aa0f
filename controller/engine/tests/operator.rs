//! The operator's will, on virtual time: drains that stand, pauses, and what a restart remembers of them.

#![allow(clippy::unwrap_used, reason = "a story that goes wrong is a test that fails")]

mod support;

use std::sync::Arc;

use engine::ports::{Gate, Standing};
use planner::{Awaits, Hold, InstanceId, OrderKind, Pause, Time};
use support::{Run, World, pass, policy};

/// Two instances with sidecars, both idle, and two tasks that wait.
async fn two(world: &World) -> Run {
    world.enqueue("gpu", &["a", "b"]);
    let run = world.start(policy(3), 1).await;
    pass(10).await;
    world.attach_all();
    pass(1).await;
    run
}

fn first(world: &World) -> InstanceId {
    world.state().instances.keys().next().unwrap().clone()
}

/// The will is written down, and then the loop learns of it.
fn drain(world: &World, run: &Run, id: &InstanceId) {
    world.state().operator.drains.insert(id.clone(), Time(1));
    run.operator.send_replace(Arc::new(world.state().operator.clone()));
}

fn undrain(world: &World, run: &Run, id: &InstanceId) {
    world.state().operator.drains.remove(id);
    run.operator.send_replace(Arc::new(world.state().operator.clone()));
}

fn hold_task(world: &World, id: &InstanceId, task: Option<&str>) {
    world.report(|state, now| {
        let session = state.sessions.get_mut(id).unwrap();
        session.gate = task.map_or(Gate::Idle, |task| Gate::Busy(Some(task.into())));
        session.gate_since = now;
        if task.is_none() && session.standing == Standing::Finishing {
            session.standing = Standing::Drained;
            session.standing_since = now;
        }
    });
}

fn kinds(world: &World, id: &InstanceId) -> Vec<OrderKind> {
    let state = world.state();
    state.orders.iter().filter(|(told, _)| told == id).map(|(_, order)| order.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_goes_whatever_waits_and_is_replaced() {
    let world = World::new();
    let run = two(&world).await;
    let id = first(&world);
    drain(&world, &run, &id);
    pass(10).await;
    assert_eq!(kinds(&world, &id), [OrderKind::Finish, OrderKind::Retire]);
    assert_eq!(world.state().terminated, [id]);
    assert_eq!(world.state().launch_calls.len(), 2, "two tasks wait, and one instance is no capacity");
    assert_eq!(world.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_busy_instance_closes_its_gate_behind_its_task_and_a_restart_forgets_nothing() {
    let world = World::new();
    let run = two(&world).await;
    let id = first(&world);
    hold_task(&world, &id, Some("a"));
    pass(1).await;
    drain(&world, &run, &id);
    pass(300).await;
    assert_eq!(kinds(&world, &id), [OrderKind::Finish]);
    assert!(world.state().terminated.is_empty(), "its task goes on");
    let waits = |hold: &Hold| matches!(hold, Hold::OperatorDrain { awaits: Awaits::Task(Some(_)), .. });
    assert!(run.published.borrow().plan.holds.iter().any(waits));

    run.crash().await;
    let run = world.start(policy(3), 2).await;
    pass(60).await;
    assert!(world.state().terminated.is_empty(), "nor does a restart end it");
    assert!(run.published.borrow().plan.holds.iter().any(waits), "the will is remembered");
    hold_task(&world, &id, None);
    pass(10).await;
    assert_eq!(world.state().terminated, [id], "it goes once it is free, though a task waits");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_taken_back_opens_the_gate_at_once() {
    let world = World::new();
    let run = two(&world).await;
    let id = first(&world);
    hold_task(&world, &id, Some("a"));
    pass(1).await;
    drain(&world, &run, &id);
    pass(60).await;
    undrain(&world, &run, &id);
    pass(1).await;
    assert_eq!(kinds(&world, &id), [OrderKind::Finish, OrderKind::Undrain]);
    assert_eq!(world.state().sessions[&id].standing, Standing::Open);
    hold_task(&world, &id, None);
    pass(30).await;
    assert!(world.state().terminated.is_empty(), "it works on");
}

#[tokio::test(start_paused = true)]
async fn a_pause_launches_nothing_until_it_is_over() {
    let world = World::new();
    world.state().operator.paused = Some(Pause { since: Time(1), reason: Some("maintenance".to_owned()) });
    world.enqueue("gpu", &["a"]);
    let run = world.start(policy(3), 1).await;
    pass(600).await;
    assert!(world.state().launch_calls.is_empty());
    let paused = |hold: &Hold| matches!(hold, Hold::Paused { .. });
    assert!(run.published.borrow().plan.holds.iter().any(paused));
    run.operator.send_modify(|will| Arc::make_mut(will).paused = None);
    pass(1).await;
    assert_eq!(world.state().launch_calls.len(), 1);
    assert!(!run.published.borrow().plan.holds.iter().any(paused));
}
