//! The load generator: thousands of sidecars in a process of its own, with heartbeats, some with changes.

use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::peer::{self, Birth, Doing};

/// Of one launch, as far as the gateway is concerned.
pub(crate) const INTENT: &str = "1-1";
pub(crate) const SECRET: &[u8] = b"a launch secret of 32 bytes, say";
/// The first so many change their task every 2 to 6 s: five changes a second in all.
pub(crate) const TALKERS: usize = 20;
const ATTACHING: usize = 64;

pub(crate) fn instance(number: usize) -> String {
    format!("i-{number:017x}")
}

/// A task's name tells when it was taken.
pub(crate) fn task_now() -> String {
    format!("at-{}", monotonic().as_nanos())
}

/// When the task was taken, as `monotonic` has it.
pub(crate) fn taken_at(task: &str) -> Option<Duration> {
    task.strip_prefix("at-")?.parse().ok().map(Duration::from_nanos)
}

/// The clock that all processes of a machine share.
pub(crate) fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// Attaches them all and stays until this process is ended.
pub(crate) async fn run(url: &str, pin: &str, count: usize) -> anyhow::Result<()> {
    let dialer = peer::dialer(url, pin)?;
    let mut attaching: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut peers = Vec::with_capacity(count);
    for number in 0..count {
        while attaching.len() >= ATTACHING {
            attaching.join_next().await.context("an attach ended")??.context("attach")?;
        }
        let (sender, changes) = mpsc::channel(1);
        let birth = Birth { instance: instance(number), intent: INTENT.to_owned(), secret: SECRET.to_vec() };
        let doing = Doing::Busy { task: task_now(), since: Instant::now() };
        let dialer = dialer.clone();
        attaching.spawn(async move { peer::attach(&dialer, birth, doing, changes).await });
        peers.push(sender);
    }
    while let Some(attached) = attaching.join_next().await {
        attached?.context("attach")?;
    }
    for talker in peers.iter().take(TALKERS) {
        let talker = talker.clone();
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(2) + Duration::from_secs(4).mul_f64(rand::random())).await;
                let doing = Doing::Busy { task: task_now(), since: Instant::now() };
                if talker.send(doing).await.is_err() {
                    return;
                }
            }
        });
    }
    // Its parent ends it.
    std::future::pending::<()>().await;
    drop(peers);
    Ok(())
}
