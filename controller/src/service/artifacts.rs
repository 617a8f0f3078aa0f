//! Which sidecar a resource needs, and whether it is at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use planner::{InstanceType, ResourceName};

use crate::config::Config;
use crate::gateway::{Arch, Artifacts};

/// `sidecar_dir`, or where this executable lies.
pub(crate) fn sidecar_dir(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &config.sidecar_dir {
        return Ok(dir.clone());
    }
    let executable = std::env::current_exe()?;
    Ok(executable.parent().map(PathBuf::from).unwrap_or_default())
}

/// Resources whose sidecar is missing, and what to do about it.
pub(super) fn missing_sidecars(
    config: &Config,
    artifacts: &Artifacts,
    dir: &Path,
) -> BTreeMap<ResourceName, String> {
    let missing = config.resources.iter().filter_map(|resource| {
        let arch = architecture(&resource.instance_type);
        artifacts.hash(arch).is_none().then(|| (resource.name.clone(), remedy(arch, dir)))
    });
    missing.collect()
}

/// How to make a sidecar that is missing.
pub(crate) fn remedy(arch: Arch, dir: &Path) -> String {
    let build = match arch {
        Arch::X86_64 => "cargo build --profile tiny --bin sidecar, then copy target/tiny/sidecar there",
        Arch::Aarch64 => {
            "cargo zigbuild --profile tiny --bin sidecar --target aarch64-unknown-linux-gnu.2.17, then copy \
             target/aarch64-unknown-linux-gnu/tiny/sidecar there"
        }
    };
    format!("{} has no sidecar-{}: {build} by that name", dir.display(), arch.name())
}

/// By EC2's naming: a `g` behind the generation's number is a Graviton.
pub(crate) fn architecture(instance_type: &InstanceType) -> Arch {
    let family = instance_type.as_str().split('.').next().unwrap_or_default();
    let attributes = family.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if family == "a1" || attributes.trim_start_matches(|c: char| c.is_ascii_digit()).contains('g') {
        Arch::Aarch64
    } else {
        Arch::X86_64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gravitons_are_told_by_their_names() {
        for name in [
            "g5g.xlarge",
            "t4g.micro",
            "c7gn.large",
            "im4gn.large",
            "is4gen.medium",
            "hpc7g.4xlarge",
            "a1.large",
        ] {
            assert_eq!(architecture(&name.into()), Arch::Aarch64, "{name}");
        }
        for name in [
            "g4dn.xlarge",
            "p5en.48xlarge",
            "g6e.xlarge",
            "gr6.4xlarge",
            "t3.micro",
            "u7i-12tb.224xlarge",
            "m7i-flex.large",
        ] {
            assert_eq!(architecture(&name.into()), Arch::X86_64, "{name}");
        }
    }
}
