//! One instance, as EC2 knows it, and how it is written in answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::catalog;
use super::options::Market;
use super::xml::Xml;
use crate::instances::Image;

/// EC2's instance states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not running yet.
    Pending,
    /// Its processes run.
    Running,
    /// On its way to `Terminated`.
    ShuttingDown,
    /// Gone; listed for a while.
    Terminated,
    /// On its way to `Stopped`.
    Stopping,
    /// Kept without running.
    Stopped,
}

impl State {
    pub(crate) fn code(self) -> u8 {
        match self {
            State::Pending => 0,
            State::Running => 16,
            State::ShuttingDown => 32,
            State::Terminated => 48,
            State::Stopping => 64,
            State::Stopped => 80,
        }
    }

    /// Whether it takes up capacity.
    pub fn is_live(self) -> bool {
        match self {
            State::Pending | State::Running | State::ShuttingDown | State::Stopping => true,
            State::Terminated | State::Stopped => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Pending => "pending",
            State::Running => "running",
            State::ShuttingDown => "shutting-down",
            State::Terminated => "terminated",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        })
    }
}

/// Why an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// TerminateInstances.
    Terminated,
    /// StopInstances.
    Stopped,
    /// The operating system powered off.
    PoweredOff,
    /// AWS took the spot capacity back.
    Interrupted,
    /// Its process tree died of something else, or could not be started.
    Failed,
}

impl Cause {
    /// `stateReason`: code and message.
    pub(crate) fn reason(self) -> (&'static str, &'static str) {
        match self {
            Cause::Terminated | Cause::Stopped => {
                ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
            }
            Cause::PoweredOff => (
                "Client.InstanceInitiatedShutdown",
                "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
            ),
            Cause::Interrupted => (
                "Server.SpotInstanceTermination",
                "Server.SpotInstanceTermination: Spot instance termination",
            ),
            Cause::Failed => ("Server.InternalError", "Server.InternalError: Internal error on launch"),
        }
    }
}

/// What an instance asks of its metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetadataOptions {
    pub(crate) token_required: bool,
    pub(crate) hop_limit: u32,
    pub(crate) tags: bool,
}

/// Everything about an instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) reservation: String,
    pub(crate) launch_index: u32,
    pub(crate) image_id: String,
    pub(crate) image: Image,
    pub(crate) instance_type: String,
    pub(crate) zone: String,
    pub(crate) subnet: String,
    pub(crate) market: Market,
    pub(crate) address: Ipv4Addr,
    pub(crate) key_name: Option<String>,
    /// Ids with names.
    pub(crate) groups: Vec<(String, String)>,
    pub(crate) profile: Option<String>,
    pub(crate) monitoring: bool,
    pub(crate) ebs_optimized: bool,
    pub(crate) metadata: MetadataOptions,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) client_token: Option<String>,
    pub(crate) terminates_on_shutdown: bool,
    pub(crate) user_data: Vec<u8>,
    pub(crate) launched_at: Timestamp,
    pub(crate) visible_at: Instant,
    pub(crate) state: State,
    pub(crate) cause: Option<Cause>,
    pub(crate) cause_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Instant>,
    /// When AWS will take it back, once it said so.
    pub(crate) interruption: Option<Timestamp>,
    /// When AWS said that it might.
    pub(crate) rebalance: Option<Timestamp>,
    /// Tells the instance's life to end.
    pub(crate) order: watch::Sender<Option<Cause>>,
}

impl Instance {
    pub(crate) fn private_dns(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("ip-{a}-{b}-{c}-{d}.ec2.internal")
    }

    /// `reason`, by the API's documents `StateTransitionReason`: only of what a caller did it tells when.
    fn transition_reason(&self) -> String {
        match (self.cause, self.cause_at) {
            (Some(Cause::Terminated | Cause::Stopped), Some(at)) => {
                format!("User initiated ({} GMT)", at.strftime("%Y-%m-%d %H:%M:%S"))
            }
            (cause, _) => cause.map_or("", |cause| cause.reason().1).to_owned(),
        }
    }

    /// An item of `instancesSet`.
    pub(crate) fn write(&self, xml: &mut Xml, state: State) {
        xml.leaf("instanceId", &self.id).leaf("imageId", &self.image_id);
        xml.node("instanceState", |xml| write_state(xml, state));
        xml.leaf("privateDnsName", self.private_dns()).leaf("dnsName", "");
        xml.leaf("reason", self.transition_reason());
        xml.maybe("keyName", self.key_name.as_ref()).leaf("amiLaunchIndex", self.launch_index);
        xml.leaf("instanceType", &self.instance_type).leaf("launchTime", millis(self.launched_at));
        xml.node("placement", |xml| {
            xml.leaf("availabilityZone", &self.zone).leaf("groupName", "").leaf("tenancy", "default");
        });
        xml.node("monitoring", |xml| {
            xml.leaf("state", if self.monitoring { "enabled" } else { "disabled" });
        });
        xml.leaf("subnetId", &self.subnet).leaf("vpcId", catalog::VPC).leaf("privateIpAddress", self.address);
        write_groups(xml, &self.groups);
        if let Some(cause) = self.cause {
            let (code, message) = cause.reason();
            xml.node("stateReason", |xml| {
                xml.leaf("code", code).leaf("message", message);
            });
        }
        xml.leaf("architecture", catalog::architecture(&self.instance_type));
        xml.leaf("rootDeviceType", "ebs").leaf("rootDeviceName", catalog::ROOT_DEVICE);
        match self.market {
            Market::Spot => {
                let request = self.id.trim_start_matches("i-");
                let request = request.get(..8).unwrap_or(request);
                xml.leaf("instanceLifecycle", "spot").leaf("spotInstanceRequestId", format!("sir-{request}"));
            }
            Market::OnDemand => {}
        }
        xml.leaf("virtualizationType", "hvm").leaf("clientToken", self.client_token.as_deref().unwrap_or(""));
        write_tags(xml, &self.tags);
        xml.leaf("hypervisor", "xen").leaf("ebsOptimized", self.ebs_optimized);
        if let Some(profile) = &self.profile {
            xml.node("iamInstanceProfile", |xml| {
                xml.leaf("arn", profile).leaf("id", "AIPASANDBOX");
            });
        }
        xml.node("metadataOptions", |xml| {
            xml.leaf("state", "applied");
            xml.leaf("httpTokens", if self.metadata.token_required { "required" } else { "optional" });
            xml.leaf("httpPutResponseHopLimit", self.metadata.hop_limit).leaf("httpEndpoint", "enabled");
            xml.leaf("instanceMetadataTags", if self.metadata.tags { "enabled" } else { "disabled" });
        });
    }
}

/// The code and name of a state.
pub(crate) fn write_state(xml: &mut Xml, state: State) {
    xml.leaf("code", state.code()).leaf("name", state);
}

/// `groupSet`.
pub(crate) fn write_groups(xml: &mut Xml, groups: &[(String, String)]) {
    xml.list("groupSet", groups, |xml, (id, name)| {
        xml.leaf("groupId", id).leaf("groupName", name);
    });
}

/// `tagSet`.
pub(crate) fn write_tags(xml: &mut Xml, tags: &BTreeMap<String, String>) {
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.leaf("key", key).leaf("value", value);
    });
}

/// AWS's spelling: UTC with milliseconds.
pub(crate) fn millis(time: Timestamp) -> String {
    format!("{time:.3}")
}
