//! EC2's wire as a plain HTTP client sees it: answers, errors, capacity, limits, faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::{LIMIT, USER_DATA, Wire, all, one, run};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandbox::ec2::{ApiError, Fault, Market, Options, Pool, Rate, State, Subnet};
use sandbox::instances::Image;

/// Instances without processes.
fn quick() -> Options {
    Options { other_images: Some(Image::NoProcesses), boot_delay: Duration::ZERO, ..Options::default() }
}

fn pool(zone: &str, market: Market) -> Pool {
    Pool { instance_type: "m5.xlarge".into(), zone: zone.into(), market }
}

async fn all_running(wire: &Wire) {
    let running = |ec2: &sandbox::ec2::Ec2| ec2.instances().iter().all(|it| it.state == State::Running);
    assert!(wire.ec2.wait_until(LIMIT, running).await);
}

#[tokio::test]
async fn instances_are_launched_tagged_described_and_terminated() {
    let wire = Wire::start(quick()).await;
    let body = wire
        .ok(
            "RunInstances",
            &run(
                2,
                2,
                &[
                    ("TagSpecification.1.ResourceType", "instance"),
                    ("TagSpecification.1.Tag.1.Key", "clearml-autoscaler:fleet"),
                    ("TagSpecification.1.Tag.1.Value", "a<b>&\"c"),
                    ("InstanceMarketOptions.MarketType", "spot"),
                    ("KeyName", "sandbox"),
                    ("SecurityGroupId.1", "sg-00000000000000001"),
                    ("IamInstanceProfile.Name", "worker"),
                ],
            )
            .as_pairs(),
        )
        .await;
    assert_eq!(all(&body, "name").first().map(String::as_str), Some("pending"));
    let ids = all(&body, "instanceId");
    all_running(&wire).await;

    let filter = [("Filter.1.Name", "tag:clearml-autoscaler:fleet"), ("Filter.1.Value.1", "a<b>&\"c")];
    let body = wire.ok("DescribeInstances", &filter).await;
    assert_eq!(all(&body, "instanceId"), ids);
    assert_eq!(one(&body, "value"), "a&lt;b&gt;&amp;\"c");
    assert_eq!(one(&body, "instanceLifecycle"), "spot");
    assert_eq!(one(&body, "arn"), "arn:aws:iam::123456789012:instance-profile/worker");
    assert!(body.contains("<instanceState><code>16</code><name>running</name></instanceState>"));
    assert_eq!(all(&body, "reservationId").len(), 1);

    let body = wire.ok("TerminateInstances", &[("InstanceId.1", &ids[0])]).await;
    assert!(body.contains("<currentState><code>32</code><name>shutting-down</name></currentState>"));
    assert!(body.contains("<previousState><code>16</code><name>running</name></previousState>"));
    let gone = |ec2: &sandbox::ec2::Ec2| ec2.counts().terminated == 1;
    assert!(wire.ec2.wait_until(LIMIT, gone).await);
    let body = wire.ok("DescribeInstances", &[("InstanceId.1", &ids[0])]).await;
    assert!(body.contains("<code>Client.UserInitiatedShutdown</code>"), "{body}");
    let filter = [("Filter.1.Name", "instance-state-name"), ("Filter.1.Value.1", "running")];
    assert_eq!(all(&wire.ok("DescribeInstances", &filter).await, "instanceId"), ids[1..]);
    assert_eq!(wire.ec2.counts().left, 1);
    let call = &wire.ec2.calls_of("TerminateInstances")[0];
    assert_eq!(call.instances, ids[..1]);
    assert_eq!(call.error, None);
}

#[tokio::test]
async fn a_token_gives_the_same_instances_until_they_are_gone() {
    let wire = Wire::start(quick()).await;
    let token = [("ClientToken", "t-1")];
    let first = wire.launch(1, 3, &token).await;
    assert_eq!(wire.launch(1, 3, &token).await, first);
    let other = run(1, 4, &token);
    assert_eq!(
        wire.refused("RunInstances", &other.as_pairs()).await,
        (400, "IdempotentParameterMismatch".into())
    );
    for id in &first {
        wire.ok("TerminateInstances", &[("InstanceId.1", id)]).await;
    }
    assert!(wire.ec2.wait_until(LIMIT, |ec2| ec2.counts().left == 0).await);
    let same = run(1, 3, &token);
    assert_eq!(
        wire.refused("RunInstances", &same.as_pairs()).await,
        (400, "IdempotentInstanceTerminated".into())
    );
    assert_eq!(wire.ec2.counts().launched, 3);
}

