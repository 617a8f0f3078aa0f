//! What RunInstances takes, in boto3's spelling: one table per structure.
//!
//! Left out: Elastic Graphics and Elastic Inference, which AWS has ended, and `Operator`, which only AWS's own
//! services may set.

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types;
use serde_json::Value;

use crate::fault::Fault;
use crate::read::{Read, choice, read_fields, shape};

impl Read for RunInstancesInputBuilder {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        Some(read_fields!(Self::default(), value, at, faults;
            "AdditionalInfo" set_additional_info,
            "BlockDeviceMappings" set_block_device_mappings,
            "CapacityReservationSpecification" set_capacity_reservation_specification,
            "ClientToken" set_client_token,
            "CpuOptions" set_cpu_options,
            "CreditSpecification" set_credit_specification,
            "DisableApiStop" set_disable_api_stop,
            "DisableApiTermination" set_disable_api_termination,
            "DryRun" set_dry_run,
            "EbsOptimized" set_ebs_optimized,
            "EnablePrimaryIpv6" set_enable_primary_ipv6,
            "EnclaveOptions" set_enclave_options,
            "HibernationOptions" set_hibernation_options,
            "IamInstanceProfile" set_iam_instance_profile,
            "ImageId" set_image_id,
            "InstanceInitiatedShutdownBehavior" set_instance_initiated_shutdown_behavior,
            "InstanceMarketOptions" set_instance_market_options,
            "InstanceType" set_instance_type,
            "Ipv6AddressCount" set_ipv6_address_count,
            "Ipv6Addresses" set_ipv6_addresses,
            "KernelId" set_kernel_id,
            "KeyName" set_key_name,
            "LaunchTemplate" set_launch_template,
            "LicenseSpecifications" set_license_specifications,
            "MaintenanceOptions" set_maintenance_options,
            "MaxCount" set_max_count,
            "MetadataOptions" set_metadata_options,
            "MinCount" set_min_count,
            "Monitoring" set_monitoring,
            "NetworkInterfaces" set_network_interfaces,
            "NetworkPerformanceOptions" set_network_performance_options,
            "Placement" set_placement,
            "PrivateDnsNameOptions" set_private_dns_name_options,
            "PrivateIpAddress" set_private_ip_address,
            "RamdiskId" set_ramdisk_id,
            "SecondaryInterfaces" set_secondary_interfaces,
            "SecurityGroupIds" set_security_group_ids,
            "SecurityGroups" set_security_groups,
            "SubnetId" set_subnet_id,
            "TagSpecifications" set_tag_specifications,
            "UserData" set_user_data))
    }
}

