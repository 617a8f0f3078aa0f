//! What the sandbox's EC2 says before anything is launched, and what IAM says to a call.

use std::collections::BTreeSet;

use crate::common::{Wire, all, one, run};
use sandbox::ec2::{Ami, AmiOwner, Options};
use sandbox::instances::Image;
use serde_json::json;

fn quick() -> Options {
    Options { other_images: Some(Image::NoProcesses), ..Options::default() }
}

#[tokio::test]
async fn a_dry_run_checks_and_launches_nothing() {
    let wire = Wire::start(quick()).await;
    let dry = ("DryRun", "true");
    assert_eq!(
        wire.refused("RunInstances", &run(1, 1, &[dry]).as_pairs()).await,
        (412, "DryRunOperation".into())
    );
    for (more, code) in [
        (("KeyName", "nobody"), "InvalidKeyPair.NotFound"),
        (("SubnetId", "subnet-none"), "InvalidSubnetID.NotFound"),
        (("ImageId", "ami"), "InvalidAMIID.Malformed"),
    ] {
        assert_eq!(wire.refused("RunInstances", &run(1, 1, &[dry, more]).as_pairs()).await.1, code);
    }
    assert_eq!(wire.ec2.counts().launched, 0);
    let id = wire.launch(1, 1, &[]).await.remove(0);
    for action in ["TerminateInstances", "GetConsoleOutput"] {
        let name = if action == "GetConsoleOutput" { "InstanceId" } else { "InstanceId.1" };
        assert_eq!(wire.refused(action, &[(name, &id), dry]).await, (412, "DryRunOperation".into()));
        assert_eq!(
            wire.refused(action, &[(name, "i-00000000000000000"), dry]).await.1,
            "InvalidInstanceID.NotFound"
        );
    }
    for action in ["DescribeInstances", "DescribeImages", "DescribeSpotPriceHistory"] {
        assert_eq!(wire.refused(action, &[dry]).await, (412, "DryRunOperation".into()));
    }
    assert_eq!(wire.ec2.counts().left, 1);
}

#[tokio::test]
async fn a_parameter_is_read_at_the_launch() {
    let mut options = quick();
    options.parameters.insert("/aws/service/x".into(), "ami-00000000000000007".into());
    let wire = Wire::start(options).await;
    let id = wire.launch(1, 1, &[("ImageId", "resolve:ssm:/aws/service/x")]).await.remove(0);
    let body = wire.ok("DescribeInstances", &[("InstanceId.1", &id)]).await;
    assert_eq!(one(&body, "imageId"), "ami-00000000000000007");
    let unknown = run(1, 1, &[("ImageId", "resolve:ssm:/nowhere")]);
    let (status, body) = wire.call("RunInstances", &unknown.as_pairs()).await;
    assert_eq!((status, one(&body, "Code").as_str()), (400, "InvalidParameterValue"));
    assert!(body.contains("/nowhere"), "{body}");
}

#[tokio::test]
async fn images_are_found_by_name_and_owner() {
    let mut options = quick();
    let ami = |owner, created: &str| Ami { owner, created: created.into(), ..Ami::named("deep") };
    options.amis.insert("ami-00000000000000001".into(), ami(AmiOwner::Amazon, "2025-01-01T00:00:00.000Z"));
    options.amis.insert("ami-00000000000000002".into(), ami(AmiOwner::Stranger, "2026-01-01T00:00:00.000Z"));
    options.amis.insert("ami-00000000000000003".into(), ami(AmiOwner::Own, "2024-01-01T00:00:00.000Z"));
    let disabled = Ami { state: "disabled".into(), ..Ami::named("old") };
    options.amis.insert("ami-00000000000000004".into(), disabled);
    let wire = Wire::start(options).await;
    let by_name = ("Filter.1.Name", "name");
    let deep = ("Filter.1.Value.1", "deep");
    let found = wire.ok("DescribeImages", &[by_name, deep]).await;
    assert_eq!(all(&found, "imageId").len(), 3);
    let trusted = [by_name, deep, ("Owner.1", "amazon"), ("Owner.2", "self"), ("Owner.3", "aws-marketplace")];
    let found = wire.ok("DescribeImages", &trusted).await;
    assert_eq!(all(&found, "imageId"), ["ami-00000000000000001", "ami-00000000000000003"]);
    assert_eq!(all(&found, "imageOwnerAlias"), ["amazon"]);
    let launch = run(1, 1, &[("ImageId", "ami-00000000000000004")]);
    assert_eq!(wire.refused("RunInstances", &launch.as_pairs()).await.1, "InvalidAMIID.Unavailable");
    let arm = run(1, 1, &[("ImageId", "ami-00000000000000001"), ("InstanceType", "m6g.large")]);
    let (_, body) = wire.call("RunInstances", &arm.as_pairs()).await;
    assert!(one(&body, "Message").contains("architecture"), "{body}");
}

