//! What a running autoscaler can't change: it has registered, listens and is logged in by it.

use secrecy::{ExposeSecret, SecretString};

use super::faults::{Fault, Faults, located};
use super::{Config, Credentials};

impl Config {
    /// Whether a run by this configuration can go on by `after`. `runs_on_ec2` as for
    /// [`Config::sidecar_mode`].
    ///
    /// # Errors
    /// One fault for each key that wants a restart.
    pub fn check_change(&self, after: &Self, runs_on_ec2: bool) -> Result<(), Faults> {
        let mode = |config: &Self| config.sidecar_mode(runs_on_ec2).0;
        let kept = [
            ("workers_prefix", self.prefix == after.prefix),
            ("state_dir", self.state_dir == after.state_dir),
            ("sidecar_dir", self.sidecar_dir == after.sidecar_dir),
            ("listen", self.listen == after.listen),
            ("advertise_address", self.advertise == after.advertise),
            ("sidecar", self.advertise != after.advertise || mode(self) == mode(after)),
            ("cloud_credentials_region", self.aws.region == after.aws.region),
            ("cloud_credentials_key", same(&self.aws.credentials, &after.aws.credentials)),
        ];
        let changed = kept.into_iter().filter(|(_, kept)| !kept).map(|(key, _)| Fault {
            file: after.file.clone(),
            at: None,
            key: located(&after.file, &format!("hyper_params.{key}")),
            message: match key {
                "cloud_credentials_key" => {
                    "the credentials are in use; restart the controller to change them".to_owned()
                }
                _ => format!("is in use; restart the controller to change {key}"),
            },
        });
        Faults::of(changed.collect()).map_or(Ok(()), Err)
    }
}

fn same(one: &Credentials, other: &Credentials) -> bool {
    exposed(one) == exposed(other)
}

fn exposed(credentials: &Credentials) -> Option<(&str, &str, Option<&str>)> {
    match credentials {
        Credentials::Chain => None,
        Credentials::Keys { access_key, secret_key, session_token } => Some((
            access_key.expose_secret(),
            secret_key.expose_secret(),
            session_token.as_ref().map(SecretString::expose_secret),
        )),
    }
}
