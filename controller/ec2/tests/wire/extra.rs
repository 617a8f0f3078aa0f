//! `extra_configurations`: what it changes of a request, and what it may not say.

use ec2::{LaunchSpec, Market, Placement, Profile, Volume, validate_extra};
use serde_json::{Value, json};

use crate::launch::{sent, spec};
use crate::server::Call;

fn faults(extra: &Value) -> Vec<String> {
    validate_extra(extra).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn has(call: &Call, name: &str, value: &str) {
    assert_eq!(call.get(name).map(String::as_str), Some(value), "{name}");
}

#[track_caller]
fn lacks(call: &Call, beginning: &str) {
    let found: Vec<_> = call.keys().filter(|name| name.starts_with(beginning)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_named_field_replaces_ours_and_its_neighbours_stay() {
    let extra =
        json!({"MetadataOptions": {"HttpPutResponseHopLimit": 5}, "ImageId": "ami-2", "EbsOptimized": true});
    let call = sent(&LaunchSpec { extra, ..spec() }).await;
    has(&call, "ImageId", "ami-2");
    has(&call, "EbsOptimized", "true");
    has(&call, "MetadataOptions.HttpPutResponseHopLimit", "5");
    has(&call, "MetadataOptions.HttpTokens", "required");
}

#[tokio::test]
async fn tags_are_added_to_ours() {
    let extra = json!({"TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "vision"}]},
        {"ResourceType": "network-interface", "Tags": [{"Key": "team", "Value": "vision"}]},
        {"ResourceType": "spot-instances-request", "Tags": [{"Key": "team", "Value": "vision"}]},
    ]});
    let call = sent(&LaunchSpec { extra, ..spec() }).await;
    has(&call, "TagSpecification.1.Tag.1.Key", "clearml-autoscaler:fleet");
    has(&call, "TagSpecification.1.Tag.2.Key", "team");
    lacks(&call, "TagSpecification.2.Tag.2");
    has(&call, "TagSpecification.3.ResourceType", "network-interface");
    // No spot request, no tags of it.
    lacks(&call, "TagSpecification.4");
}

#[tokio::test]
async fn a_tag_that_we_set_too_takes_the_value_of_the_extra() {
    let mut tagged = spec();
    tagged.tags.insert("Name".to_owned(), "prefix-gpu".to_owned());
    tagged.extra = json!({"TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "mine"}]},
    ]});
    let call = sent(&tagged).await;
    has(&call, "TagSpecification.1.Tag.1.Key", "Name");
    has(&call, "TagSpecification.1.Tag.1.Value", "mine");
    has(&call, "TagSpecification.2.Tag.1.Value", "prefix-gpu");
}

#[tokio::test]
async fn a_device_is_merged_with_ours_and_another_is_added() {
    let volume = Volume {
        device_name: "/dev/sda1".to_owned(),
        size_gib: Some(50),
        volume_type: None,
        snapshot_id: None,
    };
    let extra = json!({"BlockDeviceMappings": [
        {"DeviceName": "/dev/sda1", "Ebs": {"Iops": 3000, "VolumeType": "io2"}},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]});
    let call = sent(&LaunchSpec { volume: Some(volume), extra, ..spec() }).await;
    has(&call, "BlockDeviceMapping.1.Ebs.VolumeSize", "50");
    has(&call, "BlockDeviceMapping.1.Ebs.VolumeType", "io2");
    has(&call, "BlockDeviceMapping.1.Ebs.Iops", "3000");
    has(&call, "BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true");
    has(&call, "BlockDeviceMapping.2.VirtualName", "ephemeral0");
}

#[tokio::test]
async fn with_network_interfaces_subnet_and_groups_move_into_them() {
    let extra = json!({"NetworkInterfaces": [
        {"DeviceIndex": 0, "AssociatePublicIpAddress": true},
        {"DeviceIndex": 1, "NetworkCardIndex": 1, "Groups": ["sg-9"], "InterfaceType": "efa"},
    ]});
    let call = sent(&LaunchSpec {
        placement: Placement::Subnet("subnet-1".to_owned()),
        security_group_ids: vec!["sg-1".to_owned()],
        extra,
        ..spec()
    })
    .await;
    lacks(&call, "SubnetId");
    lacks(&call, "SecurityGroupId");
    has(&call, "NetworkInterface.1.SubnetId", "subnet-1");
    has(&call, "NetworkInterface.1.SecurityGroupId.1", "sg-1");
    has(&call, "NetworkInterface.1.AssociatePublicIpAddress", "true");
    has(&call, "NetworkInterface.2.SubnetId", "subnet-1");
    has(&call, "NetworkInterface.2.SecurityGroupId.1", "sg-9");
}

#[tokio::test]
async fn an_interface_that_exists_keeps_its_subnet_and_groups() {
    let extra = json!({"NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": "eni-1"}]});
    let call = sent(&LaunchSpec {
        count: 1,
        placement: Placement::Subnet("subnet-1".to_owned()),
        security_group_ids: vec!["sg-1".to_owned()],
        extra,
        ..spec()
    })
    .await;
    lacks(&call, "SubnetId");
    lacks(&call, "SecurityGroupId");
    lacks(&call, "NetworkInterface.1.S");
}

