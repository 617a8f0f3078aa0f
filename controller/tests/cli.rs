//! The command line as a person meets it: exit codes and words, through the real executable.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = "\
hyper_params:
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
configurations:
  resource_configurations:
    t4:
      instance_type: g4dn.xlarge
      is_spot: true
      availability_zone: us-east-1b
      ami_id: ami-0123456789abcdef0
  queues:
    gpu_queue: [[t4, 2]]
";

fn controller(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_controller"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(file: &Path) -> u32 {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_missing_file_is_named_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let output = controller(dir.path(), &["run"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("aws_autoscaler.yaml"), "{}", stderr(&output));
}

#[test]
fn all_faults_are_told_at_once_with_their_keys_and_without_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let bad = GOOD
        .replace(
            "use_credentials_chain: true",
            "use_credentials_chain: maybe\n  git_pass: [hunter2]\n  max_idle_time: 3",
        )
        .replace("[[t4, 2]]", "[[v100, 2], [t4, -1]]");
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), bad).unwrap();
    let output = controller(dir.path(), &["run"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in [
        "use_credentials_chain",
        "max_idle_time_min",
        "v100",
        "gpu_queue",
        "git_pass",
        "CLEARML_API_ACCESS_KEY",
    ] {
        assert!(told.contains(part), "{part} in:\n{told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_policy_is_printed_without_asking_anybody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), GOOD).unwrap();
    let output = controller(dir.path(), &["iam-policy"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let policy: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let text = policy.to_string();
    assert!(text.contains("ec2:TerminateInstances") && text.contains("dynamic_worker"), "{text}");
    assert!(!text.contains("iam:PassRole"), "no profile is configured: {text}");
}

#[test]
fn doctor_ends_with_1_where_something_is_wrong_and_prints_what_as_json() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), GOOD).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_controller"))
        .args(["doctor", "--json"])
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .env("CLEARML_API_HOST", "http://127.0.0.1:9")
        .env("CLEARML_API_ACCESS_KEY", "key")
        .env("CLEARML_API_SECRET_KEY", "a-secret-of-mine")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "another-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let server = checks.iter().find(|check| check["check"] == "clearml.server").unwrap();
    assert_eq!(server["outcome"], "error");
    assert!(server["detail"].is_string() && server["remedy"].is_string(), "{server}");
    assert!(!told.contains("a-secret-of-mine") && !told.contains("another-secret"), "{told}");
}

#[test]
fn status_without_a_controller_ends_with_3_and_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), GOOD).unwrap();
    let output = controller(dir.path(), &["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("admin.sock"), "{}", stderr(&output));
    let output = controller(dir.path(), &["status", "--socket", "/nowhere/admin.sock"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nowhere/admin.sock"), "{}", stderr(&output));
}

#[test]
fn a_clearml_that_is_down_is_told_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), GOOD).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_controller"))
        .arg("plan")
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .env("CLEARML_API_HOST", "http://127.0.0.1:9")
        .env("CLEARML_API_ACCESS_KEY", "key")
        .env("CLEARML_API_SECRET_KEY", "a-secret-of-mine")
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("auth.login") && told.contains("127.0.0.1:9"), "{told}");
    assert!(!told.contains("a-secret-of-mine"), "{told}");
}

#[test]
fn an_export_leaves_secrets_out_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD.replace("hyper_params:", "hyper_params:\n  git_user: ci\n  git_pass: hunter2");
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), text).unwrap();
    let output = controller(dir.path(), &["export"]);
    let (stdout, told) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(stdout.contains("git_user: ci") && !stdout.contains("git_pass"), "{stdout}");
    assert!(told.contains("git_pass") && told.contains("--secrets") && !told.contains("hunter2"), "{told}");
    let output =
        controller(dir.path(), &["export", "--secrets", "--format", "json", "--output", "copy.json"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let copy: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("copy.json")).unwrap()).unwrap();
    assert_eq!(copy["hyper_params"]["git_pass"], "hunter2");
    assert_eq!(mode(&dir.path().join("copy.json")), 0o600);
    let output = controller(dir.path(), &["export", "--output", "./aws_autoscaler.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn an_import_is_checked_written_for_its_owner_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shared.yaml"), GOOD).unwrap();
    let output = controller(dir.path(), &["export", "--config-file", "shared.yaml", "--format", "json"]);
    std::fs::write(dir.path().join("shared.json"), &output.stdout).unwrap();
    let output = controller(dir.path(), &["import", "shared.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = dir.path().join("aws_autoscaler.yaml");
    assert_eq!(mode(&file), 0o600);
    let again = controller(dir.path(), &["export", "--format", "json"]);
    assert_eq!(again.stdout, std::fs::read(dir.path().join("shared.json")).unwrap());

    let before = std::fs::read(&file).unwrap();
    let output = controller(dir.path(), &["import", "shared.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    std::fs::write(dir.path().join("bad.json"), "{\"hyper_params\": {\"max_idle_time_min\": \"soon\"}}")
        .unwrap();
    let output = controller(dir.path(), &["import", "--force", "bad.json"]);
    assert_eq!(output.status.code(), Some(2));
    for part in ["bad.json: hyper_params.max_idle_time_min", "configurations.queues"] {
        assert!(stderr(&output).contains(part), "{part} in {}", stderr(&output));
    }
    assert_eq!(std::fs::read(&file).unwrap(), before, "what was there is there");
    let output = controller(dir.path(), &["import", "--force", "shared.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn nothing_is_asked_of_a_controller_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("aws_autoscaler.yaml"), GOOD).unwrap();
    let commands: [&[&str]; 7] = [
        &["diff"],
        &["reload"],
        &["drain", "i-1"],
        &["drain", "--idle"],
        &["undrain", "i-1"],
        &["pause"],
        &["resume"],
    ];
    for command in commands {
        let output = controller(dir.path(), command);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("admin.sock"), "{}", stderr(&output));
    }
}

#[test]
fn the_demo_loses_nothing_kills_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new(env!("CARGO_BIN_EXE_controller"))
        .args(["demo", "--json", "--tasks", "8"])
        .current_dir(dir.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["tasks"], serde_json::json!({"completed": 8, "lost": 0, "killed": 0}), "{told}");
    assert_eq!(summary["instances"]["left"], 0, "{told}");
    assert_eq!(summary["instances"]["launched"], summary["instances"]["terminated"], "{told}");
    assert!(summary["wait_s"]["p95"].as_f64().unwrap() > 0.0);
}
