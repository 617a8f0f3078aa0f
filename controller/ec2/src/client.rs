//! The connection: credentials, region, endpoint, time limits; and the calls that are one request each.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, ProvideCredentials};
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::operation::run_instances::RunInstancesError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::codes::{self, Meaning};
use crate::error::{Error, of_sdk};
use crate::http;
use crate::launch::{LaunchSpec, RUN};
use crate::paced::{Buckets, Kind};

const CONNECT: &str = "connect to ec2";
const CONSOLE: &str = "get console output";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(90);
/// The standard chain may ask a process, an identity provider, the metadata service.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;

/// Where EC2 is and who asks.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `us-east-1`; if absent, the standard chain's (environment, profile, the instance that this runs on).
    pub region: Option<String>,
    /// An endpoint other than AWS's; if absent, `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL` are honoured.
    pub endpoint: Option<String>,
    /// If absent, the standard chain's: environment, profile (static keys, assumed roles, SSO, `credential_process`),
    /// web identity, ECS and EKS, the instance's role. A profile with `login_session` is not supported.
    pub keys: Option<Keys>,
}

/// Static credentials.
#[derive(Clone)]
pub struct Keys {
    /// The access key's id.
    pub key: String,
    /// The secret access key.
    pub secret: SecretString,
    /// The session token of temporary credentials.
    pub token: Option<SecretString>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// A connection to EC2 in one region. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) sdk: aws_sdk_ec2::Client,
    pub(crate) sts: aws_sdk_sts::Client,
    pub(crate) quotas: aws_sdk_servicequotas::Client,
    pub(crate) buckets: Buckets,
    region: String,
}

impl Client {
    /// Settles region and credentials. Asks EC2 nothing. `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured.
    ///
    /// # Errors
    /// `Invalid` without a region or with a malformed proxy, `Denied` without credentials; each message names
    /// where they were looked for.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        let config = config(settings).await?;
        let Some(region) = config.region().map(ToString::to_string) else {
            let message =
                "no region: none in the configuration, AWS_REGION, the profile or the instance's metadata";
            return Err(Error::new(Meaning::Invalid, CONNECT, message));
        };
        check_credentials(&config).await?;
        let ec2 = aws_sdk_ec2::config::Builder::from(&config).retry_classifier(NoCapacityIsAnAnswer).build();
        Ok(Self {
            sdk: aws_sdk_ec2::Client::from_conf(ec2),
            sts: aws_sdk_sts::Client::new(&config),
            quotas: aws_sdk_servicequotas::Client::new(&config),
            buckets: Buckets::default(),
            region,
        })
    }

    /// The region in use.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Launches up to `count` instances; the ids of those that EC2 had room for. The same spec again gives the same
    /// instances.
    ///
    /// # Errors
    /// By meaning. After `Other` the call may have gone through: send the same spec again.
    pub async fn run_instances(&self, spec: &LaunchSpec) -> Result<Vec<String>, Error> {
        let request = spec.request()?;
        self.buckets.turn(Kind::Launch).await;
        let reply = request.send_with(&self.sdk).await.map_err(|error| of_sdk(RUN, &error))?;
        let ids = reply.instances().iter().filter_map(|instance| instance.instance_id());
        Ok(ids.map(str::to_owned).collect())
    }

    /// What the instance has written to its console lately, up to 64 KB; `None` if nothing yet.
    ///
    /// # Errors
    /// By meaning.
    pub async fn console_output(&self, id: &str) -> Result<Option<String>, Error> {
        let latest = self.console(id, true).await;
        let encoded = match latest {
            // Only Nitro instances tell the latest; of others EC2 keeps what they said at boot.
            Err(error) if error.code.as_deref().is_some_and(|code| code.starts_with("Unsupported")) => {
                self.console(id, false).await?
            }
            Ok(_) | Err(_) => latest?,
        };
        let Some(encoded) = encoded.filter(|text| !text.is_empty()) else { return Ok(None) };
        let bytes = STANDARD
            .decode(encoded.trim())
            .map_err(|error| Error::new(Meaning::Other, CONSOLE, format!("not base64: {error}")))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn console(&self, id: &str, latest: bool) -> Result<Option<String>, Error> {
        self.buckets.turn(Kind::Read).await;
        let call = self.sdk.get_console_output().instance_id(id).set_latest(latest.then_some(true));
        let reply = call.send().await.map_err(|error| of_sdk(CONSOLE, &error))?;
        Ok(reply.output().map(str::to_owned))
    }
}

async fn config(settings: Settings) -> Result<SdkConfig, Error> {
    let http = http::client().map_err(|variable| {
        Error::new(Meaning::Invalid, CONNECT, format!("{variable} does not hold a proxy's address"))
    })?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Some(region) = settings.region {
        loader = loader.region(Region::new(region));
    }
    if let Some(endpoint) = settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(keys) = settings.keys {
        let token = keys.token.map(|token| token.expose_secret().to_owned());
        let secret = keys.secret.expose_secret();
        loader =
            loader.credentials_provider(Credentials::new(keys.key, secret, token, None, "configuration"));
    }
    Ok(loader.load().await)
}

async fn check_credentials(config: &SdkConfig) -> Result<(), Error> {
    let denied = |message: String| Error::new(Meaning::Denied, CONNECT, message);
    let Some(provider) = config.credentials_provider() else {
        return Err(denied("no credentials".to_owned()));
    };
    match tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let causes = crate::error::causes(&error);
            Err(denied(format!(
                "no usable credentials in the environment, the profile or the instance's role: {causes}"
            )))
        }
        Err(_) => Err(denied(format!("no credentials within {} s", CREDENTIALS_TIMEOUT.as_secs()))),
    }
}

/// EC2 tells a lack of capacity with status 500, which the SDK takes for a fault of the server. Asking thrice would
/// only put the next offering off.
#[derive(Debug)]
struct NoCapacityIsAnAnswer;

impl ClassifyRetry for NoCapacityIsAnAnswer {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let code = context
            .output_or_error()
            .and_then(Result::err)
            .and_then(|error| error.as_operation_error())
            .and_then(|error| error.downcast_ref::<RunInstancesError>())
            .and_then(ProvideErrorMetadata::code);
        match code.map(codes::meaning) {
            Some(Meaning::NoCapacity) => RetryAction::RetryForbidden,
            Some(
                Meaning::Throttled | Meaning::Gone | Meaning::Denied | Meaning::Invalid | Meaning::Other,
            )
            | None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "no capacity is an answer"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
