//! Codes, credentials, bodies and files.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::{Fixture, envelope};

#[tokio::test]
async fn refusals_have_the_codes_of_the_real_server() {
    let fixture = Fixture::new().await;
    let task = fixture.data("tasks.create", json!({"name": "task", "type": "service"})).await;
    fixture.data("queues.create", json!({"name": "queue"})).await;
    for (path, body, code, subcode) in [
        ("nope.nope", json!({}), 404, 0),
        ("workers.get_all_ex", json!({}), 404, 0),
        ("workers.get_runtime_properties", json!({}), 404, 0),
        ("v2.30/tasks.edit_runtime", json!({"task": task["id"]}), 404, 0),
        ("tasks.get_by_id", json!({"task": "nope"}), 400, 101),
        ("tasks.get_by_id", json!({}), 400, 12),
        ("tasks.create", json!({"name": "x"}), 400, 12),
        ("tasks.create", json!({"name": "x", "type": "service"}), 400, 800),
        ("tasks.stopped", json!({"task": task["id"]}), 400, 110),
        ("tasks.enqueue", json!({"task": task["id"], "queue": "nope"}), 400, 701),
        ("queues.get_next_task", json!({"queue": "nope"}), 400, 701),
        ("queues.create", json!({"name": "queue"}), 400, 801),
        ("queues.create", json!({"name": "no"}), 400, 800),
        ("events.add_batch", json!({"type": "log"}), 400, 131),
        ("workers.unregister", json!({"worker": "nobody"}), 200, 0),
        ("v999.0/queues.get_all", json!({}), 200, 0),
        ("api/v2.23/queues.get_all", json!({}), 200, 0),
    ] {
        let (got, subgot, _) = fixture.call(path, body).await;
        assert_eq!((got, subgot), (code, subcode), "{path}");
    }
}

#[tokio::test]
async fn the_envelope_names_the_versions() {
    let fixture = Fixture::new().await;
    let reply: Value = fixture.send("v2.23/queues.get_all", &json!({})).await.unwrap().json().await.unwrap();
    assert_eq!(
        reply["meta"]["endpoint"],
        json!({"name": "queues.get_all", "requested_version": "2.23", "actual_version": "2.4"})
    );
    let reply: Value = fixture.send("nope.nope", &json!({})).await.unwrap().json().await.unwrap();
    assert_eq!(reply["meta"]["endpoint"]["actual_version"], Value::Null);
    assert_eq!(reply["meta"]["result_msg"], "Unable to find endpoint for name nope.nope and version 2.34");
}

#[tokio::test]
async fn keys_give_a_token_and_a_token_gives_a_fresh_one() {
    let fixture = Fixture::new().await;
    let url = |path: &str| format!("{}/{path}", fixture.server.api_url());
    let with = |token: String| fixture.http.get(url("queues.get_all")).bearer_auth(token).send();

    let bare = envelope(fixture.http.post(url("queues.get_all")).send().await.unwrap()).await;
    assert_eq!((bare.0, bare.1), (401, 20));
    let wrong = fixture.http.post(url("auth.login")).basic_auth("a", Some("b")).send().await.unwrap();
    let wrong = envelope(wrong).await;
    assert_eq!((wrong.0, wrong.1), (401, 22));
    let bad = envelope(with("x".into()).await.unwrap()).await;
    assert_eq!((bad.0, bad.1), (401, 30));

    let token =
        fixture.data("auth.login", json!({"expiration_sec": 60})).await["token"].as_str().unwrap().to_owned();
    // A GET is as good as a POST.
    assert_eq!(envelope(with(token.clone()).await.unwrap()).await.0, 200);
    let again = fixture.http.post(url("auth.login")).bearer_auth(&token).send().await.unwrap();
    let fresh = envelope(again).await.2["token"].as_str().unwrap().to_owned();
    assert_eq!(envelope(with(fresh).await.unwrap()).await.0, 200);

    fixture.server.handle().expire_tokens();
    assert_eq!(envelope(with(token).await.unwrap()).await.1, 30);
}

