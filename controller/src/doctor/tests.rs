//! The doctor against a sandbox: a healthy case, and each check made to fail once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sandbox::ec2::{Ami, AmiOwner, Subnet};
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use super::{Check, Outcome, Report, examine};
use crate::service::Input;

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

#[tokio::test]
async fn wrong_clearml_keys_are_told() {
    let mut ward = Ward::open().await;
    ward.env.insert("CLEARML_API_SECRET_KEY".to_owned(), "not-it".to_owned());
    let report = ward.examine().await;
    for check in ["clearml.server", "clearml.queues", "clearml.lease"] {
        let found = find(&report, check);
        assert_eq!(found.outcome, Outcome::Error, "{found:?}");
        assert!(found.detail.contains("unauthorized"), "{found:?}");
    }
    assert_eq!(
        find(&report, "resource.named.launch").outcome,
        Outcome::Ok,
        "the rest is looked at all the same"
    );
}

#[tokio::test]
async fn a_prefix_in_use_is_told() {
    use crate::service::lease::Registry as _;
    let ward = Ward::open().await;
    let file = ward.dir.path().join("aws_autoscaler.yaml");
    std::fs::write(&file, &ward.text).unwrap();
    let input = Input::load(&file, &|name| ward.env.get(name).cloned()).unwrap();
    input.clearml.client().unwrap().register("ward-autoscaler:other").await.unwrap();
    let report = ward.examine().await;
    only(&report, Outcome::Error, "clearml.lease", "ward-autoscaler:other");
}

#[tokio::test]
async fn addresses_that_no_instance_reaches_are_told() {
    for (url, says) in [
        ("http://127.0.0.1:8008", "loopback"),
        ("http://localhost:8008", "loopback"),
        ("http://[::1]:8008", "loopback"),
        ("http://apiserver:8008", "containers"),
        ("http://169.254.1.1:8008", "link-local"),
    ] {
        let mut ward = Ward::open().await;
        ward.change("http://192.0.2.11:8008", url);
        only(&ward.examine().await, Outcome::Error, "instances.api_server", says);
    }
    let mut ward = Ward::open().await;
    ward.change("advertise_address: 192.0.2.10:8790", "advertise_address: localhost:8790");
    only(&ward.examine().await, Outcome::Error, "instances.controller", "loopback");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let other = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let mut ward = Ward::open().await;
    ward.change("listen: 0.0.0.0:0", &format!("listen: 0.0.0.0:{}", other.local_addr().unwrap().port()));
    only(&ward.examine().await, Outcome::Error, "instances.controller", "another program");
}

#[tokio::test]
async fn wrong_aws_keys_are_told() {
    let mut ward = Ward::open().await;
    ward.env.insert("AWS_ACCESS_KEY_ID".to_owned(), "AKIAWRONG".to_owned());
    let report = ward.examine().await;
    let credentials = find(&report, "aws.credentials");
    assert_eq!(credentials.outcome, Outcome::Error);
    assert!(credentials.detail.contains("InvalidClientTokenId"), "{credentials:?}");
    assert_eq!(find(&report, "resource.named.launch").outcome, Outcome::Error);
    assert_eq!(find(&report, "clearml.server").outcome, Outcome::Ok);
}

/// What the configuration needs, without one action.
fn policy_without(ward: &Ward, action: &str) -> serde_json::Value {
    let file = ward.dir.path().join("aws_autoscaler.yaml");
    std::fs::write(&file, &ward.text).unwrap();
    let config = crate::config::load(&file, &|name| ward.env.get(name).cloned()).unwrap();
    let mut policy = ec2::policy(&crate::cli::iam_policy::purpose(&config));
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Action"].as_array_mut().unwrap().retain(|it| it != action);
    }
    policy
}

async fn under_policy_without(action: &str) -> Report {
    let ward = Ward::open().await;
    let policy = policy_without(&ward, action);
    ward.sandbox.ec2.configure(|options| options.policy = Some(policy));
    ward.examine().await
}

#[tokio::test]
async fn the_least_policy_is_enough_and_what_it_binds_to_instances_can_t_be_tried_without_one() {
    let report = under_policy_without("nothing").await;
    let bad: BTreeSet<&str> =
        report.checks.iter().filter(|it| it.outcome != Outcome::Ok).map(|it| it.check.as_str()).collect();
    assert_eq!(bad, BTreeSet::from(["aws.permission.console", "aws.permission.terminate"]), "{report:#?}");
    assert!(!report.has_errors());
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    for (action, check) in [
        ("ec2:DescribeInstances", "aws.permission.describe"),
        ("ec2:RunInstances", "resource.named.launch"),
        ("ec2:CreateTags", "resource.named.launch"),
        ("iam:PassRole", "aws.profile"),
        ("ssm:GetParameters", "resource.parameter.launch"),
        ("iam:CreateServiceLinkedRole", "resource.named.launch"),
        ("ec2:DescribeImages", "aws.permission.images"),
    ] {
        let report = under_policy_without(action).await;
        let found = find(&report, check);
        assert_eq!(found.outcome, Outcome::Error, "{action}: {found:?}");
        assert!(found.detail.contains(action), "{action}: {found:?}");
        assert!(!found.detail.contains("c2FuZGJveA"), "the encoded message stays out: {found:?}");
    }
}

