//! What is paid for, over passes, restarts and gaps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::Published;
use engine::ports::{CloudInstance, CloudState};
use planner::{
    FleetId, Freshness, Instance, InstanceId, InstanceType, Market, Offering, Placement, Plan, Policy,
    SidecarMode, Signal, Snapshot, Source, State, Time,
};

use super::book::Book;
use super::{Costs, Hourly};
use crate::journal::{EndedBy, LedgerState, Spent, Stretch};
use crate::prices::{Price, Source as PriceSource};

/// Seconds after an arbitrary beginning.
fn at(seconds: u64) -> Time {
    Time(1_767_225_600_000).after(Duration::from_secs(seconds))
}

fn offering() -> Offering {
    Offering { instance_type: "g4dn.xlarge".into(), placement: Placement::Any, market: Market::Spot }
}

fn instance(state: State, since: u64, launched: u64) -> Instance {
    Instance {
        resource: "t4".into(),
        queue: "gpu".into(),
        offering: offering(),
        zone: Some("us-east-1b".into()),
        worker: "dynamic:t4:g4dn.xlarge:i-1".into(),
        intent: Some("3-1".into()),
        launched_at: at(launched),
        adopted_at: at(launched),
        ready_at: None,
        state,
        since: at(since),
        signal: Signal::Sidecar,
        finishing: false,
        last_order: None,
        word: planner::Word::default(),
        kept: false,
        accounted: true,
    }
}

fn booting() -> State {
    State::Booting { phase: "agent".to_owned() }
}

/// A run that began at `started` looks at the fleet; EC2's list was read at `listed`, if it was.
fn pass(now: u64, started: u64, listed: Option<u64>, fleet: &[(&str, Instance)]) -> Published {
    let policy = Policy {
        fleet: FleetId::from("fleet"),
        prefix: "dynamic".to_owned(),
        pools: Vec::new(),
        resources: BTreeMap::new(),
        max_idle: Duration::from_secs(60),
        max_spin_up: Duration::from_secs(600),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        shutdown: None,
        launches_per_minute: 600,
        requeue: planner::Requeue::default(),
    };
    let age = listed.map(|began| Freshness { read_began_at: at(began), stale_since: None });
    Published {
        now: at(now),
        policy: Arc::new(policy),
        snapshot: Snapshot {
            now: at(now),
            started_at: at(started),
            freshness: age.into_iter().map(|age| (Source::Cloud, age)).collect(),
            instances: fleet.iter().map(|(id, instance)| ((*id).into(), instance.clone())).collect(),
            ..Snapshot::default()
        },
        plan: Plan::default(),
        violation: None,
        ended: Arc::default(),
    }
}

/// The same, where EC2 still lists an instance that ended then.
fn with_ended(mut published: Published, id: &str, launched: u64, ended: Option<u64>) -> Published {
    let seen = CloudInstance {
        resource: "t4".into(),
        queue: "gpu".into(),
        intent: None,
        offering: offering(),
        zone: Some("us-east-1b".into()),
        state: CloudState::Terminated,
        launched_at: at(launched),
        kept: false,
        ended_at: ended.map(at),
    };
    published.ended = Arc::new([(InstanceId::from(id), seen)].into());
    published
}

struct Quoted(Mutex<Option<Price>>);

impl Quoted {
    fn at(usd_per_hour: f64) -> Self {
        let market = Self(Mutex::new(None));
        market.set(usd_per_hour, PriceSource::SpotHistory);
        market
    }

    fn set(&self, usd_per_hour: f64, source: PriceSource) {
        let as_of = jiff::civil::date(2026, 1, 1);
        *self.0.lock().unwrap() = Some(Price { usd_per_hour, as_of, source });
    }
}

impl Hourly for Quoted {
    fn price(&self, _instance_type: &InstanceType, _zone: Option<&str>, _market: Market) -> Option<Price> {
        self.0.lock().unwrap().clone()
    }
}

/// The journal of a run, as the next one finds it.
#[derive(Default)]
struct Rows(BTreeMap<(InstanceId, Time), Stretch>);

/// An instance, when its stretch began, and how that ended if it has.
type Shown<'a> = (&'a str, u64, Option<(u64, EndedBy)>);

