//! From the end of an idle limit to the call that ends the instance: drain, fresh look, retire, terminate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::figures::Samples;
use crate::peer::Doing;
use crate::stage::{Line, PATIENCE, Stage};

const INSTANCES: u32 = 100;
const LIMIT: Duration = Duration::from_secs(60);
/// The limits end at random instants of this stretch.
const EARLIEST: Duration = Duration::from_secs(5);
const STRETCH: Duration = Duration::from_secs(50);

pub(crate) async fn idle_to_terminate() -> anyhow::Result<()> {
    let stage = Stage::open(&[Line::new("idlers", INSTANCES)], "  max_idle_time_min: 1\n").await?;
    let peers = stage.busy_fleet("idlers", INSTANCES).await?;
    let mut ends = BTreeMap::new();
    for (instance, changes) in &peers {
        let left = EARLIEST + STRETCH.mul_f64(rand::random());
        let now = Instant::now();
        let since = now.checked_sub(LIMIT - left).context("the machine is up for a minute")?;
        changes.send(Doing::Idle { since }).await?;
        ends.insert(instance.clone(), now + left);
    }
    let ended = |ec2: &sandbox::ec2::Ec2| {
        let calls = ec2.calls_of("TerminateInstances");
        calls.into_iter().flat_map(|call| call.instances.into_iter().map(move |id| (id, call.at))).collect()
    };
    let all = stage
        .sandbox
        .ec2
        .wait_until(EARLIEST + STRETCH + PATIENCE, |ec2| {
            let ended: BTreeMap<String, Instant> = ended(ec2);
            ended.len() >= peers.len()
        })
        .await;
    anyhow::ensure!(all, "some instances were not ended");
    let ended: BTreeMap<String, Instant> = ended(&stage.sandbox.ec2);
    let early = ends.iter().filter(|(id, end)| ended.get(*id).is_some_and(|at| at < end)).count();
    let samples: Samples = ends
        .iter()
        .filter_map(|(id, end)| ended.get(id).map(|at| at.saturating_duration_since(*end)))
        .collect();
    println!("end of the idle limit -> TerminateInstances: {samples}; {early} before it");
    stage.close().await;
    Ok(())
}
