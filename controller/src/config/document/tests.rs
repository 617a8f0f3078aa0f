//! Documents in and out, and what a task makes of one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::config::{Credentials, InstanceProfile, load, task_origin};

const GENERAL: &str = r#"{
    "resource_configurations": {
        "t4": {"instance_type": "g4dn.xlarge", "is_spot": "True", "ami_id": "ami-1", "key_name": null,
               "security_group_ids": "['sg-1', 'sg-2']", "ebs_device_name": "/dev/sda1", "ebs_volume_size": "120",
               "extra_configurations": "{'EbsOptimized': True}"}
    },
    "queues": {"gpu": [["t4", "4"]]},
    "extra_vm_bash_script": "echo 'grüße'\n"
}"#;

fn written_by_the_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config/written_by_the_script.yaml")
}

fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_task(pairs: &[(&str, &str)], general: Option<&str>) -> Result<Config, Faults> {
    Document::from_task(&parameters(pairs), general)?.check(&task_origin("0123abcd"), &|_| None)
}

/// All of it but where it was read.
fn meaning(config: Config) -> String {
    let secrets = match &config.aws.credentials {
        Credentials::Chain => String::new(),
        Credentials::Keys { secret_key, .. } => secret_key.expose_secret().to_owned(),
    };
    let password = config.git.password.as_ref().map(|it| it.expose_secret().to_owned());
    format!("{:?} {secrets} {password:?}", Config { file: PathBuf::new(), ..config })
}

#[test]
fn the_scripts_file_means_the_same_after_every_way_through_a_document() {
    let file = written_by_the_script();
    let text = fs::read_to_string(&file).unwrap();
    let expected = meaning(load(&file, &|_| None).unwrap());
    let document = Document::from_yaml(&file, &text).unwrap();
    assert_eq!(meaning(document.check(&file, &|_| None).unwrap()), expected);
    let yaml = Document::from_yaml(&file, &document.to_yaml()).unwrap();
    assert_eq!(yaml, document, "{}", document.to_yaml());
    let json = Document::from_json(&file, &document.to_json()).unwrap();
    assert_eq!(json, document, "{}", document.to_json());
}

#[test]
fn a_script_is_written_as_a_block_and_a_word_without_quotes() {
    let document = Document {
        hyper_params: json!({"workers_prefix": "gpu", "git_user": "off", "git_pass": "0123", "max_idle_time_min": 0.5})
            .as_object()
            .unwrap()
            .clone(),
        configurations: json!({"queues": {"2026-01-01": [["t4", 2]]}, "extra_vm_bash_script": "set -e\n  echo \"grüße\"\n"})
            .as_object()
            .unwrap()
            .clone(),
    };
    assert_eq!(
        document.to_yaml(),
        "\
configurations:
  extra_vm_bash_script: |
    set -e
      echo \"grüße\"
  queues:
    \"2026-01-01\":
    - - t4
      - 2
hyper_params:
  git_pass: \"0123\"
  git_user: \"off\"
  max_idle_time_min: 0.5
  workers_prefix: gpu
"
    );
}

#[test]
fn a_task_gives_every_key_in_its_type() {
    let config = of_task(
        &[
            ("General/max_idle_time_min", "0.5"),
            ("General/use_credentials_chain", "False"),
            ("General/cloud_credentials_key", "AKIA1"),
            ("General/cloud_credentials_secret", "None of your business"),
            ("General/cloud_credentials_token", "token"),
            ("General/iam_arn", "None"),
            ("General/iam_name", "gpu-nodes"),
            ("General/use_iam_instance_profile", "True"),
            ("General/git_pass", "[0123]"),
            ("git_user", ""),
            ("workers_prefix", "from_task"),
            ("sidecar", "off"),
        ],
        Some(GENERAL),
    )
    .unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.max_idle.as_secs(), config.prefix.as_str()), (30, "from_task"));
    assert_eq!(config.instance_profile, Some(InstanceProfile::Name("gpu-nodes".to_owned())));
    assert_eq!(config.git.user, None);
    assert_eq!(config.git.password.unwrap().expose_secret(), "[0123]");
    let Credentials::Keys { secret_key, session_token, .. } = config.aws.credentials else {
        panic!("no keys")
    };
    assert_eq!(secret_key.expose_secret(), "None of your business");
    assert_eq!(session_token.unwrap().expose_secret(), "token");
    let t4 = &config.resources[0];
    assert_eq!(t4.market, planner::Market::Spot);
    assert_eq!(t4.security_group_ids, ["sg-1", "sg-2"]);
    assert_eq!(t4.extra["EbsOptimized"], json!(true));
    assert_eq!(config.pools[0].maximum, 4);
    assert_eq!(config.extra_vm_bash_script, "echo 'grüße'\n");
}

