//! The doctor against a sandbox: a healthy case, and each check made to fail once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sandbox::ec2::{Ami, AmiOwner};
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use super::{Check, LIMIT, Outcome, Report, examine};
use crate::service::Input;

mod access;
mod resources;

const IMAGE: &str = "Deep Learning Base 1.0";
const PARAMETER: &str = "/aws/service/deeplearning/ami/x86_64/latest/ami-id";

/// A sandbox, and a configuration that is fine with it.
struct Ward {
    sandbox: Sandbox,
    dir: TempDir,
    text: String,
    env: BTreeMap<String, String>,
}

fn options() -> Options {
    let mut options = Options::default();
    let ec2 = &mut options.ec2;
    ec2.amis.insert("ami-00000000000000001".into(), Ami { owner: AmiOwner::Amazon, ..Ami::named(IMAGE) });
    ec2.amis
        .insert("ami-00000000000000002".into(), Ami { architecture: "arm64".into(), ..Ami::named("arm") });
    ec2.parameters.insert(PARAMETER.into(), "ami-00000000000000001".into());
    ec2.other_images = None;
    ec2.profiles = Some(BTreeSet::from(["worker".to_owned()]));
    options
}

impl Ward {
    async fn open() -> Self {
        Self::with(options()).await
    }

    async fn with(options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        for arch in ["x86_64", "aarch64"] {
            std::fs::write(dir.path().join(format!("sidecar-{arch}")), arch).unwrap();
        }
        let text = configuration(dir.path());
        let env = sandbox.environment().into_iter().collect();
        Self { sandbox, dir, text, env }
    }

    fn change(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{from} is not in the configuration");
        self.text = self.text.replace(from, to);
    }

    async fn examine(&self) -> Report {
        let file = self.dir.path().join("aws_autoscaler.yaml");
        std::fs::write(&file, &self.text).unwrap();
        let mut input = Input::load(&file, &|name| self.env.get(name).cloned()).unwrap();
        input.aws_endpoint = self.env.get("AWS_ENDPOINT_URL").cloned();
        input.aws_keys = Some(ec2::Keys {
            key: self.env["AWS_ACCESS_KEY_ID"].clone(),
            secret: self.env["AWS_SECRET_ACCESS_KEY"].clone().into(),
            token: None,
        });
        let report = examine(input).await;
        self.nothing_happened();
        report
    }

    /// A doctor looks, and touches nothing.
    fn nothing_happened(&self) {
        assert_eq!(self.sandbox.ec2.counts().launched, 0);
        assert!(self.sandbox.clearml.handle().queues().iter().all(|queue| queue.name != "gpu_queue"));
    }
}

fn configuration(dir: &Path) -> String {
    format!(
        "\
hyper_params:
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  workers_prefix: ward
  use_iam_instance_profile: true
  iam_name: worker
  listen: 0.0.0.0:0
  advertise_address: 192.0.2.10:8790
  agent_api_server: http://192.0.2.11:8008
  agent_web_server: http://192.0.2.11:8080
  agent_files_server: http://192.0.2.11:8081
  state_dir: {dir}/state
  sidecar_dir: {dir}
configurations:
  resource_configurations:
    named:
      instance_type: g4dn.xlarge
      is_spot: true
      availability_zone: us-east-1b
      ami_id: {IMAGE}
      ebs_device_name: /dev/sda1
      key_name: sandbox
      security_group_ids: [sg-00000000000000001]
    parameter:
      instance_type: m5.xlarge
      subnet_id: subnet-0000000000000000a
      ami_id: {PARAMETER}
    by_id:
      instance_type: m6g.large
      ami_id: ami-00000000000000002
  queues:
    gpu_queue: [[named, 4]]
    cpu_queue: [[parameter, 2], [by_id, 1]]
",
        dir = dir.display()
    )
}

fn find<'a>(report: &'a Report, check: &str) -> &'a Check {
    report.checks.iter().find(|it| it.check == check).unwrap_or_else(|| panic!("no {check} in {report:#?}"))
}

/// This check, and no other, has this outcome; it says this, and what to do.
fn only(report: &Report, outcome: Outcome, check: &str, says: &str) {
    let others: Vec<&Check> =
        report.checks.iter().filter(|it| it.outcome != Outcome::Ok && it.check != check).collect();
    assert!(others.is_empty(), "{others:#?}");
    let found = find(report, check);
    assert_eq!(found.outcome, outcome, "{found:?}");
    assert!(found.detail.contains(says), "{found:?}");
    assert!(found.remedy.is_some(), "{found:?}");
}