shape! {
    BlockDeviceMapping {
        "DeviceName" set_device_name,
        "Ebs" set_ebs,
        "NoDevice" set_no_device,
        "VirtualName" set_virtual_name,
    }
    CapacityReservationSpecification {
        "CapacityReservationPreference" set_capacity_reservation_preference,
        "CapacityReservationTarget" set_capacity_reservation_target,
    }
    CapacityReservationTarget {
        "CapacityReservationId" set_capacity_reservation_id,
        "CapacityReservationResourceGroupArn" set_capacity_reservation_resource_group_arn,
    }
    ConnectionTrackingSpecificationRequest {
        "TcpEstablishedTimeout" set_tcp_established_timeout,
        "UdpStreamTimeout" set_udp_stream_timeout,
        "UdpTimeout" set_udp_timeout,
    }
    CpuOptionsRequest {
        "AmdSevSnp" set_amd_sev_snp,
        "CoreCount" set_core_count,
        "NestedVirtualization" set_nested_virtualization,
        "ThreadsPerCore" set_threads_per_core,
    }
    CreditSpecificationRequest {
        "CpuCredits" set_cpu_credits,
    }
    EbsBlockDevice {
        "AvailabilityZone" set_availability_zone,
        "AvailabilityZoneId" set_availability_zone_id,
        "DeleteOnTermination" set_delete_on_termination,
        "EbsCardIndex" set_ebs_card_index,
        "Encrypted" set_encrypted,
        "Iops" set_iops,
        "KmsKeyId" set_kms_key_id,
        "OutpostArn" set_outpost_arn,
        "SnapshotId" set_snapshot_id,
        "Throughput" set_throughput,
        "VolumeInitializationRate" set_volume_initialization_rate,
        "VolumeSize" set_volume_size,
        "VolumeType" set_volume_type,
    }
    EnaSrdSpecificationRequest {
        "EnaSrdEnabled" set_ena_srd_enabled,
        "EnaSrdUdpSpecification" set_ena_srd_udp_specification,
    }
    EnaSrdUdpSpecificationRequest {
        "EnaSrdUdpEnabled" set_ena_srd_udp_enabled,
    }
    EnclaveOptionsRequest {
        "Enabled" set_enabled,
    }
    HibernationOptionsRequest {
        "Configured" set_configured,
    }
    IamInstanceProfileSpecification {
        "Arn" set_arn,
        "Name" set_name,
    }
    InstanceIpv6Address {
        "Ipv6Address" set_ipv6_address,
        "IsPrimaryIpv6" set_is_primary_ipv6,
    }
    InstanceMaintenanceOptionsRequest {
        "AutoRecovery" set_auto_recovery,
    }
    InstanceMarketOptionsRequest {
        "MarketType" set_market_type,
        "SpotOptions" set_spot_options,
    }
    InstanceMetadataOptionsRequest {
        "HttpEndpoint" set_http_endpoint,
        "HttpProtocolIpv6" set_http_protocol_ipv6,
        "HttpPutResponseHopLimit" set_http_put_response_hop_limit,
        "HttpTokens" set_http_tokens,
        "InstanceMetadataTags" set_instance_metadata_tags,
    }
    InstanceNetworkInterfaceSpecification {
        "AssociateCarrierIpAddress" set_associate_carrier_ip_address,
        "AssociatePublicIpAddress" set_associate_public_ip_address,
        "ConnectionTrackingSpecification" set_connection_tracking_specification,
        "DeleteOnTermination" set_delete_on_termination,
        "Description" set_description,
        "DeviceIndex" set_device_index,
        "EnaQueueCount" set_ena_queue_count,
        "EnaSrdSpecification" set_ena_srd_specification,
        "Groups" set_groups,
        "InterfaceType" set_interface_type,
        "Ipv4PrefixCount" set_ipv4_prefix_count,
        "Ipv4Prefixes" set_ipv4_prefixes,
        "Ipv6AddressCount" set_ipv6_address_count,
        "Ipv6Addresses" set_ipv6_addresses,
        "Ipv6PrefixCount" set_ipv6_prefix_count,
        "Ipv6Prefixes" set_ipv6_prefixes,
        "NetworkCardIndex" set_network_card_index,
        "NetworkInterfaceId" set_network_interface_id,
        "PrimaryIpv6" set_primary_ipv6,
        "PrivateIpAddress" set_private_ip_address,
        "PrivateIpAddresses" set_private_ip_addresses,
        "SecondaryPrivateIpAddressCount" set_secondary_private_ip_address_count,
        "SubnetId" set_subnet_id,
    }
    InstanceNetworkPerformanceOptionsRequest {
        "BandwidthWeighting" set_bandwidth_weighting,
    }
    InstanceSecondaryInterfacePrivateIpAddressRequest {
        "PrivateIpAddress" set_private_ip_address,
    }
    InstanceSecondaryInterfaceSpecificationRequest {
        "DeleteOnTermination" set_delete_on_termination,
        "DeviceIndex" set_device_index,
        "InterfaceType" set_interface_type,
        "NetworkCardIndex" set_network_card_index,
        "PrivateIpAddressCount" set_private_ip_address_count,
        "PrivateIpAddresses" set_private_ip_addresses,
        "SecondarySubnetId" set_secondary_subnet_id,
    }
    Ipv4PrefixSpecificationRequest {
        "Ipv4Prefix" set_ipv4_prefix,
    }
    Ipv6PrefixSpecificationRequest {
        "Ipv6Prefix" set_ipv6_prefix,
    }
    LaunchTemplateSpecification {
        "LaunchTemplateId" set_launch_template_id,
        "LaunchTemplateName" set_launch_template_name,
        "Version" set_version,
    }
    LicenseConfigurationRequest {
        "LicenseConfigurationArn" set_license_configuration_arn,
    }
    Placement {
        "Affinity" set_affinity,
        "AvailabilityZone" set_availability_zone,
        "AvailabilityZoneId" set_availability_zone_id,
        "GroupId" set_group_id,
        "GroupName" set_group_name,
        "HostId" set_host_id,
        "HostResourceGroupArn" set_host_resource_group_arn,
        "PartitionNumber" set_partition_number,
        "SpreadDomain" set_spread_domain,
        "Tenancy" set_tenancy,
    }
    PrivateDnsNameOptionsRequest {
        "EnableResourceNameDnsAAAARecord" set_enable_resource_name_dns_aaaa_record,
        "EnableResourceNameDnsARecord" set_enable_resource_name_dns_a_record,
        "HostnameType" set_hostname_type,
    }
    PrivateIpAddressSpecification {
        "Primary" set_primary,
        "PrivateIpAddress" set_private_ip_address,
    }
    RunInstancesMonitoringEnabled {
        "Enabled" set_enabled,
    }
    SpotMarketOptions {
        "BlockDurationMinutes" set_block_duration_minutes,
        "InstanceInterruptionBehavior" set_instance_interruption_behavior,
        "MaxPrice" set_max_price,
        "SpotInstanceType" set_spot_instance_type,
        "ValidUntil" set_valid_until,
    }
    Tag {
        "Key" set_key,
        "Value" set_value,
    }
    TagSpecification {
        "ResourceType" set_resource_type,
        "Tags" set_tags,
    }
}

choice! {
    AmdSevSnpSpecification,
    CapacityReservationPreference,
    HostnameType,
    HttpTokensState,
    InstanceAutoRecoveryState,
    InstanceBandwidthWeighting,
    InstanceInterruptionBehavior,
    InstanceMetadataEndpointState,
    InstanceMetadataProtocolState,
    InstanceMetadataTagsState,
    MarketType,
    NestedVirtualizationSpecification,
    SecondaryInterfaceType,
    ShutdownBehavior,
    SpotInstanceType,
    Tenancy,
    VolumeType,
}

/// AWS adds types faster than the SDK learns them: any name will do.
impl Read for types::InstanceType {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        String::read(value, at, faults).map(|name| Self::from(name.as_str()))
    }
}

/// The few of EC2's many resources that RunInstances creates.
impl Read for types::ResourceType {
    fn read(value: &Value, at: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let launched = ["instance", "network-interface", "spot-instances-request", "volume"];
        crate::read::one_of(value, at, &launched, faults).map(Self::from)
    }
}
