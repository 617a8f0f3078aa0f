//! What a run starts from: a configuration with the place where it is written, and ClearML's settings.

use std::path::Path;

use super::source::Source;
use crate::cli::BadInput;
use crate::config::{self, Config, Document, Variables};

/// Everything that an operator gives: validated, nothing contacted yet.
pub struct Input {
    /// Where the configuration is written, to be read again on a reload.
    pub source: Source,
    /// What stands there.
    pub document: Document,
    /// What it means.
    pub config: Config,
    /// In whose light it was read.
    pub variables: Variables,
    /// ClearML's address and keys.
    pub clearml: config::clearml::Settings,
    /// EC2's address, if it is not AWS's.
    pub aws_endpoint: Option<String>,
    /// Keys for EC2 in place of the file's or the standard chain's, for the sandbox's sake.
    pub aws_keys: Option<ec2::Keys>,
    /// The id of the ClearML task that this run is, if it is one: instances and workers are tagged with it.
    pub task: Option<String>,
}

impl Input {
    /// Reads the file and ClearML's settings.
    ///
    /// # Errors
    /// All faults of both.
    pub fn load(config_file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadInput> {
        let home = env("HOME").map(std::path::PathBuf::from);
        let written = config::load_written(config_file, env);
        let clearml = config::clearml::load(env, home.as_deref());
        match (written, clearml) {
            (Ok((document, config)), Ok(clearml)) => {
                Ok(Self::new(Source::File(config_file.to_path_buf()), document, config, clearml, env))
            }
            (written, clearml) => {
                let faults = [
                    written.err().map(|faults| faults.to_string()),
                    clearml.err().map(|faults| faults.to_string()),
                ];
                Err(BadInput(faults.into_iter().flatten().collect::<Vec<_>>().join("\n")))
            }
        }
    }

    /// What was read elsewhere: `document`, which means `config`, stands at `source`.
    pub fn new(
        source: Source,
        document: Document,
        config: Config,
        clearml: config::clearml::Settings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let variables = Variables::of(env);
        Self { source, document, config, variables, clearml, aws_endpoint: None, aws_keys: None, task: None }
    }
}