#[tokio::test]
async fn without_the_setup_permissions_lines_say_that_they_could_not_look() {
    for (action, check) in [
        ("ec2:DescribeInstanceTypes", "resource.named.type"),
        ("ec2:DescribeInstanceTypeOfferings", "resource.named.type"),
        ("ec2:DescribeSubnets", "resource.parameter.network"),
        ("ec2:DescribeSecurityGroups", "resource.named.network"),
        ("ec2:DescribeKeyPairs", "resource.named.key"),
        ("ec2:DescribeAccountAttributes", "resource.named.network"),
        ("servicequotas:GetServiceQuota", "aws.quota.graphics.spot"),
        ("ec2:DescribeSpotPriceHistory", "aws.permission.spot_prices"),
    ] {
        let report = under_policy_without(action).await;
        assert_eq!(find(&report, check).outcome, Outcome::Warning, "{action}: {:?}", find(&report, check));
        assert!(!report.has_errors(), "{action}: {report:#?}");
    }
}

#[tokio::test]
async fn images_that_are_not_there_or_do_not_fit_are_told() {
    let mut ward = Ward::open().await;
    ward.change("ami-00000000000000002", "ami-0000000000000000f");
    let report = ward.examine().await;
    assert!(find(&report, "resource.by_id.image").detail.contains("is not in us-east-1"));
    assert_eq!(find(&report, "resource.by_id.launch").outcome, Outcome::Error);

    let mut ward = Ward::open().await;
    ward.change(IMAGE, "Deep Learning Base 9.9");
    let report = ward.examine().await;
    let image = find(&report, "resource.named.image");
    assert_eq!(image.outcome, Outcome::Error);
    assert!(image.detail.contains("Deep Learning Base 9.9"), "{image:?}");

    let mut ward = Ward::open().await;
    ward.change(PARAMETER, "/aws/service/nowhere");
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.launch").detail.contains("/aws/service/nowhere"));

    let mut ward = Ward::open().await;
    ward.change("ami-00000000000000002", "ami-00000000000000001");
    let report = ward.examine().await;
    let image = find(&report, "resource.by_id.image");
    assert_eq!(image.outcome, Outcome::Error);
    assert!(image.detail.contains("Arm64"), "{image:?}");

    let mut ward = Ward::open().await;
    ward.change("ebs_device_name: /dev/sda1", "ebs_device_name: /dev/xvda");
    only(&ward.examine().await, Outcome::Warning, "resource.named.image", "not its root device /dev/sda1");
}

#[tokio::test]
async fn a_strangers_image_of_the_same_name_is_not_taken() {
    let mut options = options();
    let ami =
        Ami { owner: AmiOwner::Stranger, created: "2026-01-01T00:00:00.000Z".into(), ..Ami::named(IMAGE) };
    options.ec2.amis.insert("ami-00000000000000bad".into(), ami);
    let report = Ward::with(options).await.examine().await;
    assert!(find(&report, "resource.named.image").detail.contains("ami-00000000000000001"));
}

#[tokio::test]
async fn a_type_that_the_zone_or_the_region_lacks_is_told() {
    let mut options = options();
    options.ec2.unsupported.insert(("g4dn.xlarge".into(), "us-east-1b".into()));
    let ward = Ward::with(options).await;
    let report = ward.examine().await;
    only(&report, Outcome::Error, "resource.named.type", "us-east-1b does not have it");
    assert!(find(&report, "resource.named.type").remedy.as_ref().unwrap().contains("us-east-1a"));

    let mut ward = Ward::open().await;
    ward.change("m5.xlarge", "nonsense.xlarge");
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.type").detail.contains("has no instance type nonsense.xlarge"));
}

