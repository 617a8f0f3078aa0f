//! `controller iam-policy`: the least IAM policy for a configuration. Nobody is asked anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use ec2::Purpose;
use planner::Market;

use super::{BadInput, env, print};
use crate::config::{self, Config, ImageRef, InstanceProfile};

pub(crate) fn iam_policy(config_file: &Path) -> anyhow::Result<ExitCode> {
    let config = config::load(config_file, &env).map_err(|faults| BadInput(faults.to_string()))?;
    print(&serde_json::to_string_pretty(&ec2::policy(&purpose(&config)))?)?;
    if config.instance_profile.is_some() {
        tracing::info!(
            "PassRole names a role that is called like the instance profile; change it if yours is not"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What a configuration uses of AWS.
pub(crate) fn purpose(config: &Config) -> Purpose {
    let images = || config.resources.iter().map(|resource| &resource.ami_id);
    let names = |pointer: &str| {
        config.resources.iter().any(|resource| {
            let extra = serde_json::Value::Object(resource.extra.clone());
            extra.pointer(pointer).is_some()
        })
    };
    let further = [
        ("launch-template", "/LaunchTemplate"),
        ("placement-group", "/Placement/GroupName"),
        ("placement-group", "/Placement/GroupId"),
        ("capacity-reservation", "/CapacityReservationSpecification/CapacityReservationTarget"),
        ("dedicated-host", "/Placement/HostId"),
    ];
    Purpose {
        region: config.aws.region.clone(),
        prefix: config.prefix.clone(),
        image_by_name: images().any(|image| matches!(image, ImageRef::Name(_))),
        image_parameters: images()
            .filter_map(|image| match image {
                ImageRef::Parameter(path) => Some(path.clone()),
                ImageRef::Id(_) | ImageRef::Name(_) => None,
            })
            .collect(),
        profile: config.instance_profile.as_ref().map(|profile| match profile {
            InstanceProfile::Arn(arn) => ec2::Profile::Arn(arn.clone()),
            InstanceProfile::Name(name) => ec2::Profile::Name(name.clone()),
        }),
        spot: config.resources.iter().any(|resource| resource.market == Market::Spot),
        ingredients: further
            .iter()
            .filter(|(_, pointer)| names(pointer))
            .map(|(kind, _)| *kind)
            .collect::<BTreeSet<_>>(),
    }
}
