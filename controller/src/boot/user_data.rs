//! User data: what EC2 hands to an instance, at most 16 KB of it.

use std::io::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use proto::v1;
use sha2::{Digest, Sha256};

use super::quote::{assignments, shell};
use super::script::{self, Identity, LINGER};
use super::{Bootstrap, MAX_USER_DATA, Standalone, TooLarge};
use crate::gateway::Arch;

const BOOTSTRAP: &str = include_str!("bootstrap.sh");
const STANDALONE: &str = include_str!("standalone.sh");
/// With their pauses these take longer than any sensible spin-up limit, which ends the machine first.
const ATTEMPTS: &str = "100";

/// The bootstrap: fetches the sidecar, pinned and hashed, and starts it. The launch secret is the only
/// secret in it, and it never prints that.
///
/// # Errors
/// If it is longer than EC2 takes.
pub fn user_data(bootstrap: &Bootstrap<'_>) -> Result<String, TooLarge> {
    let Bootstrap { controller, pin, launch_secret, intent, sidecars, max_spin_up } = bootstrap;
    let json = serde_json::json!({
        "controller": controller,
        "pin": pin,
        "launch_secret": STANDARD.encode(launch_secret),
        "intent": intent.as_str(),
    });
    let hash = |arch| sidecars.get(&arch).cloned().unwrap_or_default();
    let values = [
        ("CONTROLLER", (*controller).to_owned()),
        ("PIN", (*pin).to_owned()),
        ("SHA256_X86_64", hash(Arch::X86_64)),
        ("SHA256_AARCH64", hash(Arch::Aarch64)),
        ("SIDECAR_JSON", json.to_string()),
        ("MAX_SPIN_UP_MIN", minutes(*max_spin_up)),
        ("ATTEMPTS", ATTEMPTS.to_owned()),
        ("LINGER", LINGER.to_owned()),
    ];
    fitting(format!("#!/bin/bash\n{}{BOOTSTRAP}", assignments(values)))
}

/// Everything in user data, packed: for instances that can't reach the controller. ClearML's keys and the
/// git password are in it then, and whatever runs on the instance can read them there.
///
/// # Errors
/// If it is longer than EC2 takes, packed as it is.
pub fn standalone_user_data(standalone: &Standalone<'_>) -> Result<String, TooLarge> {
    let Standalone { setup, worker_prefix, queue, max_spin_up, max_idle } = standalone;
    let identity = Identity {
        worker_prefix,
        instance: "",
        queue: queue.as_str(),
        self_idle_limit: max_idle.as_secs_f64().to_string(),
    };
    let script = v1::File {
        name: "boot.sh".to_owned(),
        content: script::script(setup, &identity).into_bytes(),
        mode: 0o700,
    };
    let files = script::files(setup).into_iter().chain([script]);
    let unpack: String = files.map(|file| here_document(&file)).collect();
    let values = [
        ("PAYLOAD", STANDARD.encode(gzip(unpack.as_bytes()))),
        ("MAX_SPIN_UP_MIN", minutes(*max_spin_up)),
        ("LINGER", LINGER.to_owned()),
    ];
    fitting(format!("#!/bin/bash\n{}{STANDALONE}", assignments(values)))
}

fn fitting(text: String) -> Result<String, TooLarge> {
    if text.len() > MAX_USER_DATA { Err(TooLarge { size: text.len() }) } else { Ok(text) }
}

/// `shutdown` counts in whole minutes: rounded up, and never 0, which is now.
fn minutes(duration: Duration) -> String {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    whole.div_ceil(60).max(1).to_string()
}

/// Bash that writes the file. The mark that ends it is a hash of what it ends, so that no text contains it.
fn here_document(file: &v1::File) -> String {
    let content = String::from_utf8_lossy(&file.content).replace('\0', "");
    let digest = Sha256::digest(content.as_bytes());
    let mark: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let newline = if content.is_empty() || content.ends_with('\n') { "" } else { "\n" };
    let name = shell(&file.name);
    format!("cat >{name} <<'{mark}'\n{content}{newline}{mark}\nchmod {:o} {name}\n", file.mode)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed: io::Result<Vec<u8>> = encoder.write_all(bytes).and_then(|()| encoder.finish());
    // Writing to memory can't fail.
    packed.unwrap_or_default()
}