#[tokio::test]
async fn types_are_listed_in_pages_and_offered_by_zone() {
    let unsupported = BTreeSet::from([("g5.xlarge".to_owned(), "us-east-1c".to_owned())]);
    let wire = Wire::start(Options { unsupported, ..quick() }).await;
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let page = wire.ok("DescribeInstanceTypes", &[("MaxResults", "10"), ("NextToken", &token)]).await;
        let listed = all(&page, "instanceType");
        assert!(listed.len() <= 10);
        seen.extend(listed);
        match all(&page, "nextToken").pop() {
            Some(next) => token = next,
            None => break,
        }
    }
    assert!(seen.len() > 30 && seen.contains(&"p5.48xlarge".to_owned()), "{seen:?}");
    let filter = [
        ("Filter.1.Name", "instance-type"),
        ("Filter.1.Value.1", "g5.x*"),
        ("LocationType", "availability-zone"),
    ];
    let offered = wire.ok("DescribeInstanceTypeOfferings", &filter).await;
    assert_eq!(all(&offered, "location"), ["us-east-1a", "us-east-1b"]);
    let unknown = [("Filter.1.Name", "instance-type"), ("Filter.1.Value.1", "nonsense.large")];
    assert!(all(&wire.ok("DescribeInstanceTypes", &unknown).await, "instanceType").is_empty());
}

#[tokio::test]
async fn spot_prices_and_the_account_are_told() {
    let mut options = quick();
    options.spot_prices.insert(("g5.xlarge".into(), "us-east-1a".into()), 0.4321);
    options.other_regions.insert("af-south-1".into(), "not-opted-in".into());
    let wire = Wire::start(options).await;
    let prices = wire.ok("DescribeSpotPriceHistory", &[("InstanceType.1", "g5.xlarge")]).await;
    assert_eq!(all(&prices, "availabilityZone").len(), 3);
    assert_eq!(one(&prices, "spotPrice"), "0.432100");
    let account = wire.ok("DescribeAccountAttributes", &[]).await;
    assert!(account.contains("<attributeName>default-vpc</attributeName>"), "{account}");
    assert_eq!(all(&wire.ok("DescribeRegions", &[]).await, "regionName").len(), 1);
    let regions = wire.ok("DescribeRegions", &[("AllRegions", "true")]).await;
    assert_eq!(all(&regions, "optInStatus"), ["opt-in-not-required", "not-opted-in"]);
}

#[tokio::test]
async fn groups_of_another_network_are_refused() {
    let mut options = quick();
    options.security_groups.insert("sg-00000000000000002".into(), "elsewhere".into());
    options.vpcs.insert("sg-00000000000000002".into(), "vpc-2".into());
    let wire = Wire::start(options).await;
    let foreign =
        run(1, 1, &[("SecurityGroupId.1", "sg-00000000000000002"), ("SubnetId", "subnet-0000000000000000a")]);
    assert_eq!(wire.refused("RunInstances", &foreign.as_pairs()).await.1, "InvalidParameter");
    wire.ec2.configure(|options| options.default_vpc = false);
    assert_eq!(wire.refused("RunInstances", &run(1, 1, &[]).as_pairs()).await.1, "VPCIdNotSpecified");
    wire.launch(1, 1, &[("SubnetId", "subnet-0000000000000000a")]).await;
}

#[tokio::test]
async fn a_policy_is_asked_for_everything_that_a_launch_does() {
    let wire = Wire::start(quick()).await;
    let launch = run(
        1,
        1,
        &[
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "fleet"),
            ("TagSpecification.1.Tag.1.Value", "a"),
            ("IamInstanceProfile.Name", "worker"),
        ],
    );
    let statement = |actions: &[&str]| json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    for (actions, missing) in [
        (&["ec2:CreateTags", "iam:PassRole"][..], Some("ec2:RunInstances")),
        (&["ec2:RunInstances", "iam:PassRole"], Some("ec2:CreateTags")),
        (&["ec2:RunInstances", "ec2:CreateTags"], Some("iam:PassRole")),
        (&["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"], None),
    ] {
        wire.ec2.configure(|options| options.policy = Some(json!({"Statement": [statement(actions)]})));
        let (status, body) = wire.call("RunInstances", &launch.as_pairs()).await;
        match missing {
            Some(missing) => {
                assert_eq!((status, one(&body, "Code").as_str()), (403, "UnauthorizedOperation"));
                assert!(one(&body, "Message").contains(missing), "{body}");
            }
            None => assert_eq!(status, 200, "{body}"),
        }
    }
    let used = wire.ec2.permissions_used();
    let expected = ["ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"].map(str::to_owned);
    assert_eq!(used, BTreeSet::from(expected));
}

#[tokio::test]
async fn what_may_be_ended_is_told_by_its_tags() {
    let wire = Wire::start(quick()).await;
    let tagged = |value| {
        [
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "fleet"),
            ("TagSpecification.1.Tag.1.Value", value),
        ]
    };
    let ours = wire.launch(1, 1, &tagged("a")).await.remove(0);
    let theirs = wire.launch(1, 1, &tagged("b")).await.remove(0);
    let condition = json!({"StringEquals": {"aws:ResourceTag/fleet": "a"}});
    let end = json!({"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": condition});
    wire.ec2.configure(|options| options.policy = Some(json!({"Statement": [end]})));
    for denied in [theirs.as_str(), "i-00000000000000000"] {
        let call = wire.refused("TerminateInstances", &[("InstanceId.1", denied)]).await;
        assert_eq!(call, (403, "UnauthorizedOperation".into()));
    }
    wire.ok("TerminateInstances", &[("InstanceId.1", &ours)]).await;
}