impl Rows {
    fn write(&mut self, changed: Vec<Stretch>) {
        for stretch in changed {
            self.0.insert((stretch.instance.clone(), stretch.from), stretch);
        }
    }

    fn state(&self, seen: u64) -> LedgerState {
        let over = self.0.values().filter_map(|stretch| Some((stretch, stretch.end?.0)));
        let spent = over.clone().map(|(stretch, until)| {
            let price = stretch.price.as_ref().map(|price| price.usd_per_hour);
            Spent::of(until.since(stretch.from), price)
        });
        LedgerState {
            open: self.0.values().filter(|stretch| stretch.end.is_none()).cloned().collect(),
            spent: spent.fold(Spent::default(), Spent::and),
            ended: over.map(|(stretch, _)| stretch.instance.clone()).collect(),
            seen: Some(at(seen)),
        }
    }

    fn ends(&self) -> Vec<Shown<'_>> {
        let seconds = |time: Time| time.since(at(0)).as_secs();
        let ends = self.0.values().map(|stretch| {
            let end = stretch.end.map(|(until, by)| (seconds(until), by));
            (stretch.instance.as_str(), seconds(stretch.from), end)
        });
        ends.collect()
    }
}

fn cents(spent: Spent) -> i64 {
    (spent.usd * 100.0).round() as i64
}

#[test]
fn an_instance_is_paid_for_from_when_it_runs_until_it_is_told_to_end() {
    let (mut book, mut rows, prices) = (Book::default(), Rows::default(), Quoted::at(36.0));
    for (now, state, since) in [
        (10, State::Requested, 10),
        (20, State::Pending, 15),
        (110, booting(), 100),
        (500, State::Idle, 400),
        (1101, State::Terminating, 1100),
        (1200, State::Gone, 1190),
    ] {
        rows.write(book.observe(&pass(now, 0, Some(now), &[("i-1", instance(state, since, 10))]), &prices));
    }
    assert_eq!(rows.ends(), [("i-1", 100, Some((1100, EndedBy::Seen)))]);
    assert_eq!(cents(book.spent(at(5000))), 1000);
    // EC2's word of when comes later and counts.
    let listed = pass(1300, 0, Some(1300), &[("i-1", instance(State::Gone, 1190, 10))]);
    rows.write(book.observe(&with_ended(listed, "i-1", 10, Some(1095)), &prices));
    assert_eq!(rows.ends(), [("i-1", 100, Some((1095, EndedBy::Ec2)))]);
    assert_eq!(cents(book.spent(at(5000))), 995);
}

#[test]
fn time_without_a_controller_counts_until_ec2s_word() {
    let prices = Quoted::at(36.0);
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let fleet = [("i-1", instance(State::Idle, 50, 0)), ("i-2", instance(State::Idle, 50, 0))];
    rows.write(book.observe(&pass(100, 0, Some(100), &fleet), &prices));
    assert_eq!(cents(book.spent(at(100))), 200);

    // Killed at 150 s, back at 1000 s: one ended at 600 s, the other runs on.
    let mut book = Book::resume(rows.state(140));
    rows.write(book.observe(&pass(1000, 1000, None, &[]), &prices));
    assert_eq!(rows.ends(), [("i-1", 0, None), ("i-2", 0, None)], "nothing is known before EC2 was read");
    let fleet = [("i-2", instance(State::Idle, 1001, 0))];
    let found = with_ended(pass(1001, 1000, Some(1000), &fleet), "i-1", 0, Some(600));
    rows.write(book.observe(&found, &prices));
    assert_eq!(rows.ends(), [("i-1", 0, Some((600, EndedBy::Ec2))), ("i-2", 0, None)]);
    assert_eq!(cents(book.spent(at(2000))), 600 + 2000);
    let costs = Costs::of(&rows.0.values().cloned().collect::<Vec<_>>(), at(500), at(2000));
    assert!((costs.usd - 16.0).abs() < 1e-9, "100 s of one, 1500 s of the other: {costs:?}");
    assert_eq!((costs.lines[0].instances, costs.lines[0].running), (2, 1));
}