#[tokio::test]
async fn bodies_are_read_as_the_server_reads_them() {
    let fixture = Fixture::new().await;
    let task = fixture.server.handle().create_script("a task", "true").unwrap();
    let line = |msg: &str| json!({"type": "log", "task": task, "msg": msg}).to_string();
    let scalar = |value: Value| {
        json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "iter": 1,
            "value": value})
        .to_string()
    };
    for (kind, body, code, subcode) in [
        (Some("application/json-lines"), format!("{}\n{}\n", line("one"), line("two")), 200, 0),
        (Some("application/json-lines"), format!("{}\n{{\"type\":\"log\"}}", line("three")), 200, 0),
        (Some("application/json-lines"), "{\"type\":\"log\"}".to_owned(), 400, 131),
        (Some("application/json-lines"), format!("{}\n{}", line("lost"), scalar(json!("NaN"))), 500, 0),
        (Some("application/json-lines"), scalar(json!(0.5)), 200, 0),
        (Some("application/x-ndjson"), format!("{}\n{}", line("lost"), line("lost")), 400, 0),
        (None, format!("{}\n{}", line("lost"), line("lost")), 400, 0),
        (Some("text/plain"), line("four"), 200, 0),
        (Some("application/json"), format!("[{}]", line("lost")), 500, 0),
        (Some("application/json"), "{bad".to_owned(), 400, 0),
    ] {
        let mut request = fixture.http.post(format!("{}/events.add_batch", fixture.server.api_url()));
        request = request.basic_auth(fixture.server.access_key(), Some(fixture.server.secret_key()));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let (got, subgot, _) = envelope(request.body(body.clone()).send().await.unwrap()).await;
        assert_eq!((got, subgot), (code, subcode), "{kind:?} {body}");
    }
    assert_eq!(fixture.server.handle().console(&task), ["one", "two", "three", "four"]);
    let scalars = fixture.data("events.scalar_metrics_iter_histogram", json!({"task": task})).await;
    assert_eq!(scalars, json!({"m": {"v": {"name": "v", "x": [1], "y": [0.5]}}}));

    let coded = fixture.http.post(format!("{}/queues.get_all", fixture.server.api_url()));
    let coded = coded.header("content-encoding", "gzip").body("x").send().await.unwrap();
    assert_eq!(coded.status(), 415);
}

#[tokio::test]
async fn a_page_holds_at_most_500_and_the_next_one_goes_on() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    let queue = handle.create_queue("queue").unwrap();
    for number in 0..501 {
        handle.create_task(&format!("task {number}"), 1.0, Some(&queue)).unwrap();
    }
    let ask =
        |page: u32| json!({"status": ["queued"], "only_fields": ["name"], "page": page, "page_size": 1000});
    let first = fixture.data("tasks.get_all", ask(0)).await;
    let second = fixture.data("tasks.get_all", ask(1)).await;
    assert_eq!(first["tasks"].as_array().unwrap().len(), 500);
    assert_eq!(second["tasks"][0]["name"], "task 500");
    assert_eq!(second["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_is_named_by_its_form_field_and_wants_a_token() {
    let fixture = Fixture::new().await;
    let token = fixture.data("auth.login", json!({})).await["token"].as_str().unwrap().to_owned();
    let root = fixture.server.files_url();
    let form = || Form::new().part("project/a file.txt", Part::text("content").file_name("any.txt"));

    let basic =
        fixture.http.post(&root).basic_auth(fixture.server.access_key(), Some(fixture.server.secret_key()));
    assert_eq!(basic.multipart(form()).send().await.unwrap().status(), 401);
    let post = fixture.http.post(&root).bearer_auth(&token).multipart(form()).send().await.unwrap();
    let status = post.status();
    assert_eq!(status, 200, "{}", post.text().await.unwrap());

    let url = format!("{root}/project/a%20file.txt");
    assert_eq!(fixture.http.get(&url).send().await.unwrap().status(), 401);
    let get = fixture.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(get.text().await.unwrap(), "content");
    assert_eq!(fixture.http.delete(&url).bearer_auth(&token).send().await.unwrap().status(), 200);
    assert_eq!(fixture.http.get(&url).bearer_auth(&token).send().await.unwrap().status(), 404);
}
