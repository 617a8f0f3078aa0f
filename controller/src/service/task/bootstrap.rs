//! The program of a task that an agent runs: a script that comes by the autoscaler and becomes it. It is read
//! by whatever shell the agent was started from, and keeps to what all of them know.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Upload;
use crate::boot::quote::assignments;

const FETCH: &str = include_str!("run.sh");
const INSTALLED: &str = include_str!("installed.sh");
const START: &str = include_str!("start.sh");
/// Where a container has the volume for its state.
pub(super) const STATE: &str = "/var/lib/clearml-autoscaler-state";

/// Where the executables come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// ClearML's file server.
    Uploaded(&'a [Upload]),
    /// The container's image.
    Image,
    /// Nowhere yet: the script says so.
    Missing,
}

/// The script. It does not begin with `diff `, which an agent would take for a patch.
pub(super) fn script(source: Source<'_>) -> String {
    let (values, text) = match source {
        Source::Uploaded(uploads) => (fetched(uploads), FETCH),
        Source::Image => (vec![], INSTALLED),
        Source::Missing => {
            let why = "the executables of this run were not uploaded: clone the template that \
                       `controller template` makes instead";
            return format!("#!/bin/sh\necho 'clearml-autoscaler: {}'\nexit 1\n", why.replace('\'', ""));
        }
    };
    let state = [("STATE", STATE.to_owned())];
    format!("#!/bin/sh\n{}{text}\n{START}", assignments(values.into_iter().chain(state)))
}

fn fetched(uploads: &[Upload]) -> Vec<(&'static str, String)> {
    let files: Vec<_> = uploads
        .iter()
        .map(|Upload { name, sha256, size, path, url }| {
            json!({"name": name, "sha256": sha256, "size": size, "path": path, "url": url})
        })
        .collect();
    let key = uploads.iter().fold(Sha256::new(), |hash, upload| hash.chain_update(&upload.sha256)).finalize();
    vec![
        ("ARCH", std::env::consts::ARCH.to_owned()),
        ("KEY", key.iter().take(8).map(|byte| format!("{byte:02x}")).collect()),
        ("FILES", serde_json::Value::from(files).to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn upload() -> Upload {
        Upload {
            name: "controller".to_owned(),
            sha256: "abc".to_owned(),
            size: 3,
            path: "it's/here".to_owned(),
            url: "http://files:8081/it's/here".to_owned(),
        }
    }

    #[test]
    fn every_script_is_one_that_a_plain_shell_understands_and_no_patch() {
        for source in [Source::Uploaded(&[upload()]), Source::Image, Source::Missing] {
            let script = script(source);
            assert!(script.starts_with("#!/bin/sh\n"), "{script}");
            for shell in ["sh", "bash"] {
                let status = Command::new(shell).args(["-n", "-c", &script]).status().unwrap();
                assert!(status.success(), "{shell}: {script}");
            }
        }
    }

    #[test]
    fn an_image_without_the_executables_is_told_apart() {
        let output = Command::new("sh")
            .args(["-c", &script(Source::Image)])
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains("no executable \"controller\""), "{told}");
    }
}
