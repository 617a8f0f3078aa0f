//! The resources of the configuration against what EC2 knows. No questions here: facts in, lines out.

use std::collections::BTreeSet;

use ec2::{Architecture, Image, InstanceType, SecurityGroup, Subnet};
use planner::{Market, Placement};

use super::Check;
use super::facts::{Facts, Known, Trouble};
use crate::config::{Config, ImageRef, Resource, Volume};
use crate::gateway::Arch;
use crate::prices::Prices;
use crate::service::artifacts::architecture;

/// What is judged by, beside EC2's facts.
pub(super) struct Bench<'a> {
    pub(super) config: &'a Config,
    pub(super) facts: &'a Facts,
    pub(super) region: &'a str,
    pub(super) prices: &'a Prices,
    /// The port that sidecars dial; `None` without sidecars.
    pub(super) port: Option<u16>,
}

impl Bench<'_> {
    /// Type, image, network and key of a resource; `launch` is what EC2 says of launching it.
    pub(super) fn examine(&self, resource: &Resource, launch: &Known<()>) -> Vec<Check> {
        let kind = self.facts.types.as_ref().map(|types| types.get(resource.instance_type.as_str()));
        let mut lines = vec![
            self.kind(resource, kind),
            self.image(resource, kind.ok().flatten(), launch),
            self.network(resource),
        ];
        lines.extend(self.key(resource));
        lines
    }

    fn kind(&self, resource: &Resource, kind: Result<Option<&InstanceType>, &Trouble>) -> Check {
        let name = line(resource, "type");
        let wanted = resource.instance_type.as_str();
        let kind = match kind {
            Err(trouble) => return trouble.told(name),
            Ok(None) => {
                let detail = format!("{} has no instance type {wanted}", self.region);
                return Check::error(name, detail, "correct instance_type, or choose another region");
            }
            Ok(Some(kind)) => kind,
        };
        let detail = self.described(resource, kind);
        if resource.market == Market::Spot && !kind.spot {
            return Check::error(name, format!("{detail}; it is not sold as spot"), "set is_spot: false");
        }
        let zone = match &resource.placement {
            Placement::Any => None,
            Placement::Zone(zone) => Some(zone.clone()),
            Placement::Subnet(id) => self.subnet(id).map(|subnet| subnet.zone.clone()),
        };
        let zones: Vec<&str> = kind.zones.iter().map(String::as_str).collect();
        match zone {
            Some(zone) if !kind.zones.contains(&zone) => {
                let remedy = format!("choose one of {}", zones.join(", "));
                Check::error(name, format!("{detail}; {zone} does not have it"), remedy)
            }
            None if zones.is_empty() => {
                Check::error(name, format!("{detail}; no zone has it"), "choose another type or region")
            }
            Some(_) | None => {
                let own =
                    kind.architectures.iter().any(|it| fits(architecture(&resource.instance_type), *it));
                if own {
                    Check::ok(name, format!("{detail}; in {}", zones.join(", ")))
                } else {
                    let remedy =
                        "use a type whose name tells its architecture: a g behind the number is a Graviton";
                    Check::warning(name, format!("{detail}; by its name another architecture"), remedy)
                }
            }
        }
    }

    fn described(&self, resource: &Resource, kind: &InstanceType) -> String {
        let InstanceType { name, vcpus, memory_mib, gpus, .. } = kind;
        let gpus = gpus.as_ref().map_or_else(
            || "no GPU".to_owned(),
            |gpus| {
                format!(
                    "{} x {} {} of {} GiB",
                    gpus.count,
                    gpus.manufacturer,
                    gpus.name,
                    gpus.memory_mib / 1024
                )
            },
        );
        let price = self
            .prices
            .hourly(name, self.region, resource.market)
            .map_or_else(|| "price not known".to_owned(), |price| price.to_string());
        format!("{name}: {vcpus} vCPUs, {} GiB, {gpus}, {} {price}", memory_mib / 1024, resource.market)
    }

    fn image(&self, resource: &Resource, kind: Option<&InstanceType>, launch: &Known<()>) -> Check {
        let name = line(resource, "image");
        let reference = resource.ami_id.to_string();
        let Some(found) = self.facts.images.get(&reference) else {
            return parameter(name, &reference, launch);
        };
        let image = match found {
            Err(trouble) => return trouble.told(name),
            Ok(None) => {
                let detail = match &resource.ami_id {
                    ImageRef::Name(_) => {
                        format!(
                            "no image in {} that Amazon, this account or the marketplace offers is called {reference}",
                            self.region
                        )
                    }
                    ImageRef::Id(_) | ImageRef::Parameter(_) => {
                        format!("{reference} is not in {}, or not for this account", self.region)
                    }
                };
                return Check::error(name, detail, "correct ami_id: image ids differ from region to region");
            }
            Ok(Some(image)) => image,
        };
        let Image { id, name: title, architecture, root_device, available, state, owner, .. } = image;
        let detail = format!("{id}, {title}, of {owner}");
        if !available {
            return Check::error(
                name,
                format!("{detail}; it is {state}"),
                "choose an image that is available",
            );
        }
        if image.is_windows {
            return Check::error(name, format!("{detail}; it runs Windows"), "choose a Linux image");
        }
        if let Some(kind) = kind.filter(|kind| !kind.architectures.contains(architecture)) {
            let detail =
                format!("{detail}; made for {architecture:?}, and {} is {:?}", kind.name, kind.architectures);
            return Check::error(
                name,
                detail,
                "choose an image for the type's architecture, or another type",
            );
        }
        match (&resource.ebs, root_device) {
            (Some(ebs), Some(root)) if ebs.device_name != *root => {
                let what = match &ebs.volume {
                    Volume::New { size_gib, .. } => format!("a further, empty volume of {size_gib} GiB"),
                    Volume::Snapshot(_) => "a further volume".to_owned(),
                };
                let detail = format!(
                    "{detail}; {} is not its root device {root}, so it becomes {what}",
                    ebs.device_name
                );
                Check::warning(name, detail, format!("set ebs_device_name: {root} to size the root"))
            }
            (Some(_) | None, Some(_) | None) => Check::ok(name, detail),
        }
    }

    fn network(&self, resource: &Resource) -> Check {
        let name = line(resource, "network");
        if ["NetworkInterfaces", "SubnetId"].iter().any(|field| resource.extra.contains_key(*field)) {
            return Check::ok(name, "as extra_configurations says, which is not looked at here");
        }
        let vpc = match self.vpc(resource, &name) {
            Ok(vpc) => vpc,
            Err(check) => return *check,
        };
        let (vpc, seen) = vpc;
        if resource.security_group_ids.is_empty() {
            return Check::ok(name, format!("{seen}; the network's default security group"));
        }
        let groups = match &self.facts.groups {
            Ok(groups) => groups,
            Err(trouble) => return trouble.told(name),
        };
        let mut found: Vec<&SecurityGroup> = Vec::new();
        for id in &resource.security_group_ids {
            let Some(group) = groups.get(id) else {
                return Check::error(
                    name,
                    format!("there is no security group {id} in {}", self.region),
                    "correct security_group_ids",
                );
            };
            if group.vpc.as_deref() != Some(vpc.as_str()) {
                let of = group.vpc.as_deref().unwrap_or("no network");
                let detail = format!("security group {id} belongs to {of}, and instances go to {vpc}");
                return Check::error(name, detail, "choose groups of the subnet's network");
            }
            found.push(group);
        }
        let closed =
            |port: u16| !found.iter().any(|group| group.egress.iter().any(|rule| rule.takes_tcp(port)));
        let ids = resource.security_group_ids.join(", ");
        if let Some(port) = self.port.filter(|port| closed(*port)) {
            let detail =
                format!("{seen}; {ids} let nothing out to TCP port {port}, which the controller listens on");
            return Check::error(name, detail, format!("allow egress to TCP port {port}"));
        }
        Check::ok(name, format!("{seen}; groups {ids}; routes and network ACLs are not looked at"))
    }

    /// The network that instances go to, and where in it.
    fn vpc(&self, resource: &Resource, name: &str) -> Result<(String, String), Box<Check>> {
        match &resource.placement {
            Placement::Subnet(id) => {
                let subnets = self.facts.subnets.as_ref().map_err(|trouble| Box::new(trouble.told(name)))?;
                let Some(subnet) = subnets.get(id) else {
                    let detail = format!("there is no subnet {id} in {}", self.region);
                    return Err(Box::new(Check::error(name, detail, "correct subnet_id")));
                };
                let Subnet { zone, vpc, free_addresses, .. } = subnet;
                let seen = format!("{id} in {zone}, {free_addresses} addresses free");
                let wanted = self.maximum(resource);
                if *free_addresses == 0 {
                    return Err(Box::new(Check::error(name, seen, "choose a subnet with free addresses")));
                }
                if *free_addresses < wanted {
                    let detail = format!("{seen}, and the budget may want {wanted}");
                    return Err(Box::new(Check::warning(
                        name,
                        detail,
                        "choose a larger subnet, or lower the budget",
                    )));
                }
                Ok((vpc.clone(), seen))
            }
            Placement::Zone(_) | Placement::Any => {
                let account = self.facts.account.as_ref().map_err(|trouble| Box::new(trouble.told(name)))?;
                let Some(vpc) = &account.default_vpc else {
                    let detail = format!(
                        "no subnet is named, and the account has no default network in {}",
                        self.region
                    );
                    return Err(Box::new(Check::error(name, detail, "set subnet_id")));
                };
                self.default_subnet(resource, vpc, name)?;
                Ok((vpc.clone(), format!("the default network {vpc}")))
            }
        }
    }

    /// A zone's own default subnet may have been deleted.
    fn default_subnet(&self, resource: &Resource, vpc: &str, name: &str) -> Result<(), Box<Check>> {
        let (Placement::Zone(zone), Ok(subnets)) = (&resource.placement, &self.facts.subnets) else {
            return Ok(());
        };
        let there = |subnet: &Subnet| subnet.is_default && subnet.zone == *zone && subnet.vpc == vpc;
        if subnets.values().any(there) {
            return Ok(());
        }
        let detail = format!("the default network {vpc} has no default subnet in {zone}");
        Err(Box::new(Check::error(name, detail, "set subnet_id, or choose another zone")))
    }

    fn key(&self, resource: &Resource) -> Option<Check> {
        let name = line(resource, "key");
        let key = resource.key_name.as_ref()?;
        Some(match &self.facts.keys {
            Err(trouble) => trouble.told(name),
            Ok(keys) if keys.contains(key) => Check::ok(name, format!("key pair {key}")),
            Ok(keys) => {
                let known: BTreeSet<&str> = keys.iter().map(String::as_str).take(20).collect();
                let listed = known.into_iter().collect::<Vec<_>>().join(", ");
                let detail = format!("there is no key pair {key} in {}", self.region);
                Check::error(name, detail, format!("correct key_name; there are: {listed}"))
            }
        })
    }

    fn subnet(&self, id: &str) -> Option<&Subnet> {
        self.facts.subnets.as_ref().ok()?.get(id)
    }

    fn maximum(&self, resource: &Resource) -> u32 {
        let pools = self.config.pools.iter().filter(|pool| pool.resource == resource.name);
        pools.map(|pool| pool.maximum).sum()
    }
}

/// The name of a resource's check.
pub(super) fn line(resource: &Resource, what: &str) -> String {
    format!("resource.{}.{what}", resource.name)
}

/// EC2 alone reads parameters, and only at a launch, of which the dry run is one.
fn parameter(name: String, reference: &str, launch: &Known<()>) -> Check {
    match launch {
        Ok(()) => Check::ok(name, format!("{reference}: EC2 finds an image there (dry run)")),
        Err(_) => Check::warning(
            name,
            format!("{reference}: EC2 reads it at a launch alone, and the dry run did not get there"),
            "see the line of the launch",
        ),
    }
}

fn fits(ours: Arch, theirs: Architecture) -> bool {
    match theirs {
        Architecture::X86_64 => ours == Arch::X86_64,
        Architecture::Arm64 => ours == Arch::Aarch64,
        Architecture::Other => false,
    }
}
