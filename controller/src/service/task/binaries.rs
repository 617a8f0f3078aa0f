//! The autoscaler's own executables, put on ClearML's file server under their SHA-256: the same bytes are
//! stored once, whoever uploads them.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clearml::{Address, Artifact};
use sha2::{Digest as _, Sha256};

use crate::cli::BadInput;
use crate::config::clearml::Settings;
use crate::config::{Config, SidecarSetting};
use crate::gateway::{Arch, Artifacts};
use crate::service::artifacts::{missing_sidecars, sidecar_dir};

/// Where they lie on the file server.
const FOLDER: &str = "clearml-autoscaler";
/// By this name a bootstrap starts it.
const CONTROLLER: &str = "controller";

/// Executables, read and hashed.
#[derive(Debug)]
pub struct Binaries(Vec<Binary>);

struct Binary {
    name: String,
    sha256: String,
    content: Vec<u8>,
}

impl std::fmt::Debug for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {})", self.name, self.content.len(), self.sha256)
    }
}

/// An executable on the file server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// `controller`, `sidecar-x86_64`, ...
    pub name: String,
    /// In lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// On the file server.
    pub path: String,
    /// As the uploader reaches it.
    pub url: String,
}

/// What to do about resources whose sidecar is not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarsMissing {
    /// Refuse: nothing could be launched for them.
    Refuse,
    /// Let it pass: the resources are yet to be chosen.
    Ignore,
}

impl Binaries {
    /// This executable, and the sidecars that the configuration needs.
    ///
    /// # Errors
    /// [`BadInput`] for a sidecar that must be built first.
    pub fn gather(config: &Config, missing: SidecarsMissing) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find this executable")?;
        let mut binaries = vec![Binary::read(CONTROLLER, &own)?];
        if config.sidecar == SidecarSetting::Off {
            return Ok(Self(binaries));
        }
        let dir = sidecar_dir(config)?;
        let remedies = missing_sidecars(config, &Artifacts::load(&dir)?, &dir);
        if let (Some((resource, remedy)), SidecarsMissing::Refuse) = (remedies.first_key_value(), missing) {
            return Err(BadInput(format!("resource {resource}: {remedy}")).into());
        }
        for arch in Arch::ALL {
            let name = format!("sidecar-{}", arch.name());
            let path = dir.join(&name);
            if path.exists() {
                binaries.push(Binary::read(&name, &path)?);
            }
        }
        Ok(Self(binaries))
    }

    /// Puts those on the file server that are not there yet.
    ///
    /// # Errors
    /// [`BadInput`] if there is no file server to put them on.
    pub async fn upload(self, client: &clearml::Client, settings: &Settings) -> anyhow::Result<Vec<Upload>> {
        let address = file_server(settings)?;
        let files = client.file_server(address)?;
        let mut uploads = Vec::new();
        for Binary { name, sha256, content } in self.0 {
            let path = format!("{FOLDER}/{sha256}/{name}");
            let size = content.len() as u64;
            // A stored file that was cut off has another length; what is fetched is hashed in any case.
            if files.length(&path).await.map_err(|error| unstored(&name, &error))? != Some(size) {
                tracing::info!(name, bytes = size, "uploading to ClearML's file server");
                files.store(&path, &content).await.map_err(|error| unstored(&name, &error))?;
            }
            uploads.push(Upload { url: files.url(&path), name, sha256, size, path });
        }
        Ok(uploads)
    }
}

impl Binary {
    fn read(name: &str, path: &Path) -> anyhow::Result<Self> {
        let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), sha256, content })
    }
}

impl Upload {
    /// As the task lists it. Of mode `input`, so that it outlives resets, goes along with clones, and that
    /// deleting one task leaves the file to the others.
    pub fn artifact(&self) -> Artifact {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Artifact {
            key: self.name.clone(),
            kind: "custom".to_owned(),
            mode: "input".to_owned(),
            uri: Some(self.url.clone()),
            hash: Some(self.sha256.clone()),
            content_size: Some(self.size),
            timestamp: Some(now),
        }
    }
}

fn file_server(settings: &Settings) -> Result<Address, BadInput> {
    let remedy = "set api.files_server (CLEARML_FILES_HOST) to ClearML's file server, or name a container image \
                  that has the binaries with --image";
    let Some(url) = &settings.files_server else {
        return Err(BadInput(format!("ClearML's file server is not known: {remedy}")));
    };
    Address::parse(url).map_err(|error| BadInput(format!("api.files_server {error}: {remedy}")))
}

fn unstored(name: &str, error: &clearml::Error) -> anyhow::Error {
    let error = format!("upload {name}: {error}");
    anyhow::anyhow!("{error}; --image names a container image that has the binaries, and nothing is uploaded")
}