#[test]
fn a_tasks_faults_name_parameter_and_object() {
    let bad = GENERAL.replace("g4dn.xlarge", "huge").replace("\"4\"", "\"many\"");
    let faults = of_task(
        &[("max_idle_time_min", "soon"), ("max_idle_time", "5"), ("git_pass", "hunter2")],
        Some(&bad),
    )
    .unwrap_err()
    .to_string();
    let mut lines: Vec<&str> = faults.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "task 0123abcd: General/max_idle_time: unknown key; did you mean max_idle_time_min?",
            "task 0123abcd: General/max_idle_time_min: must be a number from 0 to 43200, not 'soon'",
            "task 0123abcd: configuration object General: queues.gpu[0][1]: must be a whole number from 0 to 10000, \
             not 'many'",
            "task 0123abcd: configuration object General: resource_configurations.t4.instance_type: must be an instance \
             type such as g4dn.4xlarge, not 'huge'",
        ]
    );
}

#[test]
fn a_task_without_its_parts_is_told_apart_from_a_broken_one() {
    let some = [("max_idle_time_min", "5")];
    let fault = |pairs: &[(&str, &str)], general| of_task(pairs, general).unwrap_err().to_string();
    assert_eq!(fault(&[], Some(GENERAL)), "task: General: the task has no parameters in this section");
    assert_eq!(
        fault(&some, None),
        "task: configuration object General: is missing; it holds resource_configurations and queues, as JSON"
    );
    assert_eq!(
        fault(&some, Some("{\"queues\": {}, \"queues\": {}}")),
        "task: configuration object General: is not JSON: the key 'queues' stands twice at line 1 column 23"
    );
    assert!(
        fault(&some, Some("{\"queues\": ")).starts_with(
            "task: configuration object General: is not JSON: EOF while parsing a value at line 1"
        )
    );
    assert_eq!(fault(&some, Some("[]")), "task: configuration object General: must be a JSON object, {...}");
}

#[test]
fn numbers_keep_their_writing_unless_their_key_wants_one() {
    let text = "hyper_params: {git_pass: 0123, git_user: 1e3, max_idle_time_min: '15', workers_prefix: 12}\nconfigurations: {}";
    let document = Document::from_yaml(Path::new("file"), text).unwrap();
    let expected =
        json!({"git_pass": "0123", "git_user": "1e3", "max_idle_time_min": 15, "workers_prefix": 12});
    assert_eq!(Value::Object(document.hyper_params), expected);
}

#[test]
fn a_section_that_is_not_the_scripts_is_a_fault() {
    let faults = Document::from_json(Path::new("file.json"), r#"{"hyper_parameters": {}}"#).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "file.json: hyper_parameters: unknown key; known here: configurations, hyper_params"
    );
}

#[test]
fn secrets_are_shown_nowhere_and_left_out_on_request() {
    let text = "hyper_params: {git_pass: hunter2, git_user: me, cloud_credentials_key: hunter3, cloud_credentials_secret: hunter4}\n\
                configurations: {extra_vm_bash_script: 'echo hunter5'}";
    let document = Document::from_yaml(Path::new("file"), text).unwrap();
    assert!(!format!("{document:?}").contains("hunter"), "{document:?}");
    let redacted = document.redacted();
    assert_eq!(redacted.hyper_params["git_pass"], json!("********"));
    assert_eq!(redacted.hyper_params["git_user"], json!("me"));
    assert_eq!(document.secrets(), ["git_pass", "cloud_credentials_key", "cloud_credentials_secret"]);
    assert_eq!(Value::Object(document.without_secrets().hyper_params), json!({"git_user": "me"}));
}

#[test]
fn a_file_is_replaced_as_a_whole_and_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let document = Document::from_yaml(Path::new("file"), "hyper_params: {git_user: me}").unwrap();
    let file = dir.path().join("aws_autoscaler.yaml");
    let link = dir.path().join("link.yaml");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&file, &link).unwrap();
    write_private(&link, &document).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), document.to_yaml());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    let error = create_private(&file, "other").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    let new = dir.path().join("new.yaml");
    create_private(&new, "other").unwrap();
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left behind");
    assert!(write_private(&dir.path().join("nowhere/file"), &document).is_err());
}
