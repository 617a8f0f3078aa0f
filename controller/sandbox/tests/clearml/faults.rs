//! Planned faults.

use std::time::Duration;

use sandbox::clearml::{Fault, Status};
use serde_json::json;

use super::Fixture;

#[tokio::test]
async fn a_dropped_reply_has_done_its_work() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    let queue = handle.create_queue("queue").unwrap();
    let task = handle.create_task("task", 1.0, Some(&queue)).unwrap();

    handle.inject("queues.get_next_task", Fault::DropReply, Some(1));
    assert!(fixture.send("queues.get_next_task", &json!({"queue": queue})).await.is_err());

    let info = handle.task(&task).unwrap();
    assert_eq!((info.status, info.queue.as_deref()), (Status::Queued, Some(queue.as_str())));
    assert!(handle.queues().iter().all(|queue| queue.entries.is_empty()), "popped, and nobody has it");
    assert_eq!(handle.pops().last().unwrap().task, Some(task.clone()));
    assert_eq!(fixture.data("queues.get_next_task", json!({"queue": queue})).await, json!({}));

    handle.enqueue(&task, &queue).unwrap();
    assert_eq!(fixture.data("queues.get_next_task", json!({"queue": queue})).await["entry"]["task"], task);
}

#[tokio::test]
async fn a_dropped_call_has_done_nothing() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    handle.inject("queues.create", Fault::Drop, Some(1));
    assert!(fixture.send("queues.create", &json!({"name": "queue"})).await.is_err());
    assert!(handle.queues().iter().all(|queue| queue.name != "queue"));
    fixture.data("queues.create", json!({"name": "queue"})).await;
}

#[tokio::test]
async fn answers_are_late_broken_or_not_the_servers() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    let ask = || fixture.send("queues.get_all", &serde_json::Value::Null);

    handle.inject("queues.*", Fault::HalfBody, Some(1));
    assert!(ask().await.unwrap().bytes().await.is_err());

    handle.inject("*", Fault::Html { code: 502 }, None);
    for _ in 0..2 {
        let page = ask().await.unwrap();
        assert_eq!(
            (page.status().as_u16(), page.headers()["content-type"].as_bytes()),
            (502, &b"text/html"[..])
        );
    }
    handle.clear_faults();

    let refused = Fault::Refuse { code: 503, subcode: 0, message: "maintenance".into() };
    handle.inject("queues.get_all", refused, Some(1));
    assert_eq!(fixture.call("queues.get_all", json!({})).await.0, 503);

    handle.inject("queues.get_all", Fault::Delay(Duration::from_millis(1)), Some(1));
    assert_eq!(fixture.call("queues.get_all", json!({})).await.0, 200);
    assert_eq!(handle.count("queues.get_all"), 5);
}
