//! May we? Calls with `DryRun`, by which EC2 says what it would say, and does nothing.

use aws_sdk_ec2::error::SdkError;

use crate::client::Client;
use crate::codes::Meaning;
use crate::error::{Error, of_sdk};
use crate::launch::{LaunchSpec, RUN};

const DESCRIBE: &str = "describe instances";
const TERMINATE: &str = "terminate instances";
const CONSOLE: &str = "get console output";
const PRICES: &str = "describe spot price history";
const IMAGES: &str = "describe images";

/// EC2's word for yes.
const YES: &str = "DryRunOperation";

impl Client {
    /// Whether this launch would be allowed: the permission to run and tag instances, to pass the profile's role and to
    /// read an SSM parameter; that image, key, groups, subnet and profile exist. It says nothing of capacity and quotas.
    ///
    /// # Errors
    /// By meaning, as [`Client::run_instances`]; `Denied` without a permission, which the message often names.
    pub async fn may_launch(&self, spec: &LaunchSpec) -> Result<(), Error> {
        let outcome = spec.request()?.dry_run(true).send_with(&self.sdk).await;
        match outcome {
            Ok(reply) => {
                let ids: Vec<&str> = reply.instances().iter().filter_map(|it| it.instance_id()).collect();
                let message = format!("the endpoint ignored DryRun and launched {}", ids.join(", "));
                Err(Error::new(Meaning::Other, RUN, message))
            }
            Err(error) => answer(RUN, Err::<(), _>(error)),
        }
    }

    /// Whether this instance could be terminated.
    ///
    /// # Errors
    /// By meaning. For an id that does not exist, `Gone` is as good as a yes, and `Denied` may just mean that the
    /// permission is bound to a tag.
    pub async fn may_terminate(&self, id: &str) -> Result<(), Error> {
        answer(TERMINATE, self.sdk.terminate_instances().instance_ids(id).dry_run(true).send().await)
    }

    /// Whether this instance's console could be read.
    ///
    /// # Errors
    /// As [`Client::may_terminate`].
    pub async fn may_read_console(&self, id: &str) -> Result<(), Error> {
        answer(CONSOLE, self.sdk.get_console_output().instance_id(id).dry_run(true).send().await)
    }

    /// Whether instances could be listed.
    ///
    /// # Errors
    /// By meaning.
    pub async fn may_describe(&self) -> Result<(), Error> {
        answer(DESCRIBE, self.sdk.describe_instances().dry_run(true).send().await)
    }

    /// Whether images could be looked up by name.
    ///
    /// # Errors
    /// By meaning.
    pub async fn may_find_images(&self) -> Result<(), Error> {
        answer(IMAGES, self.sdk.describe_images().owners("self").dry_run(true).send().await)
    }

    /// Whether spot prices could be read.
    ///
    /// # Errors
    /// By meaning.
    pub async fn may_read_spot_prices(&self) -> Result<(), Error> {
        answer(PRICES, self.sdk.describe_spot_price_history().dry_run(true).send().await)
    }
}

/// A dry run that succeeds was none: of a call that changes nothing, that is as good as a yes.
fn answer<T, E, R>(operation: &'static str, outcome: Result<T, SdkError<E, R>>) -> Result<(), Error>
where
    E: aws_sdk_ec2::error::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let Err(error) = outcome else { return Ok(()) };
    let error = of_sdk(operation, &error);
    if error.has_code(YES) { Ok(()) } else { Err(error) }
}
