//! Everything that a run needs, looked at before anything is spent: ClearML, the addresses that instances will use, AWS
//! and every resource of the configuration.
//!
//! It changes nothing anywhere. What EC2 can say of a launch without one, it is asked with `DryRun`. Each check has a
//! time limit of its own, and those that do not depend on each other run side by side.

mod aws;
mod clearml;
mod facts;
mod quota;
mod reach;
mod resources;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use planner::SidecarMode;
use serde::Serialize;

use crate::config::{PriceFile, SidecarSetting};
use crate::service::Input;
use crate::service::fleet::{self, Reach};

/// One check, or one question to a server.
const LIMIT: Duration = Duration::from_secs(15);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which a person would mend them.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: `clearml.server`, `aws.credentials`, `resource.t4.image`. It stays the same from version to version.
    pub check: String,
    /// How it stands.
    pub outcome: Outcome,
    /// What was seen; and what could not be seen from here. One line, without a secret.
    pub detail: String,
    /// What to do about it; absent if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing to do.
    Ok,
    /// It may work; somebody should look.
    Warning,
    /// It will not work as it is.
    Error,
}

impl Report {
    /// Whether anything will not work.
    pub fn has_errors(&self) -> bool {
        self.checks.iter().any(|check| check.outcome == Outcome::Error)
    }
}

impl Check {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), outcome: Outcome::Ok, detail: detail.into(), remedy: None }
    }

    fn warning(check: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, remedy: Some(remedy.into()), ..Self::ok(check, detail) }
    }

    fn error(check: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Error, remedy: Some(remedy.into()), ..Self::ok(check, detail) }
    }
}

/// Looks at everything.
pub async fn examine(input: Input) -> Report {
    let Input { config, clearml: settings, aws_endpoint, aws_keys } = input;
    let config = Arc::new(config);
    let own = match (config.sidecar, &config.advertise) {
        (SidecarSetting::Off, _) | (_, Some(_)) => None,
        (SidecarSetting::Auto | SidecarSetting::Required, None) => fleet::runs_on_ec2().await,
    };
    let (mode, warning) = config.sidecar_mode(own.is_some());
    let reach = Reach::of(&config, mode, own);
    let addresses = fleet::agent_addresses(&config, &settings);
    let of_config = config.warnings.iter().map(String::as_str).chain(warning);
    let mut checks: Vec<Check> = of_config
        .map(|warning| Check::warning("configuration", warning, "change the configuration, or let it be"))
        .collect();
    checks.extend(prices(&config));
    let aws = aws::Aws {
        config: Arc::clone(&config),
        mode,
        reach: reach.as_ref().ok().cloned().flatten(),
        settings: &settings,
        addresses: &addresses,
        connection: fleet::ec2_settings(&config, aws_endpoint, aws_keys),
    };
    let (of_clearml, of_addresses, of_aws) = tokio::join!(
        Box::pin(clearml::examine(&config, &settings)),
        Box::pin(reach::examine(&config, &addresses, reach.as_ref().map(Option::as_ref))),
        Box::pin(aws.examine()),
    );
    checks.extend(of_clearml);
    checks.extend(of_addresses);
    checks.extend(of_aws);
    Report { checks }
}

fn prices(config: &crate::config::Config) -> Option<Check> {
    const NAME: &str = "prices_file";
    let path = config.prices_file.as_ref()?;
    Some(match PriceFile::load(path) {
        Ok(file) => Check::ok(NAME, format!("{} is of {}", path.display(), file.as_of)),
        Err(faults) => {
            let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Check::error(NAME, told.join("; "), "correct the file, or leave prices_file out")
        }
    })
}

/// A check that must come to an end; `remedy` is for one that does not.
fn limited<'a>(
    name: &'a str,
    remedy: &'a str,
    check: impl Future<Output = Check> + Send + 'a,
) -> BoxFuture<'a, Check> {
    let check = tokio::time::timeout(LIMIT, check);
    Box::pin(async move {
        let late = |_| Check::error(name, format!("no answer within {} s", LIMIT.as_secs()), remedy);
        check.await.unwrap_or_else(late)
    })
}

/// Whether the sidecars of this run need a way in.
fn dials_in(mode: SidecarMode) -> bool {
    match mode {
        SidecarMode::Required => true,
        SidecarMode::Off => false,
    }
}

/// The reason behind an error whose text leaves it out.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
