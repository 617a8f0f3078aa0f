//! Machine images: by id, by name, by owner.

use aws_sdk_ec2::types;

use crate::client::Client;
use crate::error::Error;
use crate::hardware::{Architecture, architecture, filter};
use crate::listing::whole;

const IMAGES: &str = "describe images";

/// Whose images a name may stand for: Amazon's own, the account's, and what the marketplace has checked. A stranger
/// can publish an image under any name.
pub const TRUSTED_OWNERS: [&str; 3] = ["amazon", "self", "aws-marketplace"];

/// Which images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageQuery {
    /// Whose: account ids, `self`, `amazon`, `aws-marketplace`. None: [`TRUSTED_OWNERS`].
    pub owners: Vec<String>,
    /// `*` is any text, `?` any character; no image has them in its name.
    pub name: Option<String>,
    /// Of this architecture.
    pub architecture: Option<Architecture>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `ami-0123456789abcdef0`.
    pub id: String,
    /// Unique among its owner's images of the region.
    pub name: String,
    /// In words.
    pub description: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// `/dev/sda1`: where a volume must be mapped to be the root.
    pub root_device: Option<String>,
    /// Instances can be launched from it. It may be pending, failed, disabled or deregistered instead.
    pub available: bool,
    /// EC2's name for that.
    pub state: String,
    /// `amazon`, `aws-marketplace`, or an account's id.
    pub owner: String,
    /// ISO 8601, so that later ones sort last.
    pub created: String,
    /// After this, ISO 8601, it is no longer listed for others than its owner.
    pub deprecated: Option<String>,
    /// It runs Windows, where none of our scripts do.
    pub is_windows: bool,
}

impl Client {
    /// The image of this id; `None` if there is none, or none that this account may use.
    ///
    /// # Errors
    /// By meaning; `Invalid` if that is no id.
    pub async fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let call = self.sdk.describe_images().image_ids(id).include_disabled(true);
        let pages = call.into_paginator().items().send();
        match whole(IMAGES, pages.collect::<Result<Vec<_>, _>>()).await {
            Ok(found) => Ok(found.iter().find_map(image)),
            Err(error)
                if error.has_code("InvalidAMIID.NotFound") || error.has_code("InvalidAMIID.Unavailable") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The images that answer a query, oldest first, whatever their state.
    ///
    /// # Errors
    /// By meaning.
    pub async fn images(&self, query: &ImageQuery) -> Result<Vec<Image>, Error> {
        let ImageQuery { owners, name, architecture } = query;
        let mut call = self.sdk.describe_images();
        call = if owners.is_empty() {
            call.set_owners(Some(TRUSTED_OWNERS.map(str::to_owned).to_vec()))
        } else {
            call.set_owners(Some(owners.clone()))
        };
        if let Some(name) = name {
            call = call.filters(filter("name", vec![name.clone()]));
        }
        let wanted = match architecture {
            Some(Architecture::X86_64) => Some("x86_64"),
            Some(Architecture::Arm64) => Some("arm64"),
            Some(Architecture::Other) | None => None,
        };
        if let Some(wanted) = wanted {
            call = call.filters(filter("architecture", vec![wanted.to_owned()]));
        }
        let pages = call.into_paginator().items().send();
        let found = whole(IMAGES, pages.collect::<Result<Vec<_>, _>>()).await?;
        let mut images: Vec<Image> = found.iter().filter_map(image).collect();
        images.sort_by(|one, other| (&one.created, &one.id).cmp(&(&other.created, &other.id)));
        Ok(images)
    }

    /// The newest image with exactly this name that instances can be launched from, of [`TRUSTED_OWNERS`] alone.
    ///
    /// # Errors
    /// By meaning.
    pub async fn newest_image(&self, name: &str) -> Result<Option<Image>, Error> {
        let query = ImageQuery { name: Some(name.to_owned()), ..ImageQuery::default() };
        let mut found = self.images(&query).await?.into_iter();
        Ok(found.rfind(|image| image.available && image.name == name))
    }
}

fn image(image: &types::Image) -> Option<Image> {
    let state = image.state().map_or("available", types::ImageState::as_str);
    Some(Image {
        id: image.image_id()?.to_owned(),
        name: image.name().unwrap_or_default().to_owned(),
        description: image.description().unwrap_or_default().to_owned(),
        architecture: image.architecture().map_or(Architecture::Other, |kind| architecture(kind.as_str())),
        root_device: image.root_device_name().map(str::to_owned),
        available: state == "available",
        state: state.to_owned(),
        owner: image.image_owner_alias().or(image.owner_id()).unwrap_or_default().to_owned(),
        created: image.creation_date().unwrap_or_default().to_owned(),
        deprecated: image.deprecation_time().map(str::to_owned),
        is_windows: image
            .platform()
            .is_some_and(|platform| platform.as_str().eq_ignore_ascii_case("windows")),
    })
}
