//! What a seed stands for: the budget, the work, and which kinds of bad luck strike how often.

use std::time::Duration;

use planner::{
    FleetId, Market, Offering, Placement, Policy, Pool, Requeue, RequeueWhen, Resource, ResourceName,
    SidecarMode,
};

use crate::rng::Rng;

/// Milliseconds in a second, and in a minute.
pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

/// The prefix of our workers.
pub(crate) const PREFIX: &str = "dynamic";

/// Everything that is drawn before the world begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// The budget at the start, and again in the quiet phase.
    pub(crate) policy: Policy,
    /// When the faults end.
    pub(crate) quiet_at: u64,
    /// At which the controller dies for good instead of going on.
    pub(crate) dies_for_good: bool,
    pub(crate) luck: Luck,
}

/// How often bad luck strikes: chances of a call, or numbers of events in a seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Luck {
    /// EC2's call is done, and its answer lost.
    pub(crate) cloud_lost_after: f64,
    /// EC2's call never arrives.
    pub(crate) cloud_lost_before: f64,
    pub(crate) cloud_throttled: f64,
    /// The call is done twice.
    pub(crate) cloud_twice: f64,
    /// The answer comes after many seconds, or never.
    pub(crate) slow: f64,
    pub(crate) clearml_lost: f64,
    /// A write is done and its confirmation lost, or not done at all.
    pub(crate) journal: f64,
    /// EC2 does not list a new instance for up to so long.
    pub(crate) invisible_for: u64,
    /// A pop is done, and its answer lost.
    pub(crate) pop_lost: f64,
    /// Second `tasks.started` fails, or the agent gives up before it.
    pub(crate) start_fails: f64,
    pub(crate) boot_fails: f64,
    /// A session's message comes late, or an order twice.
    pub(crate) message_late: f64,
    pub(crate) order_twice: f64,
    /// The sidecar dies in the midst of what it does.
    pub(crate) sidecar_dies: f64,
    /// Its disk is full.
    pub(crate) save_fails: f64,
    /// A journal is lost at a crash.
    pub(crate) journal_lost: f64,
    /// The clocks of controller and EC2 differ by up to so much.
    pub(crate) skew: u64,
    pub(crate) crashes: u64,
    pub(crate) crash_points: u64,
    pub(crate) hangs: u64,
    pub(crate) cuts: u64,
    pub(crate) long_cuts: u64,
    pub(crate) breaks: u64,
    pub(crate) clearml_outages: u64,
    pub(crate) agents_without_clearml: u64,
    pub(crate) cloud_outages: u64,
    pub(crate) shortages: u64,
    pub(crate) spot: u64,
    pub(crate) by_hand: u64,
    pub(crate) agent_deaths: u64,
    pub(crate) sidecar_deaths: u64,
    pub(crate) user_acts: u64,
    pub(crate) policy_changes: u64,
    pub(crate) shutdowns: u64,
    pub(crate) lease_losses: u64,
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let quiet_at = rng.range(12 * MINUTE, 20 * MINUTE);
        Self { policy: policy(rng), quiet_at, dies_for_good: rng.chance(0.1), luck: luck(rng) }
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let mut pools = Vec::new();
    let mut resources = std::collections::BTreeMap::new();
    let mut room = rng.range(3, 21);
    let queues = rng.range(1, 4);
    for queue in 0..queues {
        for place in 0..rng.range(1, 3) {
            let maximum = rng.range(1, 9).min(room);
            if maximum == 0 {
                continue;
            }
            room -= maximum;
            let name = ResourceName(format!("r{queue}{place}"));
            let offering = |market, zone: &str| Offering {
                instance_type: "g4dn.xlarge".into(),
                placement: Placement::Zone(format!("{name}-{zone}")),
                market,
            };
            let mut offerings = vec![offering(Market::Spot, "a")];
            if rng.chance(0.5) {
                offerings.push(offering(Market::OnDemand, "b"));
            }
            pools.push(Pool {
                queue: format!("q{queue}").into(),
                resource: name.clone(),
                maximum: u32::try_from(maximum).unwrap_or(1),
            });
            resources.insert(name, Resource { offerings, blocked: None });
        }
    }
    let seconds = |rng: &mut Rng, low, high| Duration::from_secs(rng.range(low, high));
    Policy {
        fleet: FleetId::from("ours"),
        prefix: PREFIX.to_owned(),
        pools,
        resources,
        max_idle: seconds(rng, 15, 120),
        max_spin_up: seconds(rng, 150, 400),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        launches_per_minute: 600,
        requeue: Requeue { when: RequeueWhen::All, ..Requeue::default() },
        shutdown: None,
    }
}

/// Each kind of bad luck is absent from most seeds, so that every mixture of a few comes about.
fn luck(rng: &mut Rng) -> Luck {
    let mut chance = |most: f64| {
        let strikes = rng.chance(0.4);
        let share = rng.range(1, 101) as f64 / 100.0;
        if strikes { most * share } else { 0.0 }
    };
    let mut luck = Luck {
        cloud_lost_after: chance(0.3),
        cloud_lost_before: chance(0.2),
        cloud_throttled: chance(0.3),
        cloud_twice: chance(0.3),
        slow: chance(0.1),
        clearml_lost: chance(0.2),
        journal: chance(0.2),
        pop_lost: chance(0.1),
        start_fails: chance(0.1),
        boot_fails: chance(0.4),
        message_late: chance(0.2),
        order_twice: chance(0.3),
        sidecar_dies: chance(0.003),
        save_fails: chance(0.2),
        journal_lost: chance(0.3),
        ..Luck::default()
    };
    let mut number = |most: u64| if rng.chance(0.35) { rng.range(1, most + 1) } else { 0 };
    luck.crashes = number(6);
    luck.crash_points = number(8);
    luck.hangs = number(3);
    luck.cuts = number(12);
    luck.long_cuts = number(3);
    luck.breaks = number(20);
    luck.clearml_outages = number(4);
    luck.agents_without_clearml = number(8);
    luck.cloud_outages = number(4);
    luck.shortages = number(5);
    luck.spot = number(5);
    luck.by_hand = number(5);
    luck.agent_deaths = number(6);
    luck.sidecar_deaths = number(8);
    luck.user_acts = number(8);
    luck.policy_changes = number(5);
    luck.shutdowns = number(2);
    luck.lease_losses = number(3);
    luck.invisible_for = if rng.chance(0.5) { rng.range(SECOND, 40 * SECOND) } else { 500 };
    luck.skew = match rng.range(0, 10) {
        0..=5 => 0,
        6..=8 => rng.range(SECOND, 20 * SECOND),
        _ => rng.range(MINUTE, 10 * MINUTE),
    };
    luck
}
