//! The sidecar's binaries: read once, so that what is served is what was hashed into user data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use hyper::body::Bytes;
use sha2::{Digest, Sha256};

/// A machine architecture, by the name that `uname -m` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// `x86_64`.
    X86_64,
    /// `aarch64`.
    Aarch64,
}

impl Arch {
    /// Every one that EC2 has.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// As `uname -m` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// The binaries at hand. A copy costs no memory.
#[derive(Clone, Debug, Default)]
pub struct Artifacts(BTreeMap<Arch, Artifact>);

/// One of them.
#[derive(Clone)]
pub struct Artifact {
    /// The file.
    pub(super) bytes: Bytes,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// A binary is there and can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
pub struct ArtifactError {
    path: String,
    source: io::Error,
}

impl Artifacts {
    /// Reads `sidecar-x86_64` and `sidecar-aarch64` in `dir`, as far as they are there.
    ///
    /// # Errors
    /// If one is there and can't be read.
    pub fn load(dir: &Path) -> Result<Self, ArtifactError> {
        let mut artifacts = Self::default();
        for arch in Arch::ALL {
            let path = dir.join(format!("sidecar-{}", arch.name()));
            match std::fs::read(&path) {
                Ok(bytes) => artifacts.insert(arch, bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ArtifactError { path: path.display().to_string(), source }),
            }
        }
        Ok(artifacts)
    }

    /// Serves these bytes for an architecture.
    pub fn insert(&mut self, arch: Arch, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let sha256 = hex(&Sha256::digest(&bytes));
        self.0.insert(arch, Artifact { bytes, sha256 });
    }

    /// The hash of an architecture's binary.
    pub fn hash(&self, arch: Arch) -> Option<&str> {
        self.0.get(&arch).map(|artifact| artifact.sha256.as_str())
    }

    /// All hashes, as user data carries them.
    pub fn hashes(&self) -> BTreeMap<Arch, String> {
        self.0.iter().map(|(arch, artifact)| (*arch, artifact.sha256.clone())).collect()
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Artifact> {
        self.0.iter().find(|(arch, _)| arch.name() == name).map(|(_, artifact)| artifact)
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Artifact({} bytes, {})", self.bytes.len(), self.sha256)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_no_fault_and_a_present_one_is_hashed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sidecar-x86_64"), b"abc").unwrap();
        let artifacts = Artifacts::load(dir.path()).unwrap();
        assert_eq!(
            artifacts.hash(Arch::X86_64),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(artifacts.hash(Arch::Aarch64), None);
        assert!(artifacts.by_name("../x86_64").is_none());
    }

    #[test]
    fn a_binary_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sidecar-aarch64")).unwrap();
        let error = Artifacts::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("sidecar-aarch64"));
    }
}