#[tokio::test]
async fn an_extra_subnet_takes_the_place_of_our_zone() {
    let placement = Placement::Zone("us-east-1b".to_owned());
    let extra = json!({"SubnetId": "subnet-2", "Placement": {"Tenancy": "dedicated"}});
    let call = sent(&LaunchSpec { placement, extra, ..spec() }).await;
    has(&call, "SubnetId", "subnet-2");
    has(&call, "Placement.Tenancy", "dedicated");
    lacks(&call, "Placement.AvailabilityZone");
}

#[tokio::test]
async fn spot_options_apply_to_spot_alone() {
    let extra = json!({"InstanceMarketOptions": {"SpotOptions": {"MaxPrice": "0.5"}}});
    let call = sent(&LaunchSpec { market: Market::Spot, extra: extra.clone(), ..spec() }).await;
    has(&call, "InstanceMarketOptions.SpotOptions.MaxPrice", "0.5");
    has(&call, "InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time");
    lacks(&sent(&LaunchSpec { extra, ..spec() }).await, "InstanceMarketOptions");
}

#[tokio::test]
async fn a_capacity_block_is_bought_on_demand() {
    let extra = json!({
        "InstanceMarketOptions": {"MarketType": "capacity-block"},
        "CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}},
    });
    let call = sent(&LaunchSpec { extra: extra.clone(), ..spec() }).await;
    has(&call, "InstanceMarketOptions.MarketType", "capacity-block");
    let target = "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId";
    has(&call, target, "cr-1");
    let error = LaunchSpec { market: Market::Spot, extra, ..spec() }.check().unwrap_err();
    assert!(error.to_string().contains("a capacity block is not spot"), "{error}");
}

#[tokio::test]
async fn an_extra_profile_replaces_ours_as_a_whole() {
    let extra = json!({"IamInstanceProfile": {"Arn": "arn:2"}});
    let call = sent(&LaunchSpec { profile: Some(Profile::Name("one".to_owned())), extra, ..spec() }).await;
    has(&call, "IamInstanceProfile.Arn", "arn:2");
    lacks(&call, "IamInstanceProfile.Name");
}

#[tokio::test]
async fn a_launch_template_can_stand_for_the_image_but_not_protect_the_instance() {
    let extra = json!({"LaunchTemplate": {"LaunchTemplateName": "gpu", "Version": "$Latest"}});
    let call = sent(&LaunchSpec { image_id: None, extra, ..spec() }).await;
    has(&call, "LaunchTemplate.LaunchTemplateName", "gpu");
    has(&call, "DisableApiTermination", "false");
    lacks(&call, "ImageId");
}

