//! Instances as EC2 lists them.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::operation::describe_instances::builders::DescribeInstancesFluentBuilder;
use aws_sdk_ec2::types;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::client::Client;
use crate::codes::Meaning;
use crate::error::{Error, of_sdk};
use crate::ids;
use crate::launch::Market;
use crate::paced::Kind;

const DESCRIBE: &str = "describe instances";

/// The most that EC2 puts on a page.
const PAGE: i32 = 1000;
/// A list that is longer never ends.
const MOST_PAGES: usize = 500;
/// Ids in one call.
const BATCH: usize = 200;

/// An instance as EC2 lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `i-0123456789abcdef0`.
    pub id: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// `g4dn.xlarge`.
    pub instance_type: String,
    /// Where it is.
    pub zone: Option<String>,
    /// Where it is; absent once it is terminated.
    pub subnet: Option<String>,
    /// How it is paid.
    pub market: Market,
    /// Milliseconds since the Unix epoch, by EC2's clock. A stopped instance that was started again counts anew.
    pub launched_at_ms: Option<i64>,
    /// All of them.
    pub tags: BTreeMap<String, String>,
    /// Within its network.
    pub private_ip: Option<String>,
    /// Why it left its last state: `Server.SpotInstanceTermination`, `Client.InstanceInitiatedShutdown`.
    pub state_reason: Option<StateReason>,
    /// When somebody told it to end or to stop, by EC2's clock in milliseconds since the Unix epoch. EC2 says it of
    /// what a call did, not of machines that powered off or were taken back.
    pub ended_at_ms: Option<i64>,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Not billed yet.
    Pending,
    /// Billed. Also what EC2 calls by a name that we do not know.
    Running,
    /// No longer billed.
    ShuttingDown,
    /// Gone; listed for about an hour.
    Terminated,
    /// On its way to `Stopped`.
    Stopping,
    /// Kept, without running.
    Stopped,
}

/// EC2's reason for a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReason {
    /// For machines.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The answer to a question by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// What EC2 knows, the terminated included.
    pub found: Vec<Instance>,
    /// What EC2 does not know; an instance launched a few seconds ago may be among them.
    pub missing: BTreeSet<String>,
}

impl Client {
    /// Every instance with this tag, the lately terminated included.
    ///
    /// # Errors
    /// By meaning; nothing is returned unless every page was read.
    pub async fn describe_by_tag(&self, key: &str, value: &str) -> Result<Vec<Instance>, Error> {
        let filter = types::Filter::builder().name(format!("tag:{key}")).values(value).build();
        self.pages(self.sdk.describe_instances().filters(filter).max_results(PAGE)).await
    }

    /// These instances, and which of them EC2 does not know.
    ///
    /// # Errors
    /// By meaning; never `Gone`.
    pub async fn describe_ids(&self, ids: &BTreeSet<String>) -> Result<Described, Error> {
        let mut described = Described::default();
        let mut batches = ids::batches(ids, BATCH);
        while let Some(batch) = batches.pop() {
            let call = self.sdk.describe_instances().set_instance_ids(Some(batch.clone()));
            match self.pages(call).await {
                Ok(found) => described.found.extend(found),
                Err(error) if error.meaning == Meaning::Gone => {
                    let (unknown, rest) = ids::without_unknown(batch, &error.message);
                    described.missing.extend(unknown);
                    batches.extend(rest);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(described)
    }

    async fn pages(&self, call: DescribeInstancesFluentBuilder) -> Result<Vec<Instance>, Error> {
        let mut instances = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            self.buckets.turn(Kind::Read).await;
            let page =
                call.clone().set_next_token(next).send().await.map_err(|error| of_sdk(DESCRIBE, &error))?;
            let listed = page.reservations().iter().flat_map(|reservation| reservation.instances());
            instances.extend(listed.filter_map(instance));
            next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(instances);
            }
        }
        Err(Error::new(Meaning::Other, DESCRIBE, format!("more than {MOST_PAGES} pages")))
    }
}

fn instance(listed: &types::Instance) -> Option<Instance> {
    let tags = listed.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
    let reason = listed.state_reason().map(|reason| StateReason {
        code: reason.code().unwrap_or_default().to_owned(),
        message: reason.message().unwrap_or_default().to_owned(),
    });
    Some(Instance {
        id: listed.instance_id()?.to_owned(),
        state: state(listed.state().and_then(types::InstanceState::name)),
        instance_type: listed.instance_type().map(|name| name.as_str().to_owned()).unwrap_or_default(),
        zone: listed.placement().and_then(types::Placement::availability_zone).map(str::to_owned),
        subnet: listed.subnet_id().map(str::to_owned),
        market: match listed.instance_lifecycle() {
            Some(types::InstanceLifecycleType::Spot) => Market::Spot,
            // Scheduled instances and capacity blocks have a price of their own, but are never taken back.
            Some(_) | None => Market::OnDemand,
        },
        launched_at_ms: listed.launch_time().and_then(|time| time.to_millis().ok()),
        tags: tags.collect(),
        private_ip: listed.private_ip_address().map(str::to_owned),
        state_reason: reason.filter(|reason| !reason.code.is_empty()),
        ended_at_ms: listed.state_transition_reason().and_then(transition_time),
    })
}

/// The time in `User initiated (2026-01-31 20:34:48 GMT)`.
fn transition_time(reason: &str) -> Option<i64> {
    let text = reason.trim().strip_suffix(" GMT)")?.rsplit_once('(')?.1;
    let (day, time) = text.split_once(' ')?;
    let time = DateTime::from_str(&format!("{day}T{time}Z"), Format::DateTime).ok()?;
    time.to_millis().ok()
}

fn state(name: Option<&types::InstanceStateName>) -> InstanceState {
    match name {
        Some(types::InstanceStateName::Pending) => InstanceState::Pending,
        Some(types::InstanceStateName::Running) => InstanceState::Running,
        Some(types::InstanceStateName::ShuttingDown) => InstanceState::ShuttingDown,
        Some(types::InstanceStateName::Terminated) => InstanceState::Terminated,
        Some(types::InstanceStateName::Stopping) => InstanceState::Stopping,
        Some(types::InstanceStateName::Stopped) => InstanceState::Stopped,
        // What is not known to be gone is there, and is paid for.
        Some(_) | None => InstanceState::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_transition_is_told_of_what_a_call_did() {
        assert_eq!(transition_time("User initiated (2026-01-02 03:04:05 GMT)"), Some(1_767_323_045_000));
        for reason in
            ["", "Server.SpotInstanceTermination", "User initiated (yesterday GMT)", "( GMT)", "GMT)"]
        {
            assert_eq!(transition_time(reason), None, "{reason}");
        }
    }
}
