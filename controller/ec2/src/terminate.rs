//! Ending instances, many in a call: one that EC2 refuses must not keep the others alive.

use std::collections::BTreeSet;

use crate::client::Client;
use crate::codes::{Meaning, OPERATION_NOT_PERMITTED};
use crate::error::{Error, of_sdk};
use crate::ids;
use crate::paced::Kind;

const TERMINATE: &str = "terminate instances";

/// Ids in one call. AWS takes 1,000, and advises less.
const BATCH: usize = 200;

impl Client {
    /// Ends these instances; those that are gone or unknown count as ended. Every one is tried, whatever happens to
    /// the others: EC2 ends none of a call that names one which it refuses, so the others are sent again without it.
    ///
    /// # Errors
    /// The first failure, after all were tried; never `Gone`. A throttled call ends the round.
    pub async fn terminate(&self, ids: &BTreeSet<String>) -> Result<(), Error> {
        let mut first_failure = None;
        let mut batches = ids::batches(ids, BATCH);
        while let Some(batch) = batches.pop() {
            self.buckets.turn(Kind::Change).await;
            let call = self.sdk.terminate_instances().set_instance_ids(Some(batch.clone()));
            let Err(error) = call.send().await.map_err(|error| of_sdk(TERMINATE, &error)) else { continue };
            match error.meaning {
                Meaning::Gone => batches.extend(ids::without_unknown(batch, &error.message).1),
                Meaning::Throttled => return Err(first_failure.unwrap_or(error)),
                Meaning::Denied | Meaning::Invalid if batch.len() > 1 && concerns_one(&error) => {
                    batches.extend(ids::halves(batch));
                }
                Meaning::NoCapacity | Meaning::Denied | Meaning::Invalid | Meaning::Other => {
                    first_failure.get_or_insert(error);
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }
}

/// Whether the refusal may be for one instance's sake: one that is protected, or whose id is malformed. Missing
/// permissions concern them all.
fn concerns_one(error: &Error) -> bool {
    error.has_code(OPERATION_NOT_PERMITTED) || error.meaning == Meaning::Invalid
}
