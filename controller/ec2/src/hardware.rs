//! Instance types: what is in them, and which zones have them.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types;

use crate::client::Client;
use crate::error::Error;
use crate::listing::{unsigned, whole};

const TYPES: &str = "describe instance types";
const OFFERINGS: &str = "describe instance type offerings";

/// Values of one filter; EC2 takes 200.
const MOST_NAMES: usize = 200;

/// Which instance types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceTypeQuery {
    /// All that the region has: some hundreds, in several calls.
    All,
    /// These; what is no type in this region is not in the answer. At most 200.
    Named(BTreeSet<String>),
    /// `g4dn.*`: `*` is any text, `?` any character.
    Like(String),
}

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// `g4dn.xlarge`.
    pub name: String,
    /// By default, hyper-threads counted.
    pub vcpus: u32,
    /// In MiB.
    pub memory_mib: u64,
    /// Its GPUs, alike.
    pub gpus: Option<Gpus>,
    /// Whose code it runs; of an image, one of these is wanted.
    pub architectures: Vec<Architecture>,
    /// Whether it can be had as spot.
    pub spot: bool,
    /// Not superseded by a newer family.
    pub current: bool,
    /// The zones of this region that have it.
    pub zones: BTreeSet<String>,
}

/// The GPUs of an instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    /// How many. A fraction of one counts as one.
    pub count: u32,
    /// `T4`.
    pub name: String,
    /// `NVIDIA`.
    pub manufacturer: String,
    /// Of each, in MiB.
    pub memory_mib: u32,
}

/// A processor's instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// Intel and AMD.
    X86_64,
    /// Graviton.
    Arm64,
    /// 32 bits, or a Mac.
    Other,
}

impl InstanceTypeQuery {
    /// One type.
    pub fn one(name: &str) -> Self {
        Self::Named(BTreeSet::from([name.to_owned()]))
    }

    fn values(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Named(names) => Some(names.iter().take(MOST_NAMES).cloned().collect()),
            Self::Like(pattern) => Some(vec![pattern.clone()]),
        }
    }
}

impl Client {
    /// Instance types of this region with the zones that have them, by name.
    ///
    /// # Errors
    /// By meaning.
    pub async fn instance_types(&self, query: &InstanceTypeQuery) -> Result<Vec<InstanceType>, Error> {
        let (found, mut zones) = tokio::try_join!(self.hardware(query), self.offered_in(query))?;
        let mut found: Vec<InstanceType> = found.iter().filter_map(instance_type).collect();
        for kind in &mut found {
            kind.zones = zones.remove(&kind.name).unwrap_or_default();
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// The zones of this region that have each type; a type that none has is not in the answer.
    ///
    /// # Errors
    /// By meaning.
    pub async fn offered_in(
        &self,
        query: &InstanceTypeQuery,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let call = self
            .sdk
            .describe_instance_type_offerings()
            .location_type(types::LocationType::AvailabilityZone)
            .set_filters(query.values().map(|names| vec![filter("instance-type", names)]));
        let pages = call.into_paginator().items().send();
        let offerings = whole(OFFERINGS, pages.collect::<Result<Vec<_>, _>>()).await?;
        let mut zones: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for offering in offerings {
            if let (Some(kind), Some(zone)) = (offering.instance_type(), offering.location()) {
                zones.entry(kind.as_str().to_owned()).or_default().insert(zone.to_owned());
            }
        }
        Ok(zones)
    }

    async fn hardware(&self, query: &InstanceTypeQuery) -> Result<Vec<types::InstanceTypeInfo>, Error> {
        let call = self
            .sdk
            .describe_instance_types()
            .set_filters(query.values().map(|names| vec![filter("instance-type", names)]));
        let pages = call.into_paginator().items().send();
        whole(TYPES, pages.collect::<Result<Vec<_>, _>>()).await
    }
}

pub(crate) fn filter(name: &str, values: Vec<String>) -> types::Filter {
    types::Filter::builder().name(name).set_values(Some(values)).build()
}

/// By EC2's names.
pub(crate) fn architecture(name: &str) -> Architecture {
    match name {
        "x86_64" => Architecture::X86_64,
        "arm64" => Architecture::Arm64,
        _ => Architecture::Other,
    }
}

fn instance_type(info: &types::InstanceTypeInfo) -> Option<InstanceType> {
    let architectures =
        info.processor_info().map(types::ProcessorInfo::supported_architectures).unwrap_or_default();
    let memory = info.memory_info().and_then(types::MemoryInfo::size_in_mib);
    Some(InstanceType {
        name: info.instance_type()?.as_str().to_owned(),
        vcpus: unsigned(info.v_cpu_info().and_then(types::VCpuInfo::default_v_cpus)),
        memory_mib: memory.and_then(|mib| u64::try_from(mib).ok()).unwrap_or_default(),
        gpus: info.gpu_info().and_then(|gpus| gpus.gpus().first()).map(gpus),
        architectures: architectures.iter().map(|name| architecture(name.as_str())).collect(),
        spot: info.supported_usage_classes().contains(&types::UsageClassType::Spot),
        current: info.current_generation().unwrap_or(true),
        zones: BTreeSet::new(),
    })
}

fn gpus(device: &types::GpuDeviceInfo) -> Gpus {
    let memory = device.memory_info().and_then(types::GpuDeviceMemoryInfo::size_in_mib);
    Gpus {
        count: unsigned(device.count()).max(1),
        name: device.name().unwrap_or("GPU").to_owned(),
        manufacturer: device.manufacturer().unwrap_or_default().to_owned(),
        memory_mib: unsigned(memory),
    }
}
