//! What a caller looks at before it launches: subnets, groups, keys, zones, regions, the account.

use super::catalog;
use super::error::ApiError;
use super::params::Params;
use super::world::{Done, World};
use super::xml::Xml;

impl World {
    pub(crate) fn describe_subnets(&self, params: &Params) -> Result<Done, ApiError> {
        let ids = params.list("SubnetId");
        let known: Vec<&str> = self.options.subnets.keys().map(String::as_str).collect();
        let listed = pick("InvalidSubnetID.NotFound", "subnet ID", &ids, &known)?;
        Ok(done(|xml| {
            xml.list("subnetSet", listed, |xml, id| {
                let Some(subnet) = self.options.subnets.get(id) else { return };
                xml.leaf("subnetId", id).leaf("state", "available").leaf("vpcId", self.vpc(id));
                xml.leaf("cidrBlock", "10.0.0.0/8").leaf("availableIpAddressCount", self.room_in_subnet(id));
                xml.leaf("availabilityZone", &subnet.zone);
                xml.leaf("defaultForAz", self.options.default_vpc && self.vpc(id) == catalog::VPC);
            });
        }))
    }

    pub(crate) fn describe_security_groups(&self, params: &Params) -> Result<Done, ApiError> {
        let groups = &self.options.security_groups;
        let known: Vec<&str> = groups.keys().map(String::as_str).collect();
        let listed = pick("InvalidGroup.NotFound", "security group", &params.list("GroupId"), &known)?;
        Ok(done(|xml| {
            xml.list("securityGroupInfo", listed, |xml, id| {
                let name = groups.get(id).map_or("", String::as_str);
                xml.leaf("ownerId", catalog::OWNER).leaf("groupId", id).leaf("groupName", name);
                xml.leaf("groupDescription", name).leaf("vpcId", self.vpc(id));
                let everywhere = if self.options.closed_groups.contains(id) { 0 } else { 1 };
                xml.list("ipPermissionsEgress", 0..everywhere, |xml, _| {
                    xml.leaf("ipProtocol", "-1");
                    xml.list("ipRanges", ["0.0.0.0/0"], |xml, range| {
                        xml.leaf("cidrIp", range);
                    });
                });
            });
        }))
    }

    pub(crate) fn describe_key_pairs(&self, params: &Params) -> Result<Done, ApiError> {
        let known: Vec<&str> = self.options.key_pairs.iter().map(String::as_str).collect();
        let listed = pick("InvalidKeyPair.NotFound", "key pair", &params.list("KeyName"), &known)?;
        Ok(done(|xml| {
            xml.list("keySet", listed, |xml, name| {
                xml.leaf("keyPairId", format!("key-{name}")).leaf("keyName", name);
            });
        }))
    }

    pub(crate) fn describe_availability_zones(&self) -> Done {
        let region = &self.options.region;
        done(|xml| {
            xml.list("availabilityZoneInfo", &self.options.zones, |xml, zone| {
                xml.leaf("zoneName", zone).leaf("zoneState", "available").leaf("regionName", region);
                xml.leaf("zoneType", "availability-zone").leaf("optInStatus", "opt-in-not-required");
            });
        })
    }

    pub(crate) fn describe_regions(&self, params: &Params) -> Result<Done, ApiError> {
        let all = params.flag("AllRegions")?;
        let own = [(self.options.region.clone(), "opt-in-not-required".to_owned())];
        let others = self.options.other_regions.iter().map(|(name, state)| (name.clone(), state.clone()));
        let listed = own.into_iter().chain(others).filter(|(_, state)| all || state != "not-opted-in");
        Ok(done(|xml| {
            xml.list("regionInfo", listed, |xml, (region, state)| {
                xml.leaf("regionName", &region).leaf("regionEndpoint", format!("ec2.{region}.amazonaws.com"));
                xml.leaf("optInStatus", state);
            });
        }))
    }

    pub(crate) fn describe_account_attributes(&self) -> Done {
        let vpc = if self.options.default_vpc { catalog::VPC } else { "none" };
        let attributes = [("default-vpc", vpc), ("supported-platforms", "VPC"), ("max-instances", "20")];
        done(|xml| {
            xml.list("accountAttributeSet", attributes, |xml, (name, value)| {
                xml.leaf("attributeName", name);
                xml.list("attributeValueSet", [value], |xml, value| {
                    xml.leaf("attributeValue", value);
                });
            });
        })
    }

    /// The network of a subnet or a security group.
    pub(super) fn vpc(&self, id: &str) -> &str {
        self.options.vpcs.get(id).map_or(catalog::VPC, String::as_str)
    }
}

fn done(content: impl FnOnce(&mut Xml)) -> Done {
    let mut xml = Xml::default();
    content(&mut xml);
    Done { xml, instances: Vec::new() }
}

/// Those asked for, or all; an error naming what is not known.
fn pick<'a>(code: &str, what: &str, ids: &[&'a str], known: &[&'a str]) -> Result<Vec<&'a str>, ApiError> {
    let missing: Vec<&str> = ids.iter().copied().filter(|id| !known.contains(id)).collect();
    if !missing.is_empty() {
        return Err(ApiError::not_found(code, what, &missing));
    }
    Ok(if ids.is_empty() { known.to_vec() } else { ids.to_vec() })
}