#[tokio::test]
async fn pages_are_counted_in_instances() {
    let wire = Wire::start(quick()).await;
    let launched = wire.launch(12, 12, &[]).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    let mut pages = Vec::new();
    loop {
        let body = wire.ok("DescribeInstances", &[("MaxResults", "5"), ("NextToken", &token)]).await;
        let ids = all(&body, "instanceId");
        pages.push(ids.len());
        seen.extend(ids);
        match all(&body, "nextToken").pop() {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!(pages, [5, 5, 2]);
    assert_eq!(seen, launched);
    let bad = [("MaxResults", "5"), ("InstanceId.1", launched[0].as_str())];
    assert_eq!(wire.refused("DescribeInstances", &bad).await.1, "InvalidParameterCombination");
    assert_eq!(wire.refused("DescribeInstances", &[("MaxResults", "4")]).await.1, "InvalidParameterValue");
    assert_eq!(wire.refused("DescribeInstances", &[("NextToken", "x")]).await.1, "InvalidNextToken");
}

#[tokio::test]
async fn unknown_ids_are_named_all_of_them_and_nothing_is_terminated() {
    let wire = Wire::start(quick()).await;
    let live = wire.launch(1, 1, &[]).await;
    let ids = [
        ("InstanceId.1", live[0].as_str()),
        ("InstanceId.2", "i-00000000000000001"),
        ("InstanceId.3", "i-00000000000000002"),
    ];
    for action in ["TerminateInstances", "DescribeInstances"] {
        let (status, body) = wire.call(action, &ids).await;
        assert_eq!((status, one(&body, "Code").as_str()), (400, "InvalidInstanceID.NotFound"));
        let message = one(&body, "Message");
        assert_eq!(message, "The instance IDs 'i-00000000000000001, i-00000000000000002' do not exist");
    }
    assert_eq!(wire.ec2.counts().left, 1);
    assert_eq!(wire.refused("TerminateInstances", &[]).await.1, "MissingParameter");
    let bad = [("InstanceId.1", "nonsense")];
    assert_eq!(wire.refused("TerminateInstances", &bad).await.1, "InvalidInstanceID.Malformed");
}

#[tokio::test]
async fn capacity_is_filled_as_far_as_it_goes() {
    let capacity = BTreeMap::from([
        (pool("us-east-1a", Market::Spot), 3),
        (pool("us-east-1b", Market::Spot), 0),
        (pool("us-east-1c", Market::Spot), 1),
    ]);
    let wire = Wire::start(Options { capacity, ..quick() }).await;
    let spot = ("InstanceMarketOptions.MarketType", "spot");
    // The server chooses the zone with the most room.
    let first = wire.launch(1, 10, &[spot]).await;
    assert_eq!(first.len(), 3);
    assert_eq!(wire.ec2.instance(&first[0]).unwrap().zone, "us-east-1a");
    let all_or_none = run(2, 2, &[spot]);
    assert_eq!(
        wire.refused("RunInstances", &all_or_none.as_pairs()).await,
        (500, "InsufficientInstanceCapacity".into())
    );
    assert_eq!(wire.launch(1, 2, &[spot]).await.len(), 1);
    // The other market has room of its own.
    assert_eq!(wire.launch(1, 5, &[("Placement.AvailabilityZone", "us-east-1b")]).await.len(), 5);
    // What ends makes room again.
    wire.ok("TerminateInstances", &[("InstanceId.1", &first[0])]).await;
    assert!(wire.ec2.wait_until(LIMIT, |ec2| ec2.counts().terminated == 1).await);
    assert_eq!(wire.launch(1, 2, &[spot, ("Placement.AvailabilityZone", "us-east-1a")]).await.len(), 1);
}

#[tokio::test]
async fn zones_subnets_and_accounts_have_limits() {
    let unsupported = BTreeSet::from([("m5.xlarge".to_owned(), "us-east-1a".to_owned())]);
    let mut options = Options { unsupported, on_demand_vcpus: Some(9), spot_vcpus: Some(4), ..quick() };
    options.subnets.insert("subnet-full".into(), Subnet { zone: "us-east-1b".into(), addresses: 0 });
    let wire = Wire::start(options).await;
    for (more, code) in [
        (("Placement.AvailabilityZone", "us-east-1a"), "Unsupported"),
        (("Placement.AvailabilityZone", "eu-west-1a"), "InvalidParameterValue"),
        (("SubnetId", "subnet-none"), "InvalidSubnetID.NotFound"),
        (("SubnetId", "subnet-full"), "InsufficientFreeAddressesInSubnet"),
        (("InstanceType", "m5.nonsense"), "InvalidParameterValue"),
        (("ImageId", "img-1"), "InvalidAMIID.Malformed"),
        (("KeyName", "nobody"), "InvalidKeyPair.NotFound"),
        (("SecurityGroupId.1", "sg-none"), "InvalidGroup.NotFound"),
        (("MinCount", "3"), "VcpuLimitExceeded"),
        (("Imageid", "ami-1"), "UnknownParameter"),
        (("UserData", "%%"), "InvalidUserData.Malformed"),
        (("DryRun", "true"), "DryRunOperation"),
    ] {
        let run = run(1, 3, &[more]);
        assert_eq!(wire.refused("RunInstances", &run.as_pairs()).await.1, code, "{more:?}");
    }
    assert_eq!(wire.ec2.counts().launched, 0);
    assert_eq!(wire.launch(1, 3, &[("SubnetId", "subnet-0000000000000000c")]).await.len(), 2);
    let spot = ("InstanceMarketOptions.MarketType", "spot");
    assert_eq!(wire.launch(1, 3, &[spot]).await.len(), 1);
    let full = run(1, 1, &[spot]);
    assert_eq!(wire.refused("RunInstances", &full.as_pairs()).await.1, "MaxSpotInstanceCountExceeded");
}

#[tokio::test]
async fn user_data_over_16_kib_is_refused() {
    let wire = Wire::start(quick()).await;
    let fits = STANDARD.encode(vec![b'x'; 16_384]);
    wire.launch(1, 1, &[(USER_DATA, &fits)]).await;
    let too_long = STANDARD.encode(vec![b'x'; 16_385]);
    let run = run(1, 1, &[(USER_DATA, &too_long)]);
    assert_eq!(wire.refused("RunInstances", &run.as_pairs()).await.1, "InvalidParameterValue");
}

#[tokio::test]
async fn calls_and_launched_instances_are_throttled() {
    let call_rates = BTreeMap::from([("DescribeInstances".to_owned(), Rate { burst: 2.0, per_second: 0.0 })]);
    let launch_rate = Some(Rate { burst: 5.0, per_second: 0.0 });
    let wire = Wire::start(Options { call_rates, launch_rate, ..quick() }).await;
    wire.ok("DescribeInstances", &[]).await;
    wire.ok("DescribeInstances", &[]).await;
    let (status, code) = wire.refused("DescribeInstances", &[]).await;
    assert_eq!((status, code.as_str()), (503, "RequestLimitExceeded"));
    assert_eq!(wire.launch(4, 4, &[]).await.len(), 4);
    let run = run(1, 2, &[]);
    assert_eq!(wire.refused("RunInstances", &run.as_pairs()).await.1, "RequestLimitExceeded");
}

#[tokio::test]
async fn a_new_instance_is_missing_for_a_while() {
    let wire = Wire::start(Options { visible_after: Duration::from_secs(3600), ..quick() }).await;
    let ids = wire.launch(1, 1, &[]).await;
    assert_eq!(all(&wire.ok("DescribeInstances", &[]).await, "instanceId"), Vec::<String>::new());
    let by_id = [("InstanceId.1", ids[0].as_str())];
    assert_eq!(wire.refused("DescribeInstances", &by_id).await.1, "InvalidInstanceID.NotFound");
    wire.ok("TerminateInstances", &by_id).await;
}

#[tokio::test]
async fn terminated_instances_are_forgotten_in_the_end() {
    let wire = Wire::start(Options { retention: Duration::ZERO, ..quick() }).await;
    let ids = wire.launch(1, 1, &[]).await;
    wire.ok("TerminateInstances", &[("InstanceId.1", &ids[0])]).await;
    assert!(wire.ec2.wait_until(LIMIT, |ec2| ec2.counts().terminated == 1).await);
    let by_id = [("InstanceId.1", ids[0].as_str())];
    assert_eq!(wire.refused("DescribeInstances", &by_id).await.1, "InvalidInstanceID.NotFound");
}

#[tokio::test]
async fn faults_come_when_they_are_ordered() {
    let wire = Wire::start(quick()).await;
    let fault = Fault::Refuse(ApiError::new(503, "Unavailable", "The server is overloaded"));
    wire.ec2.fail_next("RunInstances", 2, &fault);
    for _ in 0..2 {
        let run = run(1, 1, &[]);
        assert_eq!(wire.refused("RunInstances", &run.as_pairs()).await, (503, "Unavailable".into()));
    }
    assert_eq!(wire.ec2.counts().launched, 0);

    wire.ec2.fail_next("RunInstances", 1, &Fault::LoseReply);
    let token = run(1, 1, &[("ClientToken", "again")]);
    let lost = wire.try_call("RunInstances", &token.as_pairs()).await;
    assert!(lost.is_err_and(|error| !error.is_timeout()));
    assert_eq!(wire.ec2.counts().launched, 1, "the work was done");
    assert_eq!(wire.launch(1, 1, &[("ClientToken", "again")]).await.len(), 1);
    assert_eq!(wire.ec2.counts().launched, 1, "and not done twice");

    let codes: Vec<Option<String>> =
        wire.ec2.calls_of("RunInstances").into_iter().map(|call| call.error).collect();
    assert_eq!(codes, [Some("Unavailable".into()), Some("Unavailable".into()), None, None]);
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let wire = Wire::start(quick()).await;
    let unsigned = wire.http.post(wire.ec2.url()).body("Action=DescribeInstances").send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert!(unsigned.text().await.unwrap().contains("<Code>AuthFailure</Code>"));
    let foreign = wire
        .http
        .post(wire.ec2.url())
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=X/20260101/us-east-1/ec2/aws4_request, SignedHeaders=a, Signature=b",
        )
        .body("Action=DescribeInstances");
    assert_eq!(foreign.send().await.unwrap().status(), 401);
    assert_eq!(wire.refused("DescribeNonsense", &[]).await, (400, "InvalidAction".into()));
    let filter = [("Filter.1.Name", "nonsense"), ("Filter.1.Value.1", "x")];
    assert_eq!(wire.refused("DescribeInstances", &filter).await.1, "InvalidParameterValue");
}

#[tokio::test]
async fn the_furniture_is_there() {
    let wire = Wire::start(quick()).await;
    let zones = wire.ok("DescribeAvailabilityZones", &[]).await;
    assert_eq!(all(&zones, "zoneName"), ["us-east-1a", "us-east-1b", "us-east-1c"]);
    let types = wire.ok("DescribeInstanceTypes", &[("InstanceType.1", "g4dn.xlarge")]).await;
    assert_eq!(one(&types, "defaultVCpus"), "4");
    assert_eq!(one(&types, "manufacturer"), "NVIDIA");
    let subnets = wire.ok("DescribeSubnets", &[("SubnetId.1", "subnet-0000000000000000b")]).await;
    assert_eq!(one(&subnets, "availabilityZone"), "us-east-1b");
    let images = wire.ok("DescribeImages", &[("ImageId.1", "ami-1")]).await;
    assert_eq!(one(&images, "imageState"), "available");
    for (action, name) in [
        ("DescribeSecurityGroups", "groupName"),
        ("DescribeKeyPairs", "keyName"),
        ("DescribeRegions", "regionName"),
    ] {
        assert_eq!(all(&wire.ok(action, &[]).await, name).len(), 1, "{action}");
    }
    let missing = [("GroupId.1", "sg-none")];
    assert_eq!(wire.refused("DescribeSecurityGroups", &missing).await.1, "InvalidGroup.NotFound");
}

#[tokio::test]
async fn tags_can_be_added_and_instances_stopped() {
    let wire = Wire::start(quick()).await;
    let ids = wire.launch(1, 1, &[]).await;
    all_running(&wire).await;
    let tag = [("ResourceId.1", ids[0].as_str()), ("Tag.1.Key", "Name"), ("Tag.1.Value", "one")];
    wire.ok("CreateTags", &tag).await;
    let filter = [("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", "Na*")];
    assert_eq!(all(&wire.ok("DescribeInstances", &filter).await, "instanceId"), ids);
    wire.ok("StopInstances", &[("InstanceId.1", &ids[0])]).await;
    let stopped = |ec2: &sandbox::ec2::Ec2| ec2.instance(&ids[0]).unwrap().state == State::Stopped;
    assert!(wire.ec2.wait_until(LIMIT, stopped).await);
    wire.ok("TerminateInstances", &[("InstanceId.1", &ids[0])]).await;
    assert_eq!(wire.ec2.counts().left, 0);
}

#[tokio::test]
async fn metadata_wants_a_token_and_tells_of_an_interruption() {
    let wire = Wire::start(quick()).await;
    let spot = [
        ("InstanceMarketOptions.MarketType", "spot"),
        ("MetadataOptions.InstanceMetadataTags", "enabled"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", "worker"),
        (USER_DATA, "aGVsbG8="),
    ];
    let id = wire.launch(1, 1, &spot).await.remove(0);
    all_running(&wire).await;
    let base = wire.ec2.imds_url(&id);
    let get = async |path: &str, token: &str| {
        let request = wire.http.get(format!("{base}/latest/{path}"));
        let response = request.header("X-aws-ec2-metadata-token", token).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let put = || wire.http.put(format!("{base}/latest/api/token"));
    assert_eq!(put().send().await.unwrap().status(), 400);
    let token = put().header("X-aws-ec2-metadata-token-ttl-seconds", "60").send().await.unwrap();
    let token = token.text().await.unwrap();
    let bare = wire.http.get(format!("{base}/latest/meta-data/instance-id")).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert_eq!(get("meta-data/instance-id", "bad").await.0, 401);
    for (path, value) in [
        ("meta-data/instance-id", id.as_str()),
        ("meta-data/instance-type", "m5.xlarge"),
        ("meta-data/instance-life-cycle", "spot"),
        ("meta-data/tags/instance/Name", "worker"),
        ("user-data", "hello"),
    ] {
        assert_eq!(get(path, &token).await, (200, value.to_owned()), "{path}");
    }
    let document = get("dynamic/instance-identity/document", &token).await.1;
    assert!(document.contains(&id));
    for path in
        ["meta-data/spot/instance-action", "meta-data/events/recommendations/rebalance", "meta-data/x"]
    {
        assert_eq!(get(path, &token).await.0, 404, "{path}");
    }

    wire.ec2.recommend_rebalance(&id).unwrap();
    assert!(get("meta-data/events/recommendations/rebalance", &token).await.1.contains("noticeTime"));
    wire.ec2.interrupt(&id, Duration::from_millis(500)).unwrap();
    let action = get("meta-data/spot/instance-action", &token).await.1;
    assert!(
        action.starts_with(r#"{"action":"terminate","time":"20"#) && action.ends_with("Z\"}"),
        "{action}"
    );
    assert!(wire.ec2.wait_until(LIMIT, |ec2| ec2.counts().left == 0).await);
    let reason = wire.ec2.instance(&id).unwrap().reason;
    assert_eq!(reason.as_deref(), Some("Server.SpotInstanceTermination"));
    assert_eq!(get("meta-data/instance-id", &token).await.0, 404);
    assert!(wire.ec2.interrupt(&id, Duration::ZERO).is_err());
}
