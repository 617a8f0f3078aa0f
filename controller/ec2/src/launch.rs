//! A launch as plain data, and the exact request that it stands for.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::fault::Fault;
use crate::merge::merge;
use crate::read::Read as _;
use crate::rules;

/// EC2 takes no more user data than this, in bytes before base64.
pub const USER_DATA_LIMIT: usize = 16 * 1024;

pub(crate) const RUN: &str = "run instances";

/// Up to `count` alike instances of one offering, in one call.
///
/// It serialises, so that the very same request can be sent again after a restart: EC2 refuses a token that comes
/// back with other parameters. Debug hides the user data, which holds a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The AMI; may be absent if `extra` names a launch template.
    #[serde(default)]
    pub image_id: Option<String>,
    /// `g4dn.xlarge`.
    pub instance_type: String,
    /// EC2 launches between one and this many.
    pub count: u32,
    /// Makes the call safe to repeat; 64 ASCII characters at most.
    pub token: String,
    /// Where.
    pub placement: Placement,
    /// How it is paid.
    pub market: Market,
    /// Put on the instances, their volumes and the spot request, within the call.
    pub tags: BTreeMap<String, String>,
    /// How many hops an answer of the metadata service survives: 2 lets containers have it.
    pub hop_limit: u8,
    /// A volume, most often the root.
    #[serde(default)]
    pub volume: Option<Volume>,
    /// Metrics every minute, at a price.
    #[serde(default)]
    pub monitoring: bool,
    /// The SSH key's name.
    #[serde(default)]
    pub key_name: Option<String>,
    /// By id.
    #[serde(default)]
    pub security_group_ids: Vec<String>,
    /// The instances' IAM role.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// As the instance is to see it, at most [`USER_DATA_LIMIT`] bytes.
    pub user_data: String,
    /// RunInstances' own fields in boto3's spelling; they win over the above. Null or a mapping.
    #[serde(default)]
    pub extra: Value,
}

/// Where an instance is put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// EC2 chooses.
    Any,
    /// An availability zone by name.
    Zone(String),
    /// A subnet by id; its zone follows.
    Subnet(String),
}

/// How an instance is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// At the spot price; EC2 may take it back.
    Spot,
    /// At the list price (or from a capacity block, if `extra` says so).
    OnDemand,
}

/// A volume that lives as long as its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `/dev/sda1`; the AMI's root device makes it the root.
    pub device_name: String,
    /// The AMI's own size if absent.
    #[serde(default)]
    pub size_gib: Option<u32>,
    /// `gp3`.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// What it is made from.
    #[serde(default)]
    pub snapshot_id: Option<String>,
}

/// An IAM instance profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// By ARN.
    Arn(String),
    /// By name.
    Name(String),
}

impl LaunchSpec {
    /// Whether a request can be made of it. No I/O.
    ///
    /// # Errors
    /// `Invalid`, naming each fault.
    pub fn check(&self) -> Result<(), Error> {
        self.request().map(drop)
    }

    pub(crate) fn request(&self) -> Result<RunInstancesInputBuilder, Error> {
        let mut faults = rules::faults_of_extra(&self.extra);
        faults.extend(self.own_faults());
        if !faults.is_empty() {
            return Err(Error::invalid(RUN, &faults));
        }
        let parameters = self.parameters();
        if self.count > 1 {
            faults.extend(rules::only_for_one(&parameters));
        }
        match RunInstancesInputBuilder::read(&Value::Object(parameters), "", &mut faults) {
            Some(request) if faults.is_empty() => Ok(request),
            Some(_) | None => Err(Error::invalid(RUN, &faults)),
        }
    }

    fn own_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if i32::try_from(self.count).map_or(true, |count| count < 1) {
            faults.push(Fault::new("count", "must be 1 or more"));
        }
        if !self.token.is_ascii() || !(1..=64).contains(&self.token.len()) {
            faults.push(Fault::new("token", "must be 1 to 64 ascii characters"));
        }
        if self.user_data.len() > USER_DATA_LIMIT {
            let message = format!("has {} bytes; ec2 takes {USER_DATA_LIMIT}", self.user_data.len());
            faults.push(Fault::new("user data", message));
        }
        if self.market == Market::Spot && rules::is_capacity_block(&self.extra) {
            faults.push(Fault::new("InstanceMarketOptions.MarketType", "a capacity block is not spot"));
        }
        faults
    }

    /// The whole request in boto3's spelling.
    fn parameters(&self) -> Map<String, Value> {
        let mut own = Map::new();
        let mut set = |name: &str, value: Value| drop(own.insert(name.to_owned(), value));
        if let Some(image) = &self.image_id {
            set("ImageId", json!(image));
        }
        set("InstanceType", json!(self.instance_type));
        set("MinCount", json!(1));
        set("MaxCount", json!(self.count));
        set("ClientToken", json!(self.token));
        set("UserData", json!(STANDARD.encode(&self.user_data)));
        set("InstanceInitiatedShutdownBehavior", json!("terminate"));
        set(
            "MetadataOptions",
            json!({
                "HttpEndpoint": "enabled",
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": self.hop_limit,
            }),
        );
        match &self.placement {
            Placement::Any => {}
            Placement::Zone(zone) => set("Placement", json!({ "AvailabilityZone": zone })),
            Placement::Subnet(subnet) => set("SubnetId", json!(subnet)),
        }
        match self.market {
            Market::OnDemand => {}
            Market::Spot => {
                let options =
                    json!({"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"});
                set("InstanceMarketOptions", json!({"MarketType": "spot", "SpotOptions": options}));
            }
        }
        if let Some(volume) = &self.volume {
            set("BlockDeviceMappings", json!([volume.mapping()]));
        }
        if self.monitoring {
            set("Monitoring", json!({"Enabled": true}));
        }
        if let Some(key) = &self.key_name {
            set("KeyName", json!(key));
        }
        if !self.security_group_ids.is_empty() {
            set("SecurityGroupIds", json!(self.security_group_ids));
        }
        match &self.profile {
            Some(Profile::Arn(arn)) => set("IamInstanceProfile", json!({ "Arn": arn })),
            Some(Profile::Name(name)) => set("IamInstanceProfile", json!({ "Name": name })),
            None => {}
        }
        set("TagSpecifications", self.tag_specifications());
        merge(own, &self.extra, self.market)
    }

    fn tag_specifications(&self) -> Value {
        let tags: Vec<Value> =
            self.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        let mut tagged = vec!["instance", "volume"];
        if self.market == Market::Spot {
            tagged.push("spot-instances-request");
        }
        tagged.iter().map(|kind| json!({"ResourceType": kind, "Tags": tags})).collect()
    }
}

impl Volume {
    fn mapping(&self) -> Value {
        let mut ebs = json!({"DeleteOnTermination": true});
        if let Some(size) = self.size_gib {
            ebs["VolumeSize"] = json!(size);
        }
        if let Some(volume_type) = &self.volume_type {
            ebs["VolumeType"] = json!(volume_type);
        }
        if let Some(snapshot) = &self.snapshot_id {
            ebs["SnapshotId"] = json!(snapshot);
        }
        json!({"DeviceName": self.device_name, "Ebs": ebs})
    }
}

impl fmt::Debug for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance_type, count, token, placement, market, user_data, .. } = self;
        f.debug_struct("LaunchSpec")
            .field("instance_type", instance_type)
            .field("count", count)
            .field("token", token)
            .field("placement", placement)
            .field("market", market)
            .field("user_data", &format_args!("{} bytes", user_data.len()))
            .finish_non_exhaustive()
    }
}
