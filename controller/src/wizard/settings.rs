//! The single values: docker image, scripts, times, and the address for the sidecars.

use std::path::Path;

use serde_json::json;

use super::Wizard;
use super::dialogue::Question;
use super::draft::number;
use super::screen::NoAnswer;

const DEFAULT_DOCKER_IMAGE: &str = "nvidia/cuda:10.1-runtime-ubuntu18.04";
const DEFAULT_MAX_IDLE_MIN: &str = "15";
const DEFAULT_POLLING_MIN: &str = "5";
/// A script that is larger does not fit into an instance's user data.
const SCRIPT_LIMIT: usize = 16 * 1024;
/// How much of a script is shown as a default.
const SHOWN: usize = 40;

impl Wizard<'_> {
    /// `default_docker_image`.
    pub(super) fn docker(&mut self) -> Result<(), NoAnswer> {
        const KEY: &str = "default_docker_image";
        let default = self.draft.hyper(KEY).or_else(|| self.first_default(DEFAULT_DOCKER_IMAGE));
        let shown = default.as_deref().unwrap_or_default();
        let question = Question {
            flag: "--docker-image",
            given: self.given.docker_image.as_deref(),
            prompt: format!("Enter default docker image/parameters to use [{shown}]:"),
            default: default.clone(),
            optional: true,
            ..Question::default()
        };
        if let Some(image) = self.talk.ask(&question, docker_image)? {
            self.draft.set_hyper(KEY, json!(image));
        }
        Ok(())
    }

    /// `extra_vm_bash_script` and `extra_clearml_conf`.
    pub(super) fn scripts(&mut self) -> Result<(), NoAnswer> {
        self.talk.say("")?;
        let given = self.given;
        self.script(
            "extra_vm_bash_script",
            "--extra-vm-bash-script",
            given.bash_script.as_deref(),
            "Enter any pre-execution bash script to be executed on the newly created instances",
        )?;
        self.script(
            "extra_clearml_conf",
            "--extra-clearml-conf",
            given.clearml_conf.as_deref(),
            "Enter any extra clearml.conf lines for the newly created instances",
        )
    }

    fn script(
        &mut self,
        key: &'static str,
        flag: &'static str,
        given: Option<&str>,
        prompt: &str,
    ) -> Result<(), NoAnswer> {
        let stands = self.draft.setting(key);
        let question = Question {
            flag,
            given,
            prompt: format!("{prompt} [{}]:", beginning(stands.as_deref().unwrap_or_default())),
            default: stands,
            optional: true,
            ..Question::default()
        };
        if let Some(script) = self.talk.ask(&question, script_text)? {
            self.draft.set_setting(key, json!(script));
        }
        Ok(())
    }

    /// `max_idle_time_min`, `polling_interval_time_min`, `advertise_address`.
    pub(super) fn times(&mut self) -> Result<(), NoAnswer> {
        let given = self.given;
        self.talk.say("")?;
        self.minutes(
            "max_idle_time_min",
            "--max-idle-time-min",
            given.max_idle_time_min.as_deref(),
            "Enter maximum idle time for the auto-scaler to spin down an instance (in minutes)",
            DEFAULT_MAX_IDLE_MIN,
        )?;
        self.minutes(
            "polling_interval_time_min",
            "--polling-interval-time-min",
            given.polling_interval_time_min.as_deref(),
            "Enter instances polling interval for the auto-scaler (in minutes)",
            DEFAULT_POLLING_MIN,
        )?;
        self.address()
    }

    fn minutes(
        &mut self,
        key: &'static str,
        flag: &'static str,
        given: Option<&str>,
        prompt: &str,
        default: &str,
    ) -> Result<(), NoAnswer> {
        let default = self.draft.hyper(key).unwrap_or_else(|| default.to_owned());
        let question = Question {
            flag,
            given,
            prompt: format!("{prompt} [{default}]:"),
            default: Some(default),
            ..Question::default()
        };
        let draft = &self.draft;
        let minutes = self.talk.ask(&question, |answer| {
            let minutes = number(answer);
            draft.check_hyper(key, &minutes).map(|()| minutes)
        })?;
        if let Some(minutes) = minutes {
            self.draft.set_hyper(key, minutes);
        }
        Ok(())
    }

    fn address(&mut self) -> Result<(), NoAnswer> {
        const KEY: &str = "advertise_address";
        let stands = self.draft.hyper(KEY);
        let shown = stands.as_deref().unwrap_or_default();
        let question = Question {
            flag: "--advertise-address",
            given: self.given.advertise_address.as_deref(),
            prompt: format!(
                "Enter the address at which instances reach the auto-scaler (leave blank if unsure) [{shown}]:"
            ),
            default: stands.clone(),
            optional: true,
            ..Question::default()
        };
        let draft = &self.draft;
        let address = self
            .talk
            .ask(&question, |answer| draft.check_hyper(KEY, &json!(answer)).map(|()| answer.to_owned()))?;
        if let Some(address) = address {
            self.draft.set_hyper(KEY, json!(address));
        }
        Ok(())
    }
}

/// An image, and the arguments of `docker run` after it.
fn docker_image(answer: &str) -> Result<String, String> {
    let image = answer.split_whitespace().next().unwrap_or_default();
    let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    if !image.is_empty()
        && (!image.chars().all(clean) || !image.starts_with(|c: char| c.is_ascii_alphanumeric()))
    {
        return Err(format!(
            "must be an image's name, with docker's parameters after it, such as {DEFAULT_DOCKER_IMAGE} --ipc=host; \
             '{image}' is none"
        ));
    }
    Ok(answer.to_owned())
}

/// A script as it was typed or pasted, or the text of the file after `@`.
fn script_text(answer: &str) -> Result<String, String> {
    let text = match answer.strip_prefix('@') {
        None => answer.to_owned(),
        Some(path) => {
            let path = path.trim();
            std::fs::read_to_string(Path::new(path)).map_err(|error| format!("the file '{path}': {error}"))?
        }
    };
    if text.contains('\0') {
        return Err("is no text".to_owned());
    }
    if text.len() > SCRIPT_LIMIT {
        return Err(format!("is {} bytes long; at most {SCRIPT_LIMIT} fit", text.len()));
    }
    Ok(text)
}

/// The first line of a script, if need be shortened.
fn beginning(script: &str) -> String {
    let line = script.lines().next().unwrap_or_default();
    let short: String = line.chars().take(SHOWN).collect();
    if short.len() < script.trim_end().len() { format!("{short}...") } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_image_may_have_parameters_but_must_be_there() {
        assert!(docker_image("nvidia/cuda:10.1 --ipc=host -v /a:/b").is_ok());
        assert!(docker_image("registry.example.com:5000/a/b@sha256:00").is_ok());
        assert!(docker_image("").is_ok(), "without docker");
        for bad in ["--gpus all", "cuda?;", "§"] {
            assert!(docker_image(bad).unwrap_err().contains("image's name"), "{bad}");
        }
    }

    #[test]
    fn a_script_comes_from_a_file_after_an_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.sh");
        std::fs::write(&path, "echo one\necho two\n").unwrap();
        let text = script_text(&format!("@{}", path.display())).unwrap();
        assert_eq!(text, "echo one\necho two\n");
        assert_eq!(beginning(&text), "echo one...");
        assert_eq!(beginning("echo one"), "echo one");
        assert!(script_text("@/nowhere/boot.sh").unwrap_err().contains("/nowhere/boot.sh"));
    }
}
