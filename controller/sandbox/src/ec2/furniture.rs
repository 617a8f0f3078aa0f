//! What a caller looks at before it launches: images, types, subnets, groups, keys, zones.

use super::catalog;
use super::error::ApiError;
use super::params::Params;
use super::world::{Done, World};
use super::xml::Xml;

impl World {
    pub(crate) fn describe_images(&self, params: &Params) -> Result<Done, ApiError> {
        let ids = params.list("ImageId");
        let known = |id: &str| {
            self.options.images.contains_key(id)
                || (id.starts_with("ami-") && self.options.other_images.is_some())
        };
        let missing: Vec<&str> = ids.iter().copied().filter(|id| !known(id)).collect();
        if !missing.is_empty() {
            return Err(ApiError::not_found("InvalidAMIID.NotFound", "image id", &missing));
        }
        let listed: Vec<&str> =
            if ids.is_empty() { self.options.images.keys().map(String::as_str).collect() } else { ids };
        Ok(done(|xml| {
            xml.list("imagesSet", listed, |xml, id| {
                xml.leaf("imageId", id).leaf("imageState", "available").leaf("imageOwnerId", catalog::OWNER);
                xml.leaf("isPublic", false).leaf("architecture", "x86_64").leaf("imageType", "machine");
                xml.leaf("name", format!("sandbox {id}")).leaf("rootDeviceType", "ebs");
                xml.leaf("rootDeviceName", catalog::ROOT_DEVICE).leaf("virtualizationType", "hvm");
            });
        }))
    }

    pub(crate) fn describe_instance_types(&self, params: &Params) -> Result<Done, ApiError> {
        let types = params.list("InstanceType");
        if let Some(bad) = types.iter().find(|kind| catalog::vcpus(kind).is_none()) {
            let message = format!("The following supplied instance types do not exist: [{bad}]");
            return Err(ApiError::bad("InvalidInstanceType", message));
        }
        Ok(done(|xml| {
            xml.list("instanceTypeSet", types, write_type);
        }))
    }

    pub(crate) fn describe_subnets(&self, params: &Params) -> Result<Done, ApiError> {
        let ids = params.list("SubnetId");
        let known: Vec<&str> = self.options.subnets.keys().map(String::as_str).collect();
        let listed = pick("InvalidSubnetID.NotFound", "subnet ID", &ids, &known)?;
        Ok(done(|xml| {
            xml.list("subnetSet", listed, |xml, id| {
                let Some(subnet) = self.options.subnets.get(id) else { return };
                xml.leaf("subnetId", id).leaf("state", "available").leaf("vpcId", catalog::VPC);
                xml.leaf("cidrBlock", "10.0.0.0/8").leaf("availableIpAddressCount", subnet.addresses);
                xml.leaf("availabilityZone", &subnet.zone).leaf("defaultForAz", true);
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
                xml.leaf("groupDescription", name).leaf("vpcId", catalog::VPC);
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

    pub(crate) fn describe_regions(&self) -> Done {
        let region = &self.options.region;
        done(|xml| {
            xml.list("regionInfo", [region], |xml, region| {
                xml.leaf("regionName", region).leaf("regionEndpoint", format!("ec2.{region}.amazonaws.com"));
                xml.leaf("optInStatus", "opt-in-not-required");
            });
        })
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

fn write_type(xml: &mut Xml, kind: &str) {
    xml.leaf("instanceType", kind).leaf("currentGeneration", true);
    xml.node("vCpuInfo", |xml| {
        xml.leaf("defaultVCpus", catalog::vcpus(kind).unwrap_or(1));
    });
    xml.node("memoryInfo", |xml| {
        xml.leaf("sizeInMiB", catalog::memory_mib(kind));
    });
    xml.node("processorInfo", |xml| {
        xml.node("supportedArchitectures", |xml| {
            xml.leaf("item", catalog::architecture(kind));
        });
    });
    xml.node("supportedUsageClasses", |xml| {
        xml.leaf("item", "on-demand").leaf("item", "spot");
    });
    if let Some((number, name, memory)) = catalog::gpus(kind) {
        xml.node("gpuInfo", |xml| {
            xml.list("gpus", [name], |xml, name| {
                xml.leaf("name", name).leaf("manufacturer", "NVIDIA").leaf("count", number);
                xml.node("memoryInfo", |xml| {
                    xml.leaf("sizeInMiB", memory);
                });
            });
            xml.leaf("totalGpuMemoryInMiB", memory * number);
        });
    }
}
