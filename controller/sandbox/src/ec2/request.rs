//! What a RunInstances call asks for, read and checked.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::catalog;
use super::error::ApiError;
use super::instance::MetadataOptions;
use super::options::Market;
use super::params::Params;
use super::world::World;
use crate::instances::Image;

/// AWS's limit on user data, before base64.
const USER_DATA_LIMIT: usize = 16_384;
const TAG_LIMIT: usize = 50;
/// The parameters that RunInstances knows, up to their first dot.
const KNOWN: &[&str] = &[
    "Action",
    "AdditionalInfo",
    "BlockDeviceMapping",
    "CapacityReservationSpecification",
    "ClientToken",
    "CpuOptions",
    "CreditSpecification",
    "DisableApiStop",
    "DisableApiTermination",
    "DryRun",
    "EbsOptimized",
    "EnablePrimaryIpv6",
    "EnclaveOptions",
    "HibernationOptions",
    "IamInstanceProfile",
    "ImageId",
    "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions",
    "InstanceType",
    "Ipv6Address",
    "Ipv6AddressCount",
    "KernelId",
    "KeyName",
    "LaunchTemplate",
    "LicenseSpecification",
    "MaintenanceOptions",
    "MaxCount",
    "MetadataOptions",
    "MinCount",
    "Monitoring",
    "NetworkInterface",
    "NetworkPerformanceOptions",
    "Operator",
    "Placement",
    "PrivateDnsNameOptions",
    "PrivateIpAddress",
    "RamdiskId",
    "SecondaryInterface",
    "SecurityGroup",
    "SecurityGroupId",
    "SubnetId",
    "TagSpecification",
    "UserData",
    "Version",
];

/// A RunInstances call, understood.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) image_id: String,
    pub(super) image: Image,
    pub(super) instance_type: String,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) zone: Option<String>,
    pub(super) subnet: Option<String>,
    pub(super) market: Market,
    pub(super) key_name: Option<String>,
    pub(super) groups: Vec<(String, String)>,
    pub(super) profile: Option<String>,
    pub(super) monitoring: bool,
    pub(super) ebs_optimized: bool,
    pub(super) metadata: MetadataOptions,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) client_token: Option<String>,
    pub(super) terminates_on_shutdown: bool,
    pub(super) user_data: Vec<u8>,
}

