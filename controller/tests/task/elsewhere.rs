//! Runs by an agent elsewhere: `--remote` and the template.

use sandbox::clearml::Fault;
use serde_json::{Value, json};

use crate::stage::{Stage, bootstrap, store, told};

fn remote_params(stage: &Stage) -> Value {
    let mut hyper_params = stage.hyper_params();
    hyper_params["sidecar"] = json!("required");
    hyper_params["sidecar_dir"] = json!(stage.path());
    hyper_params["advertise_address"] = json!("autoscaler.example.com");
    hyper_params["listen"] = json!("0.0.0.0:9790");
    for name in ["sidecar-x86_64", "sidecar-aarch64"] {
        std::fs::write(stage.path().join(name), name).unwrap();
    }
    hyper_params
}

#[tokio::test(flavor = "multi_thread")]
async fn remotely_everything_is_uploaded_once_and_the_task_waits_for_an_agent() {
    let stage = Stage::set().await;
    stage.configure(&remote_params(&stage));
    let output = stage.script_output(&["--remote", "--queue", "my-services"]).await;
    let told_first = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told_first}");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in
        ["created new task id=", "Running AWS auto-scaler as a service", "No agent serves queue my-services"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(told_first.contains("uploading") && told_first.contains("git_pass"), "{told_first}");

    let id = stage.only_task();
    let task = stage.task(&id);
    assert_eq!(task["status"], "queued");
    let queue = stage.handle().queues().into_iter().find(|queue| queue.entries == [id.clone()]).unwrap();
    assert_eq!(queue.name, "my-services");
    let general = &task["hyperparams"]["General"];
    assert_eq!(general["sidecar_dir"]["value"], "", "of this machine, and of no use elsewhere");
    assert_eq!(general["git_pass"]["value"], "");
    assert_eq!(task["script"]["binary"], "bash");
    let container = &task["container"];
    assert!(container["arguments"].as_str().unwrap().contains("-p 9790:9790"), "{container}");
    let artifacts = task["execution"]["artifacts"].as_array().unwrap();
    let names: Vec<_> = artifacts.iter().map(|artifact| artifact["key"].as_str().unwrap()).collect();
    assert_eq!(names, ["controller", "sidecar-x86_64", "sidecar-aarch64"]);
    assert!(artifacts.iter().all(|artifact| artifact["mode"] == "input"), "{artifacts:?}");

    // The same bytes are there, for whoever comes next.
    let output = stage.script_output(&["--remote"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(!told(&output).contains("uploading"), "{}", told(&output));

    // What was put in their place is not run.
    let script = task["script"]["diff"].as_str().unwrap();
    let ended = bootstrap(&stage, script).await;
    assert!(ended.contains("fetched controller") && ended.contains("controller 0."), "{ended}");
    let url = artifacts[1]["uri"].as_str().unwrap();
    let cached =
        std::fs::read_dir(stage.path().join(".cache/clearml-autoscaler")).unwrap().next().unwrap().unwrap();
    std::fs::write(cached.path().join("sidecar-x86_64"), "another").unwrap();
    let path = url.strip_prefix(&stage.sandbox.clearml.files_url()).unwrap().trim_start_matches('/');
    store(&stage, path, b"something else").await;
    let ended = bootstrap(&stage, script).await;
    assert!(ended.contains("it is not what was uploaded"), "{ended}");
    assert!(!ended.contains("controller 0."), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_instances_could_not_reach_is_refused_before_anything_is_made() {
    let stage = Stage::set().await;
    let good = remote_params(&stage);
    for (missing, named, flag) in [
        ("advertise_address", "hyper_params.advertise_address", "--advertise-address"),
        ("agent_api_server", "hyper_params.agent_api_server", "as instances reach it"),
    ] {
        let mut hyper_params = good.clone();
        hyper_params.as_object_mut().unwrap().remove(missing);
        stage.configure(&hyper_params);
        let output = stage.script_output(&["--remote"]).await;
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(named) && told.contains(flag), "{told}");
        assert_eq!(stage.handle().tasks().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_renewed_and_keeps_what_people_set() {
    let stage = Stage::set().await;
    let args = ["template", "--image", "registry.example.com/autoscaler:1", "--container-network", "host"];
    let output = stage.output(&args).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("agent_api_server"), "each clone must set it: {}", told(&output));
    let id = stage.only_task();
    let task = stage.task(&id);
    assert_eq!((&task["status"], &task["type"]), (&json!("created"), &json!("service")));
    assert_eq!(task["container"]["image"], "registry.example.com/autoscaler:1");
    assert!(task["container"]["arguments"].as_str().unwrap().contains("--network=host"), "{task}");
    let general = &task["hyperparams"]["General"];
    for (name, row) in general.as_object().unwrap() {
        assert!(row["type"].is_string() && row["description"].is_string(), "{name}: {row}");
    }
    // A clone of it with nothing but the addresses set is one that runs.
    let mut hyper_params: serde_json::Map<String, Value> =
        general.as_object().unwrap().iter().map(|(name, row)| (name.clone(), row["value"].clone())).collect();
    hyper_params.insert("agent_api_server".to_owned(), json!("https://api.example.com"));
    let configuration = task["configuration"]["General"]["value"].as_str().unwrap();
    let clone = stage.service(&Value::Object(hyper_params), Some(configuration));
    stage.handle().inject("projects.create", Fault::Html { code: 404 }, None);
    let output = stage.by_agent(&clone).await;
    let told_clone = told(&output);
    assert!(told_clone.contains("projects.create"), "it came as far as that: {told_clone}");
    stage.handle().clear_faults();
    stage.handle().call("tasks.delete", json!({ "task": clone, "force": true })).unwrap();

    let edit = json!({ "task": id, "hyperparams": [{ "section": "General", "name": "max_idle_time_min", "value": "7" }] });
    stage.handle().call("tasks.edit_hyper_params", edit).unwrap();
    let copy =
        stage.handle().call("tasks.clone", json!({ "task": id })).unwrap()["id"].as_str().unwrap().to_owned();
    let output = stage.output(&["template", "--image", "registry.example.com/autoscaler:2"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(stage.handle().tasks().len(), 2, "the template and the copy");
    let renewed = stage.task(&id);
    assert_eq!(renewed["container"]["image"], "registry.example.com/autoscaler:2");
    let idle = &renewed["hyperparams"]["General"]["max_idle_time_min"];
    assert_eq!((&idle["value"], &idle["type"]), (&json!("7"), &json!("float")), "{idle}");
    assert_eq!(
        stage.task(&copy)["container"]["image"],
        "registry.example.com/autoscaler:1",
        "a copy is its user's"
    );
}