#[test]
fn an_address_can_be_given_to_one_instance_only() {
    let extra = json!({"NetworkInterfaces": [{"DeviceIndex": 0, "PrivateIpAddress": "10.0.0.4"}]});
    LaunchSpec { count: 1, extra: extra.clone(), ..spec() }.check().unwrap();
    let error = LaunchSpec { count: 2, extra, ..spec() }.check().unwrap_err();
    let expected = "run instances: NetworkInterfaces[0].PrivateIpAddress: belongs to one instance: set the pool's \
                    maximum to 1";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn nothing_is_no_fault() {
    assert!(validate_extra(&Value::Null).is_empty());
    assert!(validate_extra(&json!({})).is_empty());
}

#[test]
fn an_unknown_field_is_named_with_its_path_and_the_nearest_known_one() {
    let extra = json!({
        "keyname": "me",
        "Sparkle": 1,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1"}, {"Ebs": {"VolumSize": 8}}],
        "HibernationOptions": {"On": true},
    });
    assert_eq!(
        faults(&extra),
        [
            "BlockDeviceMappings[1].Ebs.VolumSize: unknown field; did you mean VolumeSize?",
            "HibernationOptions.On: unknown field; known here: Configured",
            "Sparkle: unknown field; see the parameters of boto3's run_instances",
            "keyname: unknown field; did you mean KeyName?",
        ]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_what_is_allowed() {
    let extra = json!({
        "CpuOptions": {"CoreCount": "4", "ThreadsPerCore": -1},
        "CreditSpecification": "unlimited",
        "EbsOptimized": "yes",
        "InstanceMarketOptions": {"SpotOptions": {"MaxPrice": 0.5, "ValidUntil": "soon"}},
        "Placement": {"Tenancy": "mine"},
        "SecurityGroupIds": "sg-1",
    });
    assert_eq!(
        faults(&extra),
        [
            "CpuOptions.CoreCount: must be a whole number from 0 up, not a text",
            "CpuOptions.ThreadsPerCore: must be a whole number from 0 up, not that number",
            "CreditSpecification: must be a mapping, not a text",
            "EbsOptimized: must be true or false, not a text",
            "InstanceMarketOptions.SpotOptions.MaxPrice: must be a text: write \"0.5\" in quotes",
            "InstanceMarketOptions.SpotOptions.ValidUntil: must be an instant such as 2030-01-31T12:00:00Z",
            "Placement.Tenancy: must be one of dedicated, default, host, not \"mine\"",
            "SecurityGroupIds: must be a list, not a text",
        ]
    );
}

#[test]
fn what_would_break_our_promises_is_refused() {
    let extra = json!({
        "ClientToken": "x",
        "UserData": "x",
        "InstanceType": "p5.48xlarge",
        "DisableApiTermination": true,
        "InstanceInitiatedShutdownBehavior": "stop",
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent"}},
        "MetadataOptions": {"HttpEndpoint": "disabled"},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "clearml-autoscaler:fleet", "Value": "other"}]},
            {"ResourceType": "vpc", "Tags": []},
        ],
    });
    assert_eq!(
        faults(&extra),
        [
            "ClientToken: can't be set here: it is the controller's own",
            "DisableApiTermination: must be false if it is set, or the controller could not end its instances",
            "InstanceInitiatedShutdownBehavior: must be terminate if it is set, or instances that shut down would \
             be kept and paid for",
            "InstanceMarketOptions.MarketType: must be capacity-block if it is set, as is_spot says what is spot",
            "InstanceMarketOptions.SpotOptions.SpotInstanceType: must be one-time if it is set, or ec2 would launch \
             again what the controller ended",
            "InstanceType: can't be set here: it is set by the resource's instance_type",
            "MetadataOptions.HttpEndpoint: must be enabled if it is set, as instances learn their id there",
            "TagSpecifications[0].Tags[0].Key: can't begin with clearml-autoscaler: or aws:",
            "TagSpecifications[1].ResourceType: must be one of instance, network-interface, \
             spot-instances-request, volume, not \"vpc\"",
            "UserData: can't be set here: it is the controller's own; use extra_vm_bash_script",
        ]
    );
}

#[test]
fn what_is_no_mapping_is_refused() {
    assert_eq!(faults(&json!(["x"])), ["must be a mapping, not a list"]);
}
