//! Keys, permissions, addresses and the lease: each made to fail once.

use std::collections::BTreeSet;

use super::{Outcome, Report, Ward, find, only};
use crate::service::Input;

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
    ward.change("  agent_files_server: http://192.0.2.11:8081\n", "");
    ward.env.insert("CLEARML_FILES_HOST".to_owned(), "s3://bucket/files".to_owned());
    let report = ward.examine().await;
    assert!(find(&report, "instances.files_server").detail.contains("a bucket"), "{report:?}");
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