#[tokio::test]
async fn networks_that_do_not_fit_are_told() {
    let mut options = options();
    options.ec2.security_groups.insert("sg-00000000000000002".into(), "elsewhere".into());
    options.ec2.vpcs.insert("sg-00000000000000002".into(), "vpc-00000000000000002".into());
    let mut ward = Ward::with(options).await;
    ward.change("[sg-00000000000000001]", "[sg-00000000000000002]");
    let report = ward.examine().await;
    let network = find(&report, "resource.named.network");
    assert_eq!(network.outcome, Outcome::Error);
    assert!(network.detail.contains("belongs to vpc-00000000000000002"), "{network:?}");

    let mut ward = Ward::open().await;
    ward.change("[sg-00000000000000001]", "[sg-0000000000000000f]");
    let report = ward.examine().await;
    assert!(
        find(&report, "resource.named.network").detail.contains("no security group sg-0000000000000000f")
    );

    let mut closed = self::options();
    closed.ec2.closed_groups.insert("sg-00000000000000001".into());
    let report = Ward::with(closed).await.examine().await;
    only(&report, Outcome::Error, "resource.named.network", "let nothing out to TCP port 8790");

    let mut ward = Ward::open().await;
    ward.change("subnet-0000000000000000a", "subnet-0000000000000000f");
    let report = ward.examine().await;
    assert!(
        find(&report, "resource.parameter.network").detail.contains("no subnet subnet-0000000000000000f")
    );

    let mut full = self::options();
    let subnet = Subnet { zone: "us-east-1a".into(), addresses: 1 };
    full.ec2.subnets.insert("subnet-0000000000000000a".into(), subnet);
    let report = Ward::with(full).await.examine().await;
    only(
        &report,
        Outcome::Warning,
        "resource.parameter.network",
        "1 addresses free, and the budget may want 2",
    );

    let mut none = self::options();
    none.ec2.default_vpc = false;
    let report = Ward::with(none).await.examine().await;
    assert!(find(&report, "resource.named.network").detail.contains("no default network"));
    assert_eq!(find(&report, "resource.parameter.network").outcome, Outcome::Ok);
}

#[tokio::test]
async fn keys_profiles_and_sidecars_that_are_missing_are_told() {
    let mut ward = Ward::open().await;
    ward.change("key_name: sandbox", "key_name: mine");
    let report = ward.examine().await;
    let key = find(&report, "resource.named.key");
    assert_eq!(key.outcome, Outcome::Error);
    assert!(key.remedy.as_ref().unwrap().contains("sandbox"), "{key:?}");

    let mut ward = Ward::open().await;
    ward.change("iam_name: worker", "iam_name: nobody");
    let report = ward.examine().await;
    let profile = find(&report, "aws.profile");
    assert_eq!(profile.outcome, Outcome::Error);
    assert!(profile.detail.contains("nobody"), "{profile:?}");

    let ward = Ward::open().await;
    std::fs::remove_file(ward.dir.path().join("sidecar-aarch64")).unwrap();
    let report = ward.examine().await;
    only(&report, Outcome::Error, "resource.by_id.sidecar", "no sidecar-aarch64");
}

#[tokio::test]
async fn a_quota_that_is_too_small_is_told() {
    let mut options = options();
    options.ec2.spot_vcpus = Some(8);
    options.ec2.on_demand_vcpus = Some(1);
    let report = Ward::with(options).await.examine().await;
    let spot = find(&report, "aws.quota.graphics.spot");
    assert_eq!(spot.outcome, Outcome::Warning);
    assert!(spot.detail.contains("8 vCPUs, of which the budget may use 16"), "{spot:?}");
    let on_demand = find(&report, "aws.quota.standard.on_demand");
    assert_eq!(on_demand.outcome, Outcome::Error);
    assert!(on_demand.detail.contains("not even one"), "{on_demand:?}");
}

#[tokio::test]
async fn user_data_that_is_too_long_is_told() {
    let mut ward = Ward::open().await;
    // What can't be packed: with sidecars off, scripts travel in user data.
    let noise: String = (0..20_000).map(|_| char::from(b'!' + rand::random::<u8>() % 90)).collect();
    let script = serde_json::to_string(&format!("# {noise}")).unwrap();
    ward.change("  queues:", &format!("  extra_vm_bash_script: {script}\n  queues:"));
    ward.change("  sidecar_dir:", "  sidecar: off\n  sidecar_dir:");
    let report = ward.examine().await;
    let line = find(&report, "resource.named.user_data");
    assert_eq!(line.outcome, Outcome::Error);
    assert!(line.detail.contains("16384"), "{line:?}");
}

#[tokio::test]
async fn a_price_file_with_faults_is_told() {
    let mut ward = Ward::open().await;
    ward.change("  sidecar_dir:", "  prices_file: prices.yaml\n  sidecar_dir:");
    only(&ward.examine().await, Outcome::Error, "prices_file", "prices.yaml");
    std::fs::write(ward.dir.path().join("prices.yaml"), "m5.xlarge: 0.123\n").unwrap();
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.type").detail.contains("$0.1230/h (price file"));
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