#[tokio::test]
async fn a_healthy_case_is_all_ok() {
    let ward = Ward::open().await;
    let report = ward.examine().await;
    let bad: Vec<&Check> = report.checks.iter().filter(|check| check.outcome != Outcome::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for (check, says) in [
        ("clearml.server", "takes the keys"),
        ("clearml.queues", "cpu_queue, gpu_queue to be made"),
        ("clearml.lease", "nobody runs"),
        ("instances.api_server", "192.0.2.11"),
        ("instances.controller", "can't be told from here"),
        ("aws.credentials", "arn:aws:iam::123456789012:user/sandbox in us-east-1"),
        ("aws.permission.describe", "allowed"),
        ("aws.permission.terminate", "allowed"),
        ("aws.profile", "worker"),
        ("aws.quota.graphics.spot", "the budget may use 16"),
        ("aws.quota.standard.on_demand", "the budget may use 10"),
        ("resource.named.type", "4 vCPUs, 16 GiB, 1 x NVIDIA T4 of 16 GiB, spot $0.1500/h (spot price"),
        ("resource.named.image", "ami-00000000000000001"),
        ("resource.named.network", "sg-00000000000000001"),
        ("resource.named.key", "sandbox"),
        ("resource.named.launch", "dry run"),
        ("resource.named.user_data", "bytes"),
        ("resource.parameter.image", PARAMETER),
        ("resource.parameter.network", "addresses free"),
        ("resource.by_id.sidecar", "sidecar-aarch64"),
    ] {
        let found = find(&report, check);
        assert!(found.detail.contains(says), "{found:?}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][0]["outcome"], "ok");
    assert!(json["checks"][0].get("remedy").is_none());
    let secrets = [&ward.env["AWS_SECRET_ACCESS_KEY"], &ward.env["CLEARML_API_SECRET_KEY"]];
    assert!(secrets.iter().all(|secret| !json.to_string().contains(secret.as_str())));
}

/// The clock runs ahead whenever everybody waits, so that limits are met at once.
#[tokio::test(start_paused = true)]
async fn servers_that_never_answer_are_given_up_on() {
    let silent = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (clearml, aws) = (silent(), silent());
    let url = |listener: &std::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aws_autoscaler.yaml");
    std::fs::write(&file, configuration(dir.path())).unwrap();
    let env = BTreeMap::from([
        ("CLEARML_API_HOST", url(&clearml)),
        ("CLEARML_API_ACCESS_KEY", "key".to_owned()),
        ("CLEARML_API_SECRET_KEY", "secret".to_owned()),
    ]);
    let mut input = Input::load(&file, &|name| env.get(name).cloned()).unwrap();
    input.aws_endpoint = Some(url(&aws));
    input.aws_keys = Some(ec2::Keys { key: "key".to_owned(), secret: "secret".into(), token: None });
    let began = tokio::time::Instant::now();
    let report = examine(input).await;
    assert!(began.elapsed() < 4 * LIMIT, "virtual time: {:?}", began.elapsed());
    for check in [
        "clearml.server",
        "clearml.queues",
        "aws.credentials",
        "aws.permission.describe",
        "resource.named.type",
    ] {
        let found = find(&report, check);
        assert_eq!(found.outcome, Outcome::Error, "{found:?}");
        assert!(found.detail.contains("no answer") || found.detail.contains("within"), "{found:?}");
    }
    assert_eq!(find(&report, "instances.api_server").outcome, Outcome::Ok);
}

/// An address where nothing listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn servers_that_are_down_leave_the_other_half_looked_at() {
    let mut ward = Ward::open().await;
    ward.env.insert("CLEARML_API_HOST".to_owned(), nowhere());
    ward.env.insert("AWS_ENDPOINT_URL".to_owned(), nowhere());
    let report = ward.examine().await;
    for check in [
        "clearml.server",
        "clearml.queues",
        "clearml.lease",
        "aws.credentials",
        "aws.permission.describe",
        "aws.permission.terminate",
        "resource.named.type",
        "resource.named.image",
        "resource.named.launch",
    ] {
        let found = find(&report, check);
        assert_eq!(found.outcome, Outcome::Error, "{found:?}");
        assert!(found.remedy.is_some(), "{found:?}");
    }
    assert_eq!(find(&report, "instances.api_server").outcome, Outcome::Ok);
    assert_eq!(find(&report, "resource.by_id.sidecar").outcome, Outcome::Ok);
}
