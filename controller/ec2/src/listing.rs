//! Lists that EC2 tells page by page: read to the end, or not at all.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use crate::codes::Meaning;
use crate::error::{Error, of_sdk};

/// Each page has its own limit; a list that takes longer than this never ends.
const LIST_TIMEOUT: Duration = Duration::from_secs(90);

/// The whole of a list, or the error of the page that failed.
pub(crate) async fn whole<T, E, R>(
    operation: &'static str,
    list: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> Result<T, Error>
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    match tokio::time::timeout(LIST_TIMEOUT, list).await {
        Ok(outcome) => outcome.map_err(|error| of_sdk(operation, &error)),
        Err(_) => {
            let message = format!("the list has no end within {} s", LIST_TIMEOUT.as_secs());
            Err(Error::new(Meaning::Other, operation, message))
        }
    }
}

/// A number that EC2 writes with a sign, though it has none.
pub(crate) fn unsigned(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}
