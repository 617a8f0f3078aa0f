//! Bad tasks and bad servers: each is told for what it is, and none is waited for long.

use std::time::Duration;

use sandbox::clearml::{Fault, Status};
use serde_json::json;
use tokio::task::JoinSet;

use crate::stage::{Stage, configurations, ended, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_holds_nonsense_fails_with_the_names_of_its_parts() {
    let stage = Stage::set().await;
    let good = json!({
        "cloud_credentials_region": "us-east-1", "workers_prefix": "stage", "sidecar": "off",
        "agent_api_server": "http://127.0.0.1:8008",
    });
    let with = |name: &str, value: &str| {
        let mut bad = good.clone();
        bad[name] = json!(value);
        bad
    };
    let configuration = configurations().to_string();
    let unfinished = &configuration[..configuration.len() - 5];
    for (hyper_params, general, named) in [
        (with("max_idle_time_min", "soon"), Some(configuration.as_str()), "General/max_idle_time_min"),
        (with("use_credentials_chain", "perhaps"), Some(&configuration), "General/use_credentials_chain"),
        (with("max_idle_time", "3"), Some(&configuration), "max_idle_time_min"),
        (with("agent_api_server", ""), Some(&configuration), "General/agent_api_server"),
        (good.clone(), Some(unfinished), "General"),
        (good.clone(), Some("[]"), "General"),
        (good.clone(), None, "General"),
        (json!({}), Some(&configuration), "General"),
    ] {
        let id = stage.service(&hyper_params, general);
        let output = stage.by_agent(&id).await;
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{named}: {told}");
        let task = stage.handle().task(&id).unwrap();
        assert_eq!(task.status, Status::Failed, "{named}: {told}");
        assert!(task.status_reason.contains(named), "{named}: {}", task.status_reason);
        assert!(told.contains(named), "{named}: {told}");
    }
    assert_eq!(stage.sandbox.ec2.instances().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_not_there_is_told() {
    let stage = Stage::set().await;
    let output = stage.by_agent("0123456789abcdef0123456789abcdef").await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("0123456789abcdef0123456789abcdef"), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lets_a_run_down_at_its_start_is_told_and_never_waited_for_long() {
    let refuse = |code, subcode| Fault::Refuse { code, subcode, message: "not today".to_owned() };
    let mut cases = JoinSet::new();
    for (fault, code, words) in [
        (refuse(401, 22), 2, "unauthorized"),
        (refuse(500, 0), 1, "not today"),
        (Fault::Html { code: 200 }, 2, "text/html"),
        (Fault::Html { code: 502 }, 1, "502"),
        (Fault::HalfBody, 1, "cut off"),
        (Fault::Drop, 1, "cut off"),
        (Fault::Delay(Duration::from_secs(3600)), 1, "no answer"),
    ] {
        for endpoint in ["auth.login", "tasks.create"] {
            let fault = fault.clone();
            cases.spawn(async move {
                let stage = Stage::set().await;
                stage.handle().inject(endpoint, fault.clone(), None);
                let output = stage.script_output(&["--run"]).await;
                let told = told(&output);
                assert_eq!(output.status.code(), Some(code), "{fault:?} at {endpoint}: {told}");
                assert!(told.contains(words) && told.contains(endpoint), "{fault:?} at {endpoint}: {told}");
                assert_eq!(output.stdout, b"", "nothing claims to run");
            });
        }
    }
    cases.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_told_with_its_address() {
    let stage = Stage::set().await;
    let mut command = stage.script(&["--run"]);
    command.env("CLEARML_API_HOST", "http://127.0.0.1:9");
    let output = ended(tokio::process::Command::from(command)).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("127.0.0.1:9"), "{}", told(&output));
}
