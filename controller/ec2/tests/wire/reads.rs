//! What an operator chooses from: pages, fields, and what EC2 does not know.

use std::collections::BTreeSet;

use ec2::{Architecture, ImageQuery, InstanceTypeQuery, Meaning, OptIn};

use crate::server::{Call, Server, refusal};

fn reply(action: &str, content: &str) -> (u16, String) {
    (200, format!("<{action}Response>{content}</{action}Response>"))
}

fn items(name: &str, items: &[&str]) -> String {
    let items: String = items.iter().map(|item| format!("<item>{item}</item>")).collect();
    format!("<{name}>{items}</{name}>")
}

/// Answers any call with these items, in pages of one.
async fn paged(list: &'static str, found: &'static [&'static str]) -> Server {
    Server::start(move |call| {
        let number: usize = call.get("NextToken").map_or(0, |token| token.parse().unwrap());
        let next = if number + 1 < found.len() {
            format!("<nextToken>{}</nextToken>", number + 1)
        } else {
            String::new()
        };
        reply(&call["Action"], &(items(list, &found[number..=number]) + &next))
    })
    .await
}

#[tokio::test]
async fn regions_tell_whether_the_account_may_use_them() {
    let server = Server::start(|_| {
        let regions = [
            "<regionName>us-east-1</regionName><optInStatus>opt-in-not-required</optInStatus>",
            "<regionName>af-south-1</regionName><optInStatus>not-opted-in</optInStatus>",
            "<regionName>me-south-1</regionName><optInStatus>opted-in</optInStatus>",
        ];
        reply("DescribeRegions", &items("regionInfo", &regions))
    })
    .await;
    let regions = server.client().await.regions().await.unwrap();
    let told: Vec<_> = regions.iter().map(|region| (region.name.as_str(), region.opt_in)).collect();
    assert_eq!(
        told,
        [
            ("af-south-1", OptIn::NotOptedIn),
            ("me-south-1", OptIn::OptedIn),
            ("us-east-1", OptIn::NotRequired)
        ]
    );
    assert_eq!(server.calls()[0]["AllRegions"], "true");
}

#[tokio::test]
async fn local_zones_and_zones_in_trouble_are_told_apart() {
    let server = Server::start(|_| {
        let zones = [
            "<zoneName>us-east-1b</zoneName><zoneState>available</zoneState><zoneType>availability-zone</zoneType>\
             <zoneId>use1-az2</zoneId>",
            "<zoneName>us-east-1-bos-1a</zoneName><zoneState>available</zoneState><zoneType>local-zone</zoneType>",
            "<zoneName>us-east-1a</zoneName><zoneState>unavailable</zoneState>",
        ];
        reply("DescribeAvailabilityZones", &items("availabilityZoneInfo", &zones))
    })
    .await;
    let zones = server.client().await.zones().await.unwrap();
    let told: Vec<_> = zones.iter().map(|zone| (zone.name.as_str(), zone.available, zone.is_local)).collect();
    assert_eq!(
        told,
        [("us-east-1-bos-1a", true, true), ("us-east-1a", false, false), ("us-east-1b", true, false)]
    );
    assert_eq!(zones[2].id.as_deref(), Some("use1-az2"));
}

fn hardware(call: &Call) -> (u16, String) {
    let gpu = "<instanceType>g4dn.xlarge</instanceType><currentGeneration>true</currentGeneration>\
        <vCpuInfo><defaultVCpus>4</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>16384</sizeInMiB></memoryInfo>\
        <processorInfo><supportedArchitectures><item>x86_64</item></supportedArchitectures></processorInfo>\
        <supportedUsageClasses><item>on-demand</item><item>spot</item></supportedUsageClasses>\
        <gpuInfo><gpus><item><name>T4</name><manufacturer>NVIDIA</manufacturer><count>1</count>\
        <memoryInfo><sizeInMiB>16384</sizeInMiB></memoryInfo></item></gpus></gpuInfo>";
    let cpu = "<instanceType>m6g.large</instanceType><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo>\
        <processorInfo><supportedArchitectures><item>arm64</item></supportedArchitectures></processorInfo>";
    match (call["Action"].as_str(), call.get("NextToken").is_some()) {
        ("DescribeInstanceTypes", false) => reply(
            "DescribeInstanceTypes",
            &(items("instanceTypeSet", &[cpu]) + "<nextToken>more</nextToken>"),
        ),
        ("DescribeInstanceTypes", true) => reply("DescribeInstanceTypes", &items("instanceTypeSet", &[gpu])),
        ("DescribeInstanceTypeOfferings", _) => {
            let offered = ["us-east-1a", "us-east-1c"]
                .map(|zone| format!("<instanceType>g4dn.xlarge</instanceType><location>{zone}</location>"));
            reply(
                "DescribeInstanceTypeOfferings",
                &items("instanceTypeOfferingSet", &offered.each_ref().map(String::as_str)),
            )
        }
        (other, _) => refusal(400, "InvalidAction", other),
    }
}

#[tokio::test]
async fn types_are_told_with_their_gpus_and_zones() {
    let server = Server::start(hardware).await;
    let types = server.client().await.instance_types(&InstanceTypeQuery::All).await.unwrap();
    let [gpu, cpu] = types.as_slice() else { panic!("{types:?}") };
    assert_eq!((gpu.name.as_str(), gpu.vcpus, gpu.memory_mib, gpu.spot), ("g4dn.xlarge", 4, 16_384, true));
    assert_eq!(gpu.architectures, [Architecture::X86_64]);
    let gpus = gpu.gpus.as_ref().unwrap();
    assert_eq!((gpus.count, gpus.name.as_str(), gpus.memory_mib), (1, "T4", 16_384));
    let zones = ["us-east-1a", "us-east-1c"].map(str::to_owned);
    assert_eq!(gpu.zones, BTreeSet::from(zones));
    assert_eq!((cpu.name.as_str(), &cpu.gpus, cpu.zones.len(), cpu.spot), ("m6g.large", &None, 0, false));
    assert_eq!(cpu.architectures, [Architecture::Arm64]);
}

#[tokio::test]
async fn named_types_are_asked_for_by_a_filter_that_forgives_unknown_ones() {
    let server = Server::start(hardware).await;
    server.client().await.instance_types(&InstanceTypeQuery::one("g4dn.xlarge")).await.unwrap();
    for call in server.calls() {
        assert_eq!(call["Filter.1.Name"], "instance-type");
        assert_eq!(call["Filter.1.Value.1"], "g4dn.xlarge");
    }
    assert!(
        server
            .calls()
            .iter()
            .any(|call| call.get("LocationType").is_some_and(|kind| kind == "availability-zone"))
    );
}

const OLD: &str = "<imageId>ami-1</imageId><name>deep</name><imageState>available</imageState>\
    <architecture>x86_64</architecture><creationDate>2024-01-01T00:00:00.000Z</creationDate>";
const NEW: &str = "<imageId>ami-2</imageId><name>deep</name><imageState>available</imageState>\
    <architecture>arm64</architecture><creationDate>2025-01-01T00:00:00.000Z</creationDate>\
    <imageOwnerAlias>amazon</imageOwnerAlias><imageOwnerId>1</imageOwnerId><rootDeviceName>/dev/sda1</rootDeviceName>";
const GONE: &str = "<imageId>ami-3</imageId><name>deep</name><imageState>disabled</imageState>\
    <creationDate>2026-01-01T00:00:00.000Z</creationDate>";

#[tokio::test]
async fn a_name_stands_for_the_newest_image_that_can_be_launched() {
    let server = paged("imagesSet", &[NEW, GONE, OLD]).await;
    let image = server.client().await.newest_image("deep").await.unwrap().unwrap();
    assert_eq!(
        (image.id.as_str(), image.architecture, image.owner.as_str()),
        ("ami-2", Architecture::Arm64, "amazon")
    );
    assert_eq!(image.root_device.as_deref(), Some("/dev/sda1"));
    for call in server.calls() {
        let owners: Vec<_> = (1..=3).map(|number| call[&format!("Owner.{number}")].as_str()).collect();
        assert_eq!(owners, ["amazon", "self", "aws-marketplace"], "a stranger's image is not asked for");
        assert_eq!((call["Filter.1.Name"].as_str(), call["Filter.1.Value.1"].as_str()), ("name", "deep"));
    }
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_name_that_nothing_has_stands_for_nothing() {
    let server = paged("imagesSet", &[GONE]).await;
    assert_eq!(server.client().await.newest_image("deep").await.unwrap(), None);
    assert_eq!(server.client().await.images(&ImageQuery::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_none_and_a_refusal_is_an_error() {
    let missing =
        Server::start(|_| refusal(400, "InvalidAMIID.NotFound", "The image id 'ami-9' does not exist")).await;
    assert_eq!(missing.client().await.image("ami-9").await.unwrap(), None);
    let denied = Server::start(|_| refusal(403, "UnauthorizedOperation", "You are not authorized")).await;
    assert_eq!(denied.client().await.image("ami-9").await.unwrap_err().meaning, Meaning::Denied);
}

#[tokio::test]
async fn subnets_and_groups_tell_their_networks() {
    let subnets = paged(
        "subnetSet",
        &[
            "<subnetId>subnet-2</subnetId><vpcId>vpc-1</vpcId><availabilityZone>us-east-1b</availabilityZone>\
             <availableIpAddressCount>7</availableIpAddressCount><defaultForAz>true</defaultForAz>\
             <tagSet><item><key>Name</key><value>workers</value></item></tagSet>",
            "<subnetId>subnet-1</subnetId><vpcId>vpc-2</vpcId>",
        ],
    )
    .await;
    let found = subnets.client().await.subnets().await.unwrap();
    let told: Vec<_> = found.iter().map(|it| (it.id.as_str(), it.vpc.as_str(), it.free_addresses)).collect();
    assert_eq!(told, [("subnet-1", "vpc-2", 0), ("subnet-2", "vpc-1", 7)]);
    assert_eq!((found[1].name.as_deref(), found[1].is_default), (Some("workers"), true));

    let groups = paged(
        "securityGroupInfo",
        &["<groupId>sg-1</groupId><groupName>default</groupName><vpcId>vpc-1</vpcId><ipPermissionsEgress><item>\
           <ipProtocol>tcp</ipProtocol><fromPort>8790</fromPort><toPort>8790</toPort>\
           <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item></ipRanges></item></ipPermissionsEgress>"],
    )
    .await;
    let found = groups.client().await.security_groups().await.unwrap();
    assert_eq!(found[0].vpc.as_deref(), Some("vpc-1"));
    let rule = &found[0].egress[0];
    assert!(rule.takes_tcp(8790) && !rule.takes_tcp(443));
    assert_eq!(rule.cidrs, ["10.0.0.0/8"]);
}

#[tokio::test]
async fn keys_and_the_default_network_are_told() {
    let server = Server::start(|call| match call["Action"].as_str() {
        "DescribeKeyPairs" => {
            reply("DescribeKeyPairs", &items("keySet", &["<keyName>b</keyName>", "<keyName>a</keyName>"]))
        }
        _ => {
            let attribute = |name: &str, value: &str| {
                let values =
                    items("attributeValueSet", &[&format!("<attributeValue>{value}</attributeValue>")]);
                format!("<attributeName>{name}</attributeName>{values}")
            };
            let attributes = [attribute("default-vpc", "none"), attribute("max-instances", "20")];
            let attributes = attributes.each_ref().map(String::as_str);
            reply("DescribeAccountAttributes", &items("accountAttributeSet", &attributes))
        }
    })
    .await;
    let client = server.client().await;
    assert_eq!(client.key_pairs().await.unwrap(), ["a", "b"]);
    let account = client.account().await.unwrap();
    assert_eq!((account.default_vpc, account.max_instances), (None, Some(20)));
}

#[tokio::test]
async fn of_spot_prices_the_latest_of_each_zone_counts() {
    let server = paged(
        "spotPriceHistorySet",
        &[
            "<instanceType>g4dn.xlarge</instanceType><availabilityZone>us-east-1b</availabilityZone>\
             <spotPrice>0.2</spotPrice><timestamp>2026-01-02T03:04:05.000Z</timestamp>",
            "<instanceType>g4dn.xlarge</instanceType><availabilityZone>us-east-1b</availabilityZone>\
             <spotPrice>0.1</spotPrice><timestamp>2026-01-01T03:04:05.000Z</timestamp>",
            "<instanceType>g4dn.xlarge</instanceType><availabilityZone>us-east-1a</availabilityZone>\
             <spotPrice>nonsense</spotPrice><timestamp>2026-01-01T03:04:05.000Z</timestamp>",
        ],
    )
    .await;
    let types = BTreeSet::from(["g4dn.xlarge".to_owned()]);
    let prices = server.client().await.spot_prices(&types).await.unwrap();
    let told: Vec<_> = prices.iter().map(|price| (price.zone.as_str(), price.usd_per_hour)).collect();
    assert_eq!(told, [("us-east-1b", 0.2)]);
    let call = &server.calls()[0];
    assert_eq!(call["ProductDescription.1"], "Linux/UNIX");
    assert!(call.contains_key("StartTime"));
    assert!(server.client().await.spot_prices(&BTreeSet::new()).await.unwrap().is_empty());
    assert_eq!(server.calls().len(), 3, "for no type nothing is asked");
}

#[tokio::test]
async fn a_failing_page_fails_the_list() {
    let server = Server::start(|call| {
        if call.contains_key("NextToken") {
            return refusal(403, "UnauthorizedOperation", "You are not authorized");
        }
        reply(
            "DescribeSubnets",
            &(items("subnetSet", &["<subnetId>subnet-1</subnetId>"]) + "<nextToken>n</nextToken>"),
        )
    })
    .await;
    let error = server.client().await.subnets().await.unwrap_err();
    assert_eq!(error.to_string(), "describe subnets: UnauthorizedOperation: you are not authorized");
}
