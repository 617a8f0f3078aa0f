//! The pure core, from what the loop would publish at given instants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Published;
use planner::{
    FleetId, Instance, InstanceId, InstanceType, IntentId, LostReason, Market, Offering, Placement, Plan,
    Policy, Pool, Resource, ResourceName, SidecarMode, Signal, Snapshot, State, TaskId, Time, WorkerId,
};

use super::observe::{News, Observer, Phase};
use super::outbox::Point;
use super::spend::Hourly;
use super::watch::{Scene, Shown};
use crate::prices::{Price, Source as PriceSource};
use crate::service::ledger::{Book, NoPrices};

/// When the run began.
const START: u64 = 1_795_459_885_000;

fn at(seconds: u64) -> Time {
    Time(START + seconds * 1000)
}

fn offering(market: Market) -> Offering {
    Offering { instance_type: "g4dn.xlarge".into(), placement: Placement::Zone("us-east-1b".into()), market }
}

fn policy() -> Policy {
    let resource = Resource { offerings: vec![offering(Market::Spot)], blocked: None };
    Policy {
        fleet: FleetId::from("fleet"),
        prefix: "dynamic".to_owned(),
        pools: vec![Pool { queue: "gpu".into(), resource: "t4".into(), maximum: 4 }],
        resources: [(ResourceName::from("t4"), resource)].into(),
        max_idle: Duration::from_secs(60),
        max_spin_up: Duration::from_secs(600),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        launches_per_minute: 600,
        shutdown: None,
        requeue: planner::Requeue::default(),
    }
}

fn instance(state: State, since: u64) -> Instance {
    let ready = !matches!(state, State::Requested | State::Pending | State::Booting { .. });
    Instance {
        resource: "t4".into(),
        queue: "gpu".into(),
        offering: offering(Market::Spot),
        zone: Some("us-east-1b".into()),
        worker: WorkerId::from("dynamic:t4:g4dn.xlarge:i-1"),
        intent: Some(IntentId::from("3-1")),
        kept: false,
        accounted: true,
        launched_at: at(10),
        adopted_at: at(10),
        ready_at: ready.then(|| at(50)),
        state,
        since: at(since),
        signal: Signal::Sidecar,
        finishing: false,
        last_order: None,
        word: planner::Word::default(),
    }
}

fn booting() -> State {
    State::Booting { phase: "agent".to_owned() }
}

fn busy(task: &str) -> State {
    State::Busy { task: Some(task.into()) }
}

/// A pass: when, what waits, what the one instance does and since when.
fn pass(now: u64, waiting: &[&str], one: Option<(State, u64)>) -> Published {
    let instances: BTreeMap<InstanceId, Instance> =
        one.into_iter().map(|(state, since)| ("i-1".into(), instance(state, since))).collect();
    publish(now, waiting, instances)
}

fn publish(now: u64, waiting: &[&str], instances: BTreeMap<InstanceId, Instance>) -> Published {
    let waiting = waiting.iter().map(|task| TaskId::from(*task)).collect();
    Published {
        now: at(now),
        policy: Arc::new(policy()),
        snapshot: Snapshot {
            now: at(now),
            started_at: at(0),
            epoch: 3,
            queues: [("gpu".into(), waiting)].into(),
            instances,
            ..Snapshot::default()
        },
        plan: Plan::default(),
        violation: None,
        ended: Arc::default(),
    }
}

/// From the first task to the last of the instance.
fn a_life() -> Vec<Published> {
    vec![
        pass(0, &[], None),
        pass(5, &["one"], None),
        pass(10, &["one"], Some((State::Requested, 10))),
        pass(20, &["one"], Some((booting(), 15))),
        // Idle for a second at 50 s: no pass has shown it. The queue was read before that.
        pass(55, &["one"], Some((busy("one"), 51))),
        pass(56, &[], Some((busy("one"), 51))),
        pass(115, &[], Some((State::Idle, 111))),
        pass(175, &[], Some((State::Draining, 171))),
        pass(178, &[], Some((State::Retired, 177))),
        pass(180, &[], Some((State::Terminating, 180))),
        pass(190, &[], Some((State::Gone, 190))),
        pass(900, &[], None),
    ]
}

struct FixedPrice;

impl Hourly for FixedPrice {
    fn price(&self, _instance_type: &InstanceType, _zone: Option<&str>, _market: Market) -> Option<Price> {
        Some(Price { usd_per_hour: 0.36, as_of: jiff::civil::date(2026, 1, 31), source: PriceSource::File })
    }
}

fn watched(prices: Arc<dyn Hourly>, passes: &[Published]) -> Vec<Shown> {
    let mut scene = Scene::new(prices, Book::default(), 100, at(0));
    passes.iter().map(|published| scene.look(published, false)).collect()
}

fn curve<'a>(points: &'a [Point], metric: &str, variant: &str) -> Vec<&'a Point> {
    points.iter().filter(|point| point.metric == metric && point.variant == variant).collect()
}

fn points_of(shown: Vec<Shown>) -> Vec<Point> {
    shown.into_iter().flat_map(|shown| shown.points).collect()
}

