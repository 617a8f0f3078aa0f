//! What a launch looks like on the wire.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ec2::{LaunchSpec, Market, Meaning, Placement, Profile, USER_DATA_LIMIT, Volume};
use serde_json::Value;

use crate::server::{Call, Server, launched};

pub(crate) fn spec() -> LaunchSpec {
    LaunchSpec {
        image_id: Some("ami-1".to_owned()),
        instance_type: "g4dn.xlarge".to_owned(),
        count: 3,
        token: "t-1".to_owned(),
        placement: Placement::Any,
        market: Market::OnDemand,
        tags: BTreeMap::from([("clearml-autoscaler:fleet".to_owned(), "f1".to_owned())]),
        hop_limit: 2,
        volume: None,
        monitoring: false,
        key_name: None,
        security_group_ids: Vec::new(),
        profile: None,
        user_data: "#!/bin/sh\necho grüß\n".to_owned(),
        extra: Value::Null,
    }
}

/// The parameters of the one call that this spec leads to, without those of the protocol itself.
pub(crate) async fn sent(spec: &LaunchSpec) -> Call {
    let server = Server::start(|_| launched(&["i-0a"])).await;
    let ids = server.client().await.run_instances(spec).await.unwrap();
    assert_eq!(ids, ["i-0a"]);
    let mut calls = server.calls();
    let mut call = calls.pop().unwrap();
    assert!(calls.is_empty());
    assert_eq!(call.remove("Action").as_deref(), Some("RunInstances"));
    call.remove("Version").unwrap();
    call
}

pub(crate) fn parameters(pairs: &[(&str, &str)]) -> Call {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What every launch of `spec()` has.
fn common() -> Call {
    let mut call = parameters(&[
        ("ImageId", "ami-1"),
        ("InstanceType", "g4dn.xlarge"),
        ("MinCount", "1"),
        ("MaxCount", "3"),
        ("ClientToken", "t-1"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
        ("MetadataOptions.HttpTokens", "required"),
        ("MetadataOptions.HttpEndpoint", "enabled"),
        ("MetadataOptions.HttpPutResponseHopLimit", "2"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "clearml-autoscaler:fleet"),
        ("TagSpecification.1.Tag.1.Value", "f1"),
        ("TagSpecification.2.ResourceType", "volume"),
        ("TagSpecification.2.Tag.1.Key", "clearml-autoscaler:fleet"),
        ("TagSpecification.2.Tag.1.Value", "f1"),
    ]);
    call.insert("UserData".to_owned(), STANDARD.encode("#!/bin/sh\necho grüß\n"));
    call
}

#[tokio::test]
async fn on_demand_leaves_place_and_market_to_ec2() {
    assert_eq!(sent(&spec()).await, common());
}

#[tokio::test]
async fn spot_in_a_zone_is_asked_for_once_and_tagged_as_well() {
    let placement = Placement::Zone("us-east-1b".to_owned());
    let call = sent(&LaunchSpec { market: Market::Spot, placement, ..spec() }).await;
    let mut expected = common();
    expected.extend(parameters(&[
        ("Placement.AvailabilityZone", "us-east-1b"),
        ("InstanceMarketOptions.MarketType", "spot"),
        ("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time"),
        ("InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", "terminate"),
        ("TagSpecification.3.ResourceType", "spot-instances-request"),
        ("TagSpecification.3.Tag.1.Key", "clearml-autoscaler:fleet"),
        ("TagSpecification.3.Tag.1.Value", "f1"),
    ]));
    assert_eq!(call, expected);
}

#[tokio::test]
async fn a_subnet_a_volume_a_key_and_a_role_are_passed_on() {
    let volume = Volume {
        device_name: "/dev/sda1".to_owned(),
        size_gib: Some(100),
        volume_type: Some("gp3".to_owned()),
        snapshot_id: Some("snap-1".to_owned()),
    };
    let call = sent(&LaunchSpec {
        placement: Placement::Subnet("subnet-1".to_owned()),
        volume: Some(volume),
        monitoring: true,
        key_name: Some("me".to_owned()),
        security_group_ids: vec!["sg-1".to_owned(), "sg-2".to_owned()],
        profile: Some(Profile::Arn("arn:aws:iam::1:instance-profile/x".to_owned())),
        ..spec()
    })
    .await;
    let mut expected = common();
    expected.extend(parameters(&[
        ("SubnetId", "subnet-1"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "100"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", "snap-1"),
        ("Monitoring.Enabled", "true"),
        ("KeyName", "me"),
        ("SecurityGroupId.1", "sg-1"),
        ("SecurityGroupId.2", "sg-2"),
        ("IamInstanceProfile.Arn", "arn:aws:iam::1:instance-profile/x"),
    ]));
    assert_eq!(call, expected);
}

#[tokio::test]
async fn a_spec_read_back_after_a_restart_sends_the_same_request() {
    let before = LaunchSpec {
        extra: serde_json::json!({"CpuOptions": {"ThreadsPerCore": 1}}),
        profile: Some(Profile::Name("worker".to_owned())),
        market: Market::Spot,
        ..spec()
    };
    let written = serde_json::to_string(&before).unwrap();
    let after: LaunchSpec = serde_json::from_str(&written).unwrap();
    assert_eq!(sent(&before).await, sent(&after).await);
}

#[test]
fn more_user_data_than_ec2_takes_is_refused_before_any_call() {
    let fits = LaunchSpec { user_data: "x".repeat(USER_DATA_LIMIT), ..spec() };
    fits.check().unwrap();
    let error = LaunchSpec { user_data: "x".repeat(USER_DATA_LIMIT + 1), ..spec() }.check().unwrap_err();
    assert_eq!(error.meaning, Meaning::Invalid);
    assert_eq!(error.to_string(), "run instances: user data: has 16385 bytes; ec2 takes 16384");
}

#[test]
fn a_launch_of_none_is_refused() {
    let error = LaunchSpec { count: 0, ..spec() }.check().unwrap_err();
    assert_eq!(error.to_string(), "run instances: count: must be 1 or more");
}

#[test]
fn a_token_that_ec2_would_not_take_is_refused() {
    for token in ["", "grüß", &"x".repeat(65)] {
        let error = LaunchSpec { token: token.to_owned(), ..spec() }.check().unwrap_err();
        assert_eq!(error.to_string(), "run instances: token: must be 1 to 64 ascii characters");
    }
}

#[test]
fn debug_hides_the_user_data() {
    let spec = LaunchSpec { user_data: "launch-secret".to_owned(), ..spec() };
    assert!(!format!("{spec:?}").contains("launch-secret"));
}
