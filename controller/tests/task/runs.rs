//! What becomes of the task when a run begins, ends, dies and begins again.

use sandbox::clearml::{Handle, Status};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Run, Stage, bootstrap, configurations, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_a_task_with_everything_but_secrets_and_goes_on_in_it_after_a_restart() {
    let stage = Stage::set().await;
    let run = stage.run().await;
    let id = stage.only_task();
    let task = stage.task(&id);
    assert_eq!((&task["name"], &task["type"]), (&json!("AWS Auto-Scaler"), &json!("service")));
    assert_eq!(task["status"], "in_progress");
    assert_eq!(task["system_tags"], json!(["development"]));
    let general = &task["hyperparams"]["General"];
    assert_eq!(general["workers_prefix"]["value"], "stage");
    assert_eq!(
        (&general["max_idle_time_min"]["value"], &general["max_idle_time_min"]["type"]),
        (&json!("15"), &json!("float"))
    );
    assert_eq!(general["git_user"]["value"], "me");
    assert_eq!(task["hyperparams"]["Args"]["run"]["value"], "True");
    let text = task["configuration"]["General"]["value"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), configurations());
    assert!(!task.to_string().contains("a-secret-of"), "{task}");

    // A clone of it is one that an agent can run.
    stage.handle().wait(LIMIT, |handle| handle.count("tasks.add_or_update_artifacts") > 0).await.unwrap();
    let script = stage.task(&id)["script"]["diff"].as_str().unwrap().to_owned();
    assert!(bootstrap(&stage, &script).await.contains("fetched controller"));

    let (code, out, err) = run.terminate().await;
    assert_eq!(code, Some(0), "{err}");
    let page = format!(
        "{}/projects/{}/experiments/{id}/output/log",
        stage.sandbox.clearml.web_url(),
        task["project"].as_str().unwrap()
    );
    assert_eq!(
        out,
        format!(
            "CLEARML Task: created new task id={id}\nCLEARML results page: {page}\n\
             Running AWS auto-scaler as a service\nExecution log {page}\n"
        )
    );
    assert!(err.contains("git_pass") && err.contains("--store-secrets"), "it says what it left out: {err}");
    assert!(!err.contains("a-secret-of"), "{err}");
    let info = stage.handle().task(&id).unwrap();
    assert_eq!(
        (info.status, info.status_reason.as_str()),
        (Status::Stopped, "told to stop; shutdown action: none")
    );

    // What changed in the file is what the task shows.
    let mut hyper_params = stage.hyper_params();
    hyper_params["max_idle_time_min"] = json!(3);
    stage.configure(&hyper_params);
    let run = stage.run().await;
    assert_eq!(stage.only_task(), id);
    let task = stage.task(&id);
    assert_eq!(task["hyperparams"]["General"]["max_idle_time_min"]["value"], "3");
    assert_eq!(task["status"], "in_progress");

    // A crash leaves it running in ClearML's eyes, and the next run takes it up all the same.
    run.kill();
    let run = Run::start(stage.script(&["--run"]));
    let restarted = |handle: &Handle| handle.count("tasks.started") == 3;
    stage.handle().wait(LIMIT, restarted).await.unwrap();
    assert_eq!(stage.only_task(), id);
    drop(run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_refused_and_named_the_first_and_makes_no_task() {
    let stage = Stage::set().await;
    let run = stage.run().await;
    let output = stage.script_output(&["--run"]).await;
    let told = told(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(&stage.only_task()), "it names the first one's task: {told}");

    // Elsewhere, with the same prefix: the lease tells.
    let mut hyper_params = stage.hyper_params();
    hyper_params["state_dir"] = json!(stage.path().join("elsewhere"));
    stage.configure(&hyper_params);
    let output = stage.script_output(&["--run"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", self::told(&output));
    let failed: Vec<_> =
        stage.handle().tasks().into_iter().filter(|task| task.status == Status::Failed).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].status_reason.contains("stage-autoscaler:"), "names the first: {failed:?}");
    drop(run);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_stored_if_somebody_insists_and_that_is_told() {
    let stage = Stage::set().await;
    let run = Run::start(stage.script(&["--run", "--store-secrets"]));
    stage.handle().wait(LIMIT, |handle| handle.count("tasks.started") > 0).await.unwrap();
    let task = stage.task(&stage.only_task());
    assert_eq!(task["hyperparams"]["General"]["git_pass"]["value"], "a-secret-of-git");
    let (_, _, err) = run.terminate().await;
    assert!(err.contains("stored in the task's parameters") && !err.contains("a-secret-of"), "{err}");
}
