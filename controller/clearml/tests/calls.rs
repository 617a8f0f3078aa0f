//! Each call as the server sees it, and its answers as a real server gave them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use clearml::{
    Artifact, Configurations, Event, LIFE_FIELDS, NewTask, Others, Parameter, Parameters, Registration,
    Script, StatusNote, TaskEdit, TaskQuery, Timestamp, subcode,
};
use common::{Reply, Seen, Server};
use serde_json::{Value, json};

fn answering(data: Value) -> impl Fn(&Seen) -> Reply + Send + Sync {
    move |_| Reply::Data(data.clone())
}

fn time(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[tokio::test]
async fn queues_are_read_with_their_entries() {
    let server = Server::start(answering(json!({"queues": [
        {"id": "fd69", "name": "agentq", "company": "d1bd", "entries": [
            {"task": "d636", "added": "2026-11-23T18:51:25.708000+00:00"}, {"task": "d637"}]},
        {"id": "c7f1"}]})))
    .await;
    let queues = server.client().queues().await.unwrap();
    assert_eq!(queues[0].name.as_deref(), Some("agentq"));
    assert_eq!(queues[0].entries[0].added, time("2026-11-23T18:51:25.708Z"));
    assert_eq!((queues[0].entries.len(), queues[1].entries.len()), (2, 0));
    let sent = server.last("queues.get_all").json();
    assert_eq!(sent["only_fields"], json!(["id", "name", "entries"]));
    assert_eq!((&sent["page"], &sent["page_size"]), (&json!(0), &json!(500)));
}

#[tokio::test]
async fn workers_are_read_idle_busy_and_silent() {
    let server = Server::start(answering(json!({"workers": [
        {"company": {"id": "d1bd", "name": "clearml"}, "id": "real-agent:0", "ip": "127.0.0.1",
         "last_activity_time": "2026-11-23T18:51:10.371422+00:00", "last_report_time": "2026-11-23T18:51:10.371422+00:00",
         "queue": {"id": "fd69", "name": "agentq", "num_tasks": 1},
         "queues": [{"id": "fd69", "name": "agentq", "num_tasks": 1}, {"id": "0b5a"}],
         "register_time": "2026-11-23T18:49:06.739090+00:00", "register_timeout": 600, "system_tags": [], "tags": [],
         "task": {"id": "66d6", "last_iteration": 0, "name": "script task", "running_time": 20000},
         "user": {"id": "__real_user__", "name": "real_user"}},
        {"id": "usages test", "tags": null}]})))
    .await;
    let workers = server.client().workers(Duration::from_secs(600)).await.unwrap();
    assert_eq!(workers[0].register_time, time("2026-11-23T18:49:06.739090Z"));
    assert_eq!(workers[0].task.as_ref().unwrap().id, "66d6");
    assert_eq!(workers[0].queues[1].name, None);
    assert_eq!((&workers[1].task, workers[1].last_activity_time), (&None, None));
    assert_eq!(server.last("workers.get_all").json(), json!({"last_seen": 600}));
}

#[tokio::test]
async fn a_worker_registers_reports_and_leaves() {
    let server = Server::start(answering(json!({}))).await;
    let client = server.client();
    let timeout = Duration::from_secs(60);
    let registration = Registration { worker: "aws-autoscaler:1", timeout, tags: &["one"], queues: &["q"] };
    client.register_worker(&registration).await.unwrap();
    client.report_worker("aws-autoscaler:1", &["q"]).await.unwrap();
    client.unregister_worker("aws-autoscaler:1").await.unwrap();
    let sent = server.last("workers.register").json();
    assert_eq!(sent, json!({"worker": "aws-autoscaler:1", "timeout": 60, "tags": ["one"], "queues": ["q"]}));
    let sent = server.last("workers.status_report").json();
    assert!(sent["timestamp"].as_u64().unwrap() > 1_700_000_000_000, "milliseconds");
    assert_eq!(server.last("workers.unregister").json(), json!({"worker": "aws-autoscaler:1"}));
}

#[tokio::test]
async fn running_tasks_come_with_what_tells_who_runs_them() {
    let server = Server::start(answering(json!({"tasks": [
        {"id": "66d6", "name": "script task", "status": "in_progress", "last_worker": "real-agent:0",
         "status_changed": "2026-11-23T18:51:22.221000+00:00", "execution": {"queue": "fd69"},
         "runtime": {"progress": "0", "gpu_count": 0}},
        {"id": "66d7", "execution": null, "runtime": null}]})))
    .await;
    let query = TaskQuery { status: &["in_progress"], only_fields: LIFE_FIELDS, ..TaskQuery::default() };
    let tasks = server.client().tasks(&query).await.unwrap();
    assert_eq!(tasks[0].last_worker.as_deref(), Some("real-agent:0"));
    assert_eq!(tasks[0].execution.queue.as_deref(), Some("fd69"));
    assert_eq!(tasks[0].runtime["gpu_count"], 0);
    assert_eq!((&tasks[1].execution.queue, tasks[1].status_changed), (&None, None));
    let sent = server.last("tasks.get_all").json();
    assert_eq!(sent["status"], json!(["in_progress"]));
    assert!(sent["only_fields"].as_array().unwrap().contains(&json!("execution.queue")));
    assert!(sent.get("tags").is_none());
}

#[tokio::test]
async fn of_the_waiting_only_the_latest_are_read_and_the_servers_clock_with_them() {
    let server = Server::start(|seen| {
        let page = seen.json()["page"].as_u64().unwrap();
        let minute = |row: u64| 59 - (page * 500 + row) / 100;
        let rows: Vec<_> = (0..500)
            .map(|row| {
                let changed = format!("2026-11-23T18:{:02}:00+00:00", minute(row));
                json!({"id": format!("{page}-{row}"), "status_changed": changed})
            })
            .collect();
        Reply::Data(json!({"tasks": rows}))
    })
    .await;
    let client = server.client();
    assert_eq!(client.server_time(), None);
    let tasks = client.queued_since(time("2026-11-23T18:54:30Z").unwrap(), LIFE_FIELDS).await.unwrap();
    assert_eq!(tasks.len(), 1000, "the second page reaches back far enough");
    let sent = server.last("tasks.get_all").json();
    assert_eq!((&sent["order_by"], &sent["page"]), (&json!(["-status_changed"]), &json!(1)));
    let ahead = client.server_time().unwrap().duration_since(Timestamp::now());
    assert!(ahead.as_secs().abs() < 5, "the test's server has this machine's clock: {ahead}");
}

#[tokio::test]
async fn a_long_listing_that_shrinks_meanwhile_loses_nothing() {
    // Whenever a page was given, the first task of the listing ends.
    let tasks: Mutex<Vec<usize>> = Mutex::new((0..1_400).collect());
    let server = Server::start(move |seen| {
        let sent = seen.json();
        let page = usize::try_from(sent["page"].as_u64().unwrap()).unwrap();
        let mut tasks = tasks.lock().unwrap();
        let rows: Vec<_> =
            tasks.iter().skip(page * 500).take(500).map(|id| json!({"id": format!("{id}")})).collect();
        tasks.remove(0);
        Reply::Data(json!({"tasks": rows}))
    })
    .await;
    let found = server.client().tasks(&TaskQuery::default()).await.unwrap();
    let ids: BTreeMap<usize, ()> = found.iter().map(|task| (task.id.parse().unwrap(), ())).collect();
    assert_eq!(ids.len(), found.len(), "each once");
    assert!((5..1_400).all(|id| ids.contains_key(&id)), "whatever ran all the time is found");
    assert_eq!(server.calls("tasks.get_all"), 5);
}

#[tokio::test]
async fn missing_queues_are_made_also_against_a_rival() {
    let rival = Mutex::new(false);
    let server = Server::start(move |seen| {
        let mut rival = rival.lock().unwrap();
        match (seen.endpoint.as_str(), seen.json()["name"].as_str()) {
            ("queues.get_all", _) if *rival => Reply::Data(json!({"queues": [
                {"id": "1", "name": "there"}, {"id": "7", "name": "raced"}]})),
            ("queues.get_all", _) => Reply::Data(json!({"queues": [{"id": "1", "name": "there"}]})),
            ("queues.create", Some("raced")) => {
                *rival = true;
                Reply::Fault(400, 801, "Value combination already exists")
            }
            ("queues.create", Some("ab")) => Reply::Fault(400, 800, "name must be at least 3 characters"),
            ("queues.create", Some(_)) => Reply::Data(json!({"id": "2"})),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let client = server.client();
    let ids = client.ensure_queues(&["there", "new", "raced"]).await.unwrap();
    let ids: Vec<_> = ids.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
    assert_eq!(ids, [("new", "2"), ("raced", "7"), ("there", "1")]);
    let error = client.ensure_queues(&["ab"]).await.unwrap_err();
    assert!(error.is_refusal(subcode::INVALID_DATA), "{error}");
}

#[tokio::test]
async fn a_project_is_found_by_its_exact_name_or_made() {
    let made = Mutex::new(false);
    let server = Server::start(move |seen| {
        let mut made = made.lock().unwrap();
        match seen.endpoint.as_str() {
            "projects.get_all" if *made => Reply::Data(json!({"projects": [{"id": "p1", "name": "DevOps"}]})),
            "projects.get_all" => Reply::Data(json!({"projects": [{"id": "p0", "name": "DevOps2"}]})),
            "projects.create" => {
                *made = true;
                Reply::Data(json!({"id": "p1"}))
            }
            other => panic!("{other}"),
        }
    })
    .await;
    let client = server.client();
    assert_eq!(client.project("DevOps").await.unwrap(), None);
    assert_eq!(client.ensure_project("DevOps").await.unwrap(), "p1");
    assert_eq!(client.ensure_project("DevOps").await.unwrap(), "p1");
    assert_eq!(server.calls("projects.create"), 1);
    assert_eq!(server.last("projects.get_all").json()["name"], "^DevOps$");
}

#[tokio::test]
async fn a_task_is_made_enqueued_and_lives_its_life() {
    let server = Server::start(answering(json!({"id": "d636", "queued": 1, "updated": 1}))).await;
    let client = server.client();
    let task = NewTask {
        name: "demo".to_owned(),
        kind: "training".to_owned(),
        script: Some(Script { binary: "bash".to_owned(), diff: "sleep 1".to_owned(), ..Script::default() }),
        hyperparams: Parameters::default().with("Args", "seconds", &1.5),
        ..NewTask::default()
    };
    assert_eq!(client.create_task(&task).await.unwrap(), "d636");
    let sent = server.last("tasks.create").json();
    assert_eq!(sent["type"], "training");
    assert_eq!(
        sent["hyperparams"],
        json!({"Args": {"seconds": {"section": "Args", "name": "seconds", "value": "1.5"}}})
    );
    assert_eq!(sent["script"]["requirements"], json!({}));
    assert!(sent.get("project").is_none() && sent.get("container").is_none());

    let note = StatusNote { reason: Some("why"), message: Some("what"), force: true };
    let told = json!({"task": "d636", "status_reason": "why", "status_message": "what", "force": true});
    client.enqueue_task("d636", "q1", &note).await.unwrap();
    let mut enqueued = told.clone();
    enqueued["queue"] = json!("q1");
    assert_eq!(server.last("tasks.enqueue").json(), enqueued);
    client.task_started("d636", &note).await.unwrap();
    client.task_stopped("d636", &note).await.unwrap();
    client.task_completed("d636", &note).await.unwrap();
    client.task_failed("d636", &note).await.unwrap();
    client.stop_task("d636", &note).await.unwrap();
    for endpoint in ["tasks.started", "tasks.stopped", "tasks.completed", "tasks.failed", "tasks.stop"] {
        assert_eq!(server.last(endpoint).json(), told, "{endpoint}");
    }
    client.ping_task("d636").await.unwrap();
    assert_eq!(server.last("tasks.ping").json(), json!({"task": "d636"}));
    let edit = TaskEdit { runtime: Some(serde_json::Map::new()), force: true, ..TaskEdit::default() };
    client.edit_task("d636", &edit).await.unwrap();
    assert_eq!(server.last("tasks.edit").json(), json!({"task": "d636", "runtime": {}, "force": true}));
}

#[tokio::test]
async fn a_task_is_read_whole() {
    let server = Server::start(answering(json!({"task": {"id": "66d6", "type": "service", "status": "created",
        "hyperparams": {"Args": {"lr": {"section": "Args", "name": "lr", "value": "0.5"}}}, "models": {"input": []},
        "script": {"binary": "python"}, "execution": {"queue": "fd69", "artifacts": []}, "container": {}}})))
    .await;
    let task = server.client().task("66d6").await.unwrap();
    assert_eq!(task.parameter("Args", "lr"), Some("0.5"));
    assert_eq!(task.parameter("Args", "nothing"), None);
    assert_eq!(task.kind.as_deref(), Some("service"));
    assert_eq!(task.execution.queue.as_deref(), Some("fd69"));
}

#[tokio::test]
async fn what_a_task_is_configured_with_is_written_and_read_back() {
    let server = Server::start(answering(json!({"configurations": [
        {"task": "other", "configuration": [{"name": "General", "value": "not this"}]},
        {"task": "66d6", "configuration": [{"name": "General", "type": "dictionary", "value": "{}"}]}]})))
    .await;
    let client = server.client();
    let mut parameters = Parameters::default().with("Args", "run", &"True");
    let (kind, description) = (Some("int".to_owned()), Some("in minutes".to_owned()));
    parameters.insert("General", "idle", Parameter { value: "15".to_owned(), kind, description });
    client.edit_parameters("66d6", &parameters, Others::DropInSection, true).await.unwrap();
    assert_eq!(
        server.last("tasks.edit_hyper_params").json(),
        json!({"task": "66d6", "force": true, "replace_hyperparams": "section", "hyperparams": [
            {"section": "Args", "name": "run", "value": "True"},
            {"section": "General", "name": "idle", "value": "15", "type": "int", "description": "in minutes"}]})
    );
    let general = Configurations::one("General", "{}".to_owned());
    client.edit_configurations("66d6", &general, false).await.unwrap();
    assert_eq!(
        server.last("tasks.edit_configuration").json(),
        json!({"task": "66d6", "force": false, "configuration": [{"name": "General", "value": "{}"}]})
    );
    assert_eq!(client.configuration("66d6", "General").await.unwrap().as_deref(), Some("{}"));
    assert_eq!(client.configuration("66d6", "Other").await.unwrap(), None);
    let sent = server.last("tasks.get_configurations").json();
    assert_eq!(sent, json!({"tasks": ["66d6"], "names": ["Other"]}));

    let artifact = Artifact {
        key: "controller".to_owned(),
        kind: "custom".to_owned(),
        mode: "input".to_owned(),
        hash: Some("abc".to_owned()),
        content_size: Some(3),
        ..Artifact::default()
    };
    client.add_artifacts("66d6", &[artifact], true).await.unwrap();
    assert_eq!(
        server.last("tasks.add_or_update_artifacts").json(),
        json!({"task": "66d6", "force": true, "artifacts": [
            {"key": "controller", "type": "custom", "mode": "input", "hash": "abc", "content_size": 3}]})
    );
    assert!(!format!("{parameters:?}{general:?}").contains("15"), "values may be secrets");
}

#[tokio::test]
async fn tasks_are_found_by_project_kind_and_tags_of_the_server() {
    let server = Server::start(answering(
        json!({"tasks": [{"id": "66d6", "parent": "66d5", "script": {"binary": "bash"},
        "execution": {"artifacts": [{"key": "controller", "hash": "abc", "mode": "input", "type": "custom"},
            {"key": "strange", "content_size": "large"}]}}]}),
    ))
    .await;
    let query = TaskQuery {
        project: &["p1"],
        kind: &["service"],
        system_tags: &["-archived"],
        ..TaskQuery::default()
    };
    let found = server.client().tasks(&query).await.unwrap();
    assert_eq!(found[0].script.binary.as_deref(), Some("bash"));
    assert_eq!(found[0].parent.as_deref(), Some("66d5"));
    assert_eq!(found[0].execution.artifacts.len(), 1, "what is strange is left out");
    let sent = server.last("tasks.get_all").json();
    assert_eq!((&sent["project"], &sent["type"]), (&json!(["p1"]), &json!(["service"])));
    assert_eq!(sent["system_tags"], json!(["-archived"]));
}

#[tokio::test]
async fn an_empty_queue_gives_nothing() {
    let server = Server::start(answering(json!({}))).await;
    assert_eq!(server.client().next_task("q").await.unwrap(), None);
}

#[tokio::test]
async fn events_go_as_lines_of_json_without_what_would_spoil_them() {
    let server = Server::start(answering(json!({"added": 1, "errors": 2, "errors_info": {}}))).await;
    let client = server.client();
    let scalar = |value| Event::Scalar {
        task: "t".to_owned(),
        timestamp: 1,
        iter: 1,
        metric: "m".to_owned(),
        variant: "v".to_owned(),
        value,
    };
    let log = Event::Log {
        task: "t".to_owned(),
        timestamp: 1,
        level: "info".to_owned(),
        worker: "w".to_owned(),
        msg: "two\nlines".to_owned(),
    };
    let added = client.add_events(&[log, scalar(1.5), scalar(f64::NAN)]).await.unwrap();
    assert_eq!((added.added, added.errors), (1, 2));
    let seen = server.last("events.add_batch");
    assert_eq!(seen.content_type, "application/json-lines");
    let lines: Vec<Value> = seen.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["type"], &lines[0]["msg"]), (&json!("log"), &json!("two\nlines")));
    assert_eq!((&lines[1]["type"], &lines[1]["value"]), (&json!("training_stats_scalar"), &json!(1.5)));
    assert_eq!(client.add_events(&[scalar(f64::INFINITY)]).await.unwrap().added, 0);
    assert_eq!(server.calls("events.add_batch"), 1);
}
