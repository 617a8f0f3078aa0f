//! DescribeImages, and what `ImageId` of a launch stands for.

use super::catalog;
use super::describe::like;
use super::error::ApiError;
use super::options::{Ami, AmiOwner};
use super::params::Params;
use super::world::{Done, World};
use super::xml::Xml;
use crate::instances::Image;

/// An image as it is listed.
struct Listed<'a> {
    id: &'a str,
    ami: Ami,
}

impl World {
    pub(crate) fn describe_images(&self, params: &Params) -> Result<Done, ApiError> {
        let ids = params.list("ImageId");
        let missing: Vec<&str> = ids.iter().copied().filter(|id| self.ami(id).is_none()).collect();
        if !missing.is_empty() {
            return Err(ApiError::not_found("InvalidAMIID.NotFound", "image id", &missing));
        }
        let all = self.options.amis.keys().chain(self.options.images.keys()).map(String::as_str);
        let mut listed: Vec<&str> = if ids.is_empty() { all.collect() } else { ids };
        listed.sort_unstable();
        listed.dedup();
        let owners = params.list("Owner");
        let filters = read_filters(params)?;
        let wanted =
            listed.into_iter().filter_map(|id| Some(Listed { id, ami: self.ami(id)? })).filter(|listed| {
                let owned = owners.is_empty() || owners.iter().any(|owner| listed.ami.owner.is(owner));
                owned && filters.iter().all(|(name, values)| listed.answers(name, values))
            });
        let mut xml = Xml::default();
        xml.list("imagesSet", wanted, |xml, listed| listed.write(xml));
        Ok(Done { xml, instances: Vec::new() })
    }

    /// What lies on the image of a launch, and its id: a parameter is read first.
    pub(super) fn image(&self, given: &str) -> Result<(String, Image), ApiError> {
        let id = match given.strip_prefix("resolve:ssm:") {
            Some(parameter) => self.options.parameters.get(parameter).ok_or_else(|| {
                ApiError::value(format!(
                    "Unable to resolve the Systems Manager parameter '{parameter}': ParameterNotFound"
                ))
            })?,
            None => given,
        };
        if !id.starts_with("ami-") {
            return Err(ApiError::bad("InvalidAMIID.Malformed", format!("Invalid id: \"{id}\"")));
        }
        let Some(ami) = self.ami(id) else {
            return Err(ApiError::not_found("InvalidAMIID.NotFound", "image id", &[id]));
        };
        if ami.state != "available" {
            return Err(ApiError::bad(
                "InvalidAMIID.Unavailable",
                format!("The image ID '{id}' is not available"),
            ));
        }
        let image = self.options.images.get(id).or(self.options.other_images.as_ref());
        Ok((id.to_owned(), image.cloned().unwrap_or(Image::NoProcesses)))
    }

    /// Whether a type runs an image. One of which nothing is said runs on everything.
    pub(super) fn check_architecture(&self, id: &str, instance_type: &str) -> Result<(), ApiError> {
        let (Some(ami), kind) = (self.options.amis.get(id), catalog::architecture(instance_type)) else {
            return Ok(());
        };
        if ami.architecture == kind {
            return Ok(());
        }
        Err(ApiError::value(format!(
            "The architecture '{kind}' of the specified instance type does not match the architecture '{}' of the \
             specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            ami.architecture
        )))
    }

    /// What is known of an AMI; `None` if there is none of this id.
    fn ami(&self, id: &str) -> Option<Ami> {
        let any = id.starts_with("ami-") && self.options.other_images.is_some();
        let unnamed =
            || (self.options.images.contains_key(id) || any).then(|| Ami::named(&format!("sandbox {id}")));
        self.options.amis.get(id).cloned().or_else(unnamed)
    }
}

fn read_filters(params: &Params) -> Result<Vec<(&str, Vec<&str>)>, ApiError> {
    let filter = |index: u32| {
        let name = params.need(&format!("Filter.{index}.Name"))?;
        match name {
            "name" | "architecture" | "state" | "image-id" => {
                Ok((name, params.list(&format!("Filter.{index}.Value"))))
            }
            other => Err(ApiError::value(format!("The filter '{other}' is invalid"))),
        }
    };
    params.indices("Filter").into_iter().map(filter).collect()
}

impl AmiOwner {
    /// Whether a caller's word for an owner means this one.
    fn is(self, owner: &str) -> bool {
        owner == self.account() || self.alias() == Some(owner) || (owner == "self" && self == Self::Own)
    }

    fn alias(self) -> Option<&'static str> {
        match self {
            Self::Amazon => Some("amazon"),
            Self::Marketplace => Some("aws-marketplace"),
            Self::Own | Self::Stranger => None,
        }
    }

    fn account(self) -> &'static str {
        match self {
            Self::Own => catalog::OWNER,
            Self::Amazon => "898082745236",
            Self::Marketplace => "679593333241",
            Self::Stranger => "666666666666",
        }
    }
}

impl Listed<'_> {
    fn answers(&self, name: &str, values: &[&str]) -> bool {
        let text = match name {
            "name" => self.ami.name.as_str(),
            "architecture" => self.ami.architecture.as_str(),
            "state" => self.ami.state.as_str(),
            _ => self.id,
        };
        values.iter().any(|pattern| like(pattern.as_bytes(), text.as_bytes()))
    }

    fn write(&self, xml: &mut Xml) {
        let Ami { name, owner, architecture, state, created } = &self.ami;
        xml.leaf("imageId", self.id).leaf("imageState", state).leaf("imageOwnerId", owner.account());
        xml.maybe("imageOwnerAlias", owner.alias()).leaf("isPublic", *owner != AmiOwner::Own);
        xml.leaf("architecture", architecture).leaf("imageType", "machine").leaf("name", name);
        xml.leaf("creationDate", created).leaf("rootDeviceType", "ebs");
        xml.leaf("rootDeviceName", catalog::ROOT_DEVICE).leaf("virtualizationType", "hvm");
    }
}