impl World {
    pub(super) fn read_launch(&self, params: &Params) -> Result<Launch, ApiError> {
        for name in params.names() {
            let head = name.split('.').next().unwrap_or(name);
            if !KNOWN.contains(&head) {
                let message = format!("The parameter {name} is not recognized");
                return Err(ApiError::bad("UnknownParameter", message));
            }
        }
        let (image_id, image) = self.image(params.need("ImageId")?)?;
        let min = params.parsed("MinCount")?.ok_or_else(|| ApiError::missing("MinCount"))?;
        let max = params.parsed("MaxCount")?.ok_or_else(|| ApiError::missing("MaxCount"))?;
        if min == 0 || max < min {
            return Err(ApiError::value(format!("Invalid range of counts: {min} to {max}")));
        }
        let instance_type = params.get("InstanceType").unwrap_or("m1.small").to_owned();
        if catalog::vcpus(&instance_type).is_none() {
            return Err(ApiError::value(format!("Invalid value '{instance_type}' for InstanceType.")));
        }
        self.check_architecture(&image_id, &instance_type)?;
        let subnet = params.get("SubnetId").or(params.get("NetworkInterface.1.SubnetId")).map(str::to_owned);
        let zone = self.read_zone(params, subnet.as_deref())?;
        let groups = self.read_groups(params, subnet.as_deref())?;
        let client_token = params.get("ClientToken").filter(|token| !token.is_empty()).map(str::to_owned);
        if client_token.as_ref().is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return Err(ApiError::value("ClientToken: at most 64 ASCII characters"));
        }
        let key_name = params.get("KeyName").map(str::to_owned);
        if let Some(name) = key_name.as_ref().filter(|name| !self.options.key_pairs.contains(*name)) {
            return Err(ApiError::not_found("InvalidKeyPair.NotFound", "key pair", &[name]));
        }
        Ok(Launch {
            image,
            image_id,
            instance_type,
            min,
            max,
            zone,
            subnet,
            market: read_market(params)?,
            key_name,
            groups,
            profile: self.read_profile(params)?,
            monitoring: params.flag("Monitoring.Enabled")?,
            ebs_optimized: params.flag("EbsOptimized")?,
            metadata: MetadataOptions {
                token_required: params.get("MetadataOptions.HttpTokens") != Some("optional"),
                hop_limit: params.parsed("MetadataOptions.HttpPutResponseHopLimit")?.unwrap_or(1),
                tags: params.get("MetadataOptions.InstanceMetadataTags") == Some("enabled"),
            },
            tags: read_tags(params)?,
            client_token,
            terminates_on_shutdown: read_shutdown_behaviour(params)?,
            user_data: read_user_data(params)?,
        })
    }

    fn read_zone(&self, params: &Params, subnet: Option<&str>) -> Result<Option<String>, ApiError> {
        let zone = params.get("Placement.AvailabilityZone").map(str::to_owned);
        if let Some(zone) = zone.as_ref().filter(|zone| !self.options.zones.contains(zone)) {
            return Err(ApiError::value(format!("Invalid availability zone: [{zone}]")));
        }
        let Some(subnet) = subnet else { return Ok(zone) };
        let Some(found) = self.options.subnets.get(subnet) else {
            return Err(ApiError::not_found("InvalidSubnetID.NotFound", "subnet ID", &[subnet]));
        };
        if zone.is_some_and(|zone| zone != found.zone) {
            let message = format!("The subnet '{subnet}' is not in the requested availability zone");
            return Err(ApiError::bad("InvalidParameterCombination", message));
        }
        Ok(Some(found.zone.clone()))
    }

    /// Groups must be of the subnet's network; without a subnet, of the default one.
    fn read_groups(&self, params: &Params, subnet: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
        let mut groups = Vec::new();
        let ids = params.list("SecurityGroupId").into_iter();
        for id in ids.chain(params.list("NetworkInterface.1.SecurityGroupId")) {
            let Some(name) = self.options.security_groups.get(id) else {
                return Err(ApiError::not_found("InvalidGroup.NotFound", "security group", &[id]));
            };
            let place = subnet.unwrap_or("default");
            if self.vpc(id) != self.vpc(place) {
                let message = format!("Security group {id} and subnet {place} belong to different networks.");
                return Err(ApiError::bad("InvalidParameter", message));
            }
            groups.push((id.to_owned(), name.clone()));
        }
        for name in params.list("SecurityGroup") {
            let Some((id, _)) = self.options.security_groups.iter().find(|(_, known)| *known == name) else {
                return Err(ApiError::not_found("InvalidGroup.NotFound", "security group", &[name]));
            };
            groups.push((id.clone(), name.to_owned()));
        }
        Ok(groups)
    }

    fn read_profile(&self, params: &Params) -> Result<Option<String>, ApiError> {
        let by_name = params
            .get("IamInstanceProfile.Name")
            .map(|name| format!("arn:aws:iam::{}:instance-profile/{name}", catalog::OWNER));
        let Some(arn) = by_name.or_else(|| params.get("IamInstanceProfile.Arn").map(str::to_owned)) else {
            return Ok(None);
        };
        let name = arn.rsplit('/').next().unwrap_or_default();
        if self.options.profiles.as_ref().is_some_and(|known| !known.contains(name)) {
            return Err(ApiError::value(format!(
                "Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
            )));
        }
        Ok(Some(arn))
    }
}

fn read_market(params: &Params) -> Result<Market, ApiError> {
    match params.get("InstanceMarketOptions.MarketType") {
        None => Ok(Market::OnDemand),
        Some("spot") => Ok(Market::Spot),
        Some(other) => Err(ApiError::value(format!("Invalid value '{other}' for market type"))),
    }
}

fn read_shutdown_behaviour(params: &Params) -> Result<bool, ApiError> {
    match params.get("InstanceInitiatedShutdownBehavior") {
        None | Some("stop") => Ok(false),
        Some("terminate") => Ok(true),
        Some(other) => {
            Err(ApiError::value(format!("Invalid value '{other}' for instanceInitiatedShutdownBehavior")))
        }
    }
}

fn read_user_data(params: &Params) -> Result<Vec<u8>, ApiError> {
    let encoded = params.get("UserData").unwrap_or_default();
    let Ok(user_data) = STANDARD.decode(encoded) else {
        return Err(ApiError::bad("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."));
    };
    if user_data.len() > USER_DATA_LIMIT {
        return Err(ApiError::value("User data is limited to 16384 bytes"));
    }
    Ok(user_data)
}

fn read_tags(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let mut tags = BTreeMap::new();
    for index in params.indices("TagSpecification") {
        let specification = format!("TagSpecification.{index}");
        let pairs = params.pairs(&format!("{specification}.Tag"));
        check_tags(&pairs)?;
        if params.get(&format!("{specification}.ResourceType")) == Some("instance") {
            tags.extend(pairs);
        }
    }
    if tags.len() > TAG_LIMIT {
        return Err(ApiError::bad("TagLimitExceeded", "More than 50 tags specified"));
    }
    Ok(tags)
}

/// AWS's rules for keys and values.
pub(crate) fn check_tags(pairs: &[(String, String)]) -> Result<(), ApiError> {
    for (key, value) in pairs {
        if key.is_empty() || key.chars().count() > 127 || key.starts_with("aws:") {
            return Err(ApiError::value(format!(
                "Tag keys starting with 'aws:', empty or too long: '{key}'"
            )));
        }
        if value.chars().count() > 255 {
            return Err(ApiError::value(format!(
                "Tag value exceeds the maximum length of 255 characters: '{key}'"
            )));
        }
    }
    Ok(())
}
