//! Workers, tasks and time. The clock is virtual: these stories use no socket.

use std::time::Duration;

use sandbox::clearml::{ApiError, Handle, Options, Server, Status};
use serde_json::{Value, json};

async fn start() -> (Server, Handle) {
    let server = Server::start(Options::default()).await.unwrap();
    let handle = server.handle();
    (server, handle)
}

fn code(result: Result<Value, ApiError>) -> u16 {
    result.unwrap_err().subcode
}

fn running(handle: &Handle) -> (String, String) {
    let queue = handle.create_queue("queue").unwrap();
    let task = handle.create_task("task", 1.0, Some(&queue)).unwrap();
    handle.call("queues.get_next_task", json!({"queue": queue})).unwrap();
    handle.call("tasks.started", json!({"task": task})).unwrap();
    let report = json!({"worker": "w", "timestamp": 1, "task": task, "queue": queue, "queues": [queue]});
    handle.call("workers.status_report", report).unwrap();
    (queue, task)
}

#[tokio::test(start_paused = true)]
async fn a_ghost_is_listed_until_its_time_is_out() {
    let (_server, handle) = start().await;
    handle.call("workers.register", json!({"worker": "short", "timeout": 60})).unwrap();
    handle.call("workers.register", json!({"worker": "usual"})).unwrap();
    let ids = || handle.workers().into_iter().map(|worker| worker.id).collect::<Vec<_>>();

    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(ids(), ["short", "usual"]);
    let lately = handle.call("workers.get_all", json!({"last_seen": 30})).unwrap();
    assert_eq!(lately["workers"], json!([]));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ids(), ["usual"]);
    tokio::time::advance(Duration::from_secs(540)).await;
    assert!(ids().is_empty());

    handle.call("workers.status_report", json!({"worker": "usual", "timestamp": 1})).unwrap();
    assert_eq!(ids(), ["usual"], "a late report registers it again");
    handle.call("workers.unregister", json!({"worker": "usual"})).unwrap();
    assert!(ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_stops_a_silent_task_and_spares_one_that_pings() {
    let (_server, handle) = start().await;
    let (_, silent) = running(&handle);
    let lively = handle.create_task("lively", 1.0, None).unwrap();
    handle.call("tasks.started", json!({"task": lively})).unwrap();
    for _ in 0..12 {
        tokio::time::advance(Duration::from_secs(900)).await;
        handle.call("tasks.ping", json!({"task": lively})).unwrap();
        tokio::task::yield_now().await;
    }
    let stopped = handle.task(&silent).unwrap();
    assert_eq!(
        (stopped.status, stopped.status_message.as_str()),
        (Status::Stopped, "Forced stop (non-responsive)")
    );
    assert_eq!(handle.task(&lively).unwrap().status, Status::InProgress);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_live_worker_and_for_no_dead_one() {
    let (_server, handle) = start().await;
    let (queue, task) = running(&handle);
    handle.call("tasks.stop", json!({"task": task})).unwrap();
    let told = handle.task(&task).unwrap();
    assert_eq!((told.status, told.status_message.as_str()), (Status::InProgress, "stopping"));

    tokio::time::advance(Duration::from_secs(601)).await;
    handle.call("tasks.stop", json!({"task": task})).unwrap();
    assert_eq!(handle.task(&task).unwrap().status, Status::Stopped);

    let waiting = handle.create_task("waiting", 1.0, Some(&queue)).unwrap();
    handle.call("tasks.stop", json!({"task": waiting})).unwrap();
    assert_eq!(handle.task(&waiting).unwrap().status, Status::Stopped);
    assert!(handle.queues().iter().all(|queue| queue.entries.is_empty()));
}

#[tokio::test]
async fn a_task_goes_back_to_its_queue_only_as_the_server_allows() {
    let (_server, handle) = start().await;
    let (queue, task) = running(&handle);
    let enqueue =
        |force: bool| handle.call("tasks.enqueue", json!({"task": task, "queue": queue, "force": force}));

    assert_eq!(code(enqueue(false)), 110, "it runs");
    handle.call("tasks.completed", json!({"task": task})).unwrap();
    handle.call("tasks.completed", json!({"task": task})).unwrap();
    assert_eq!(code(enqueue(false)), 110, "it is done");
    handle.call("tasks.started", json!({"task": task})).unwrap();
    handle.call("tasks.failed", json!({"task": task})).unwrap();
    enqueue(false).unwrap();
    assert_eq!(code(enqueue(false)), 706, "it waits already");
    let back = handle.call("tasks.dequeue", json!({"task": task})).unwrap();
    assert_eq!(
        (&back["fields"]["status"], &back["fields"]["enqueue_status"]),
        (&json!("failed"), &Value::Null)
    );

    let info = handle.task(&task).unwrap();
    assert_eq!((info.starts, info.last_worker.as_deref()), (2, Some("w")), "only a reset forgets the worker");
    handle.call("tasks.reset", json!({"task": task})).unwrap();
    let info = handle.task(&task).unwrap();
    assert_eq!((info.status, info.last_worker, info.queue), (Status::Created, None, None));
}

#[tokio::test]
async fn a_task_that_ran_is_edited_only_with_force() {
    let (_server, handle) = start().await;
    let (_, task) = running(&handle);
    let params = |section: &str, force: bool| {
        let param = json!({"section": section, "name": "n", "value": "1"});
        handle.call("tasks.edit_hyper_params", json!({"task": task, "hyperparams": [param], "force": force}))
    };
    assert_eq!(code(params("Args", false)), 110);
    params("Args", true).unwrap();
    params("properties", false).unwrap();

    handle.call("tasks.stopped", json!({"task": task})).unwrap();
    assert_eq!(code(params("Args", true)), 110, "force helps with a running task alone");
    params("properties", false).unwrap();
    let runtime =
        |force: bool| handle.call("tasks.edit", json!({"task": task, "runtime": {"b": "2"}, "force": force}));
    handle.call("tasks.edit_runtime", json!({"task": task, "add_or_update": {"a": "1"}})).unwrap();
    assert_eq!(code(runtime(false)), 110);
    runtime(true).unwrap();
    let read = handle.call("tasks.get_by_id", json!({"task": task})).unwrap();
    assert_eq!(read["task"]["runtime"], json!({"b": "2"}), "it replaces the whole map");
}

#[tokio::test]
async fn artifacts_of_a_run_go_with_a_reset_and_inputs_stay() {
    let (_server, handle) = start().await;
    let (_, task) = running(&handle);
    let artifacts = json!([
        {"key": "given", "type": "custom", "mode": "input", "uri": "http://files/given"},
        {"key": "made", "type": "custom", "uri": "http://files/made"},
    ]);
    let add = json!({"task": task, "artifacts": artifacts, "force": true});
    handle.call("tasks.add_or_update_artifacts", add).unwrap();
    handle.call("tasks.reset", json!({"task": task, "force": true})).unwrap();
    let read = handle.call("tasks.get_by_id", json!({"task": task})).unwrap();
    let keys: Vec<&Value> = read["task"]["execution"]["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| &artifact["key"])
        .collect();
    assert_eq!(keys, ["given"]);
}

#[tokio::test]
async fn filters_take_patterns_lists_and_exclusions() {
    let (_server, handle) = start().await;
    for (name, tags) in [("alpha", json!(["a"])), ("beta", json!(["a", "b"])), ("gamma", json!([]))] {
        handle.call("tasks.create", json!({"name": name, "type": "training", "tags": tags})).unwrap();
    }
    let names = |query: Value| -> Vec<String> {
        let reply = handle.call("tasks.get_all", query).unwrap();
        let tasks = reply["tasks"].as_array().unwrap();
        tasks.iter().map(|task| task["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(json!({"name": "^(alpha|gamma)$"})), ["alpha", "gamma"]);
    assert_eq!(names(json!({"tags": ["a", "-b"]})), ["alpha"]);
    assert_eq!(names(json!({"tags": ["__$all", "a", "b"]})), ["beta"]);
    assert_eq!(names(json!({"order_by": ["-name"], "page": 0, "page_size": 2})), ["gamma", "beta"]);
    assert_eq!(names(json!({"created": [">=2000-01-01T00:00:00", "<2001-01-01T00:00:00+00:00"]})), [""; 0]);
    assert_eq!(code(handle.call("tasks.get_all", json!({"name": "("}))), 21);
}
