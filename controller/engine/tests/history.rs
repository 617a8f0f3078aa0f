//! What the loop did goes into the history with its reason, once.

mod support;

use engine::history::EventKind;
use engine::ports::CloudError;
use support::{World, pass, policy};

fn told(world: &World) -> Vec<(EventKind, String)> {
    world.state().events.iter().map(|event| (event.kind, event.reason.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn an_instances_life_is_told_once_and_with_reasons() {
    let world = World::new();
    world.state().refuse_next = Some(CloudError::Throttled("RequestLimitExceeded".to_owned()));
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(10), 1).await;
    pass(30).await;
    world.attach_all();
    world.state().queues.get_mut("gpu").unwrap().clear();
    pass(200).await;
    let told = told(&world);
    let kinds: Vec<EventKind> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Refused,
            EventKind::Launched,
            EventKind::Drain,
            EventKind::Retire,
            EventKind::Terminated,
            EventKind::Gone
        ]
    );
    for (at, word) in [
        (0, "RequestLimitExceeded"),
        (1, "where 1 task waits"),
        (2, "idle for 1 min"),
        (4, "nothing shows a task there"),
        (5, "after its launch"),
    ] {
        assert!(told[at].1.contains(word), "{:?}", told[at]);
    }
    let state = world.state();
    let pool = |event: &engine::history::Event| event.queue.is_some() && event.resource.is_some();
    assert!(state.events.iter().all(pool), "{:?}", state.events);
    assert!(state.events[1..].iter().all(|event| event.instances == ["i-0000".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_to_drain_names_the_task() {
    let world = World::new();
    world.enqueue("gpu", &["a"]);
    let _run = world.start(policy(10), 1).await;
    pass(10).await;
    world.attach_all();
    world.state().queues.get_mut("gpu").unwrap().clear();
    world.state().taken_unseen = Some("late".into());
    pass(120).await;
    let state = world.state();
    let refused: Vec<_> = state.events.iter().filter(|event| event.kind == EventKind::DrainRefused).collect();
    assert_eq!(refused.len(), 1, "{:?}", state.events);
    assert_eq!(refused[0].task, Some("late".into()));
}