#[test]
fn one_that_vanished_counts_until_it_was_last_seen() {
    let prices = Quoted::at(36.0);
    let mut rows = Rows::default();
    let fleet = [("i-1", instance(State::Idle, 50, 0))];
    rows.write(Book::default().observe(&pass(100, 0, Some(100), &fleet), &prices));
    let mut book = Book::resume(rows.state(400));
    rows.write(book.observe(&pass(90_000, 90_000, Some(90_000), &[]), &prices));
    assert_eq!(rows.ends(), [("i-1", 0, Some((400, EndedBy::LastSeen)))]);
    assert_eq!(cents(book.spent(at(99_999))), 400);
    let costs = Costs::of(&rows.0.into_values().collect::<Vec<_>>(), at(0), at(99_999));
    assert_eq!(costs.lines[0].vanished, 1);
}

#[test]
fn without_a_journal_ec2_tells_what_ran() {
    let prices = Quoted::at(36.0);
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let fleet = [("i-1", instance(State::Idle, 1001, 300))];
    let found = with_ended(pass(1001, 1000, Some(1000), &fleet), "i-0", 0, Some(600));
    for _ in 0..2 {
        rows.write(book.observe(&found, &prices));
    }
    assert_eq!(rows.ends(), [("i-0", 0, Some((600, EndedBy::Ec2))), ("i-1", 300, None)]);
    // The next run has it and does not count it again.
    let mut book = Book::resume(rows.state(1001));
    assert!(
        book.observe(&with_ended(pass(1100, 1050, Some(1060), &fleet), "i-0", 0, Some(600)), &prices)
            .is_empty()
    );
    assert_eq!(cents(book.spent(at(1100))), 600 + 800);
}

#[test]
fn a_new_price_begins_a_new_stretch_and_a_mere_bound_does_not() {
    let prices = Quoted::at(36.0);
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let fleet = [("i-1", instance(State::Idle, 50, 0))];
    rows.write(book.observe(&pass(100, 0, Some(100), &fleet), &prices));
    prices.set(72.0, PriceSource::SpotHistory);
    rows.write(book.observe(&pass(1000, 0, Some(1000), &fleet), &prices));
    prices.set(100.0, PriceSource::BuiltInCeiling);
    rows.write(book.observe(&pass(1500, 0, Some(1500), &fleet), &prices));
    *prices.0.lock().unwrap() = None;
    rows.write(book.observe(&pass(1600, 0, Some(1600), &fleet), &prices));
    assert_eq!(rows.ends(), [("i-1", 0, Some((1000, EndedBy::Price))), ("i-1", 1000, None)]);
    assert_eq!(cents(book.spent(at(2000))), 1000 + 2000);
}

#[test]
fn what_has_no_price_is_counted_and_not_taken_for_nothing() {
    let prices = Quoted(Mutex::new(None));
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let fleet = [("i-1", instance(State::Idle, 50, 0))];
    rows.write(book.observe(&pass(100, 0, Some(100), &fleet), &prices));
    prices.set(36.0, PriceSource::File);
    rows.write(book.observe(&pass(1000, 0, Some(1000), &fleet), &prices));
    assert_eq!(book.spent(at(2000)).unpriced_ms, 1_000_000);
    assert_eq!(cents(book.spent(at(2000))), 1000);
    let costs = Costs::of(&rows.0.into_values().collect::<Vec<_>>(), at(0), at(2000));
    assert!((costs.unpriced_hours - 1000.0 / 3600.0).abs() < 1e-9, "{costs:?}");
}

#[test]
fn one_that_was_told_to_end_and_runs_on_is_paid_for_without_a_gap() {
    let prices = Quoted::at(36.0);
    let (mut book, mut rows) = (Book::default(), Rows::default());
    for (now, state, since) in
        [(100, State::Idle, 50), (200, State::Terminating, 200), (400, State::Idle, 50)]
    {
        rows.write(book.observe(&pass(now, 0, Some(now), &[("i-1", instance(state, since, 0))]), &prices));
    }
    assert_eq!(rows.ends(), [("i-1", 0, Some((200, EndedBy::Seen))), ("i-1", 200, None)]);
    assert_eq!(cents(book.spent(at(400))), 400);
}