#[test]
fn a_life_is_told_from_the_launch_to_the_end() {
    let mut observer = Observer::default();
    let news: Vec<News> = a_life().iter().flat_map(|published| observer.observe(published)).collect();
    let one = InstanceId::from("i-1");
    let seconds = Duration::from_secs;
    assert_eq!(
        news,
        [
            News::Ready(one.clone(), seconds(40)),
            // First seen waiting at 5 s, held by the instance from 51 s on.
            News::Working(one.clone(), Some("one".into()), Some(seconds(46))),
            News::Finished(one.clone(), seconds(60)),
            News::Gone(one, seconds(180)),
        ]
    );
    assert_eq!(observer.counts.launched, 1);
    assert_eq!(observer.counts.never_ready, 0);
}

#[test]
fn time_is_counted_by_what_an_instance_did_to_the_second() {
    let mut observer = Observer::default();
    a_life().iter().for_each(|published| drop(observer.observe(published)));
    let phases: Vec<(Phase, u64)> = observer.uptime[&ResourceName::from("t4")]
        .iter()
        .map(|(phase, time)| (*phase, time.as_secs()))
        .collect();
    assert_eq!(
        phases,
        [
            (Phase::Booting, 41),
            (Phase::Idle, 60),
            (Phase::Busy, 60),
            (Phase::Draining, 9),
            (Phase::Leaving, 10)
        ]
    );
}

#[test]
fn an_instance_that_never_was_ready_is_a_failure_and_one_of_an_earlier_run_no_launch() {
    let mut observer = Observer::default();
    let mut earlier = instance(State::Terminating, 700);
    earlier.ready_at = None;
    earlier.intent = Some(IntentId::from("2-7"));
    let mut begun = earlier.clone();
    begun.state = booting();
    observer.observe(&publish(1, &[], [("i-1".into(), begun)].into()));
    let news = observer.observe(&publish(701, &[], [("i-1".into(), earlier)].into()));
    assert_eq!(news, [News::NeverReady("i-1".into(), true)]);
    assert_eq!((observer.counts.launched, observer.counts.never_ready), (0, 1));
}

#[test]
fn a_refused_launch_and_a_lost_instance_are_counted_once_each() {
    let mut observer = Observer::default();
    let mut refused = pass(1, &[], Some((State::Idle, 1)));
    refused.snapshot.unavailable.insert(offering(Market::Spot), (at(180), "no capacity".to_owned()));
    observer.observe(&refused);
    let mut lost = refused.clone();
    lost.snapshot.now = at(5);
    for known in lost.snapshot.instances.values_mut() {
        known.state = State::Lost { reason: LostReason::SessionLost };
    }
    observer.observe(&lost);
    observer.observe(&lost);
    assert_eq!((observer.counts.refused, observer.counts.lost), (1, 1));
}

#[test]
fn curves_step_where_the_fleet_does_and_end_at_nothing() {
    let points = points_of(watched(Arc::new(NoPrices), &a_life()));
    assert!(points.iter().all(|point| point.value.is_finite()));
    let booting: Vec<(i64, f64)> = curve(&points, "instances of resource t4", "booting")
        .iter()
        .map(|point| (point.iter, point.value))
        .collect();
    assert_eq!(booting, [(100, 0.0), (109, 0.0), (110, 1.0), (154, 1.0), (155, 0.0), (1000, 0.0)]);
    let busy = curve(&points, "instances of type g4dn.xlarge", "busy");
    assert!(busy.iter().any(|point| point.value > 0.5) && busy.last().unwrap().value < 0.5, "{busy:?}");
    let wait = curve(&points, "wait until start (s)", "gpu, mean");
    assert_eq!(wait.iter().map(|point| point.value).collect::<Vec<_>>(), [46.0]);
    let places =
        |variant| curve(&points, "instances", variant).windows(2).all(|two| two[0].iter < two[1].iter);
    assert!(Phase::ALL.iter().all(|phase| places(phase.name())));
}

#[test]
fn a_price_that_is_not_known_is_not_nothing() {
    let points = points_of(watched(Arc::new(NoPrices), &a_life()[..6]));
    assert!(curve(&points, "spend ($ an hour)", "all instances").iter().all(|point| point.iter < 110));
    assert!(curve(&points, "spend in total ($)", "all instances").iter().all(|point| point.iter < 110));
    let unknown = curve(&points, "instances of unknown price", "now");
    assert!(unknown.last().unwrap().value > 0.5, "{unknown:?}");
}

#[test]
fn what_was_spent_adds_up() {
    let points = points_of(watched(Arc::new(FixedPrice), &a_life()));
    let total = curve(&points, "spend in total ($)", "all instances");
    // It runs from 15 s to 180 s, at 36 cents an hour.
    assert!((total.last().unwrap().value - 0.0165).abs() < 1e-9, "{total:?}");
    let rate = curve(&points, "spend ($ an hour)", "all instances");
    assert!(rate.last().unwrap().value.abs() < 1e-9, "{rate:?}");
}

#[test]
fn points_and_plots_come_at_a_pace_and_with_changes_and_at_the_end() {
    let mut scene = Scene::new(Arc::new(NoPrices), Book::default(), 0, at(0));
    let mut look = |now: u64, state: State, last| {
        let shown = scene.look(&pass(now, &[], Some((state, 1))), last);
        (!shown.points.is_empty(), !shown.plots.is_empty())
    };
    assert_eq!(look(1, State::Idle, false), (true, true));
    assert_eq!(look(3, busy("one"), false), (false, false), "too soon after the last ones");
    assert_eq!(look(7, busy("one"), false), (true, false));
    assert_eq!(look(17, busy("one"), false), (false, true));
    assert_eq!(look(20, busy("one"), false), (false, false), "nothing has changed");
    assert_eq!(look(21, busy("one"), true), (true, true), "the last look");
}
