//! Plots of small fleets and of large ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Published;
use planner::{
    FleetId, Instance, InstanceId, InstanceType, Market, Offering, Placement, Plan, Policy, Pool, Resource,
    ResourceName, SidecarMode, Signal, Snapshot, State, Time, WorkerId,
};
use serde_json::Value;

use super::super::observe::Observer;
use super::super::spend::Hourly;
use super::{LARGEST, all};
use crate::prices::{Price, Source as PriceSource};
use crate::service::ledger::NoPrices;

const NOW: Time = Time(1_795_459_885_000);

struct OnlySpot;

impl Hourly for OnlySpot {
    fn price(&self, _instance_type: &InstanceType, _zone: Option<&str>, market: Market) -> Option<Price> {
        let date = jiff::civil::date(2026, 1, 31);
        let price = Price { usd_per_hour: 0.158, as_of: date, source: PriceSource::SpotHistory };
        (market == Market::Spot).then_some(price)
    }
}

fn fleet(size: u32, resources: u32) -> Published {
    let resource = |number: u32| ResourceName(format!("resource-with-a-long-name-{}", number % resources));
    let instances: BTreeMap<InstanceId, Instance> = (0..size)
        .map(|number| {
            let id = InstanceId(format!("i-0123456789abc{number:04x}"));
            let instance = Instance {
                resource: resource(number),
                queue: "gpu".into(),
                offering: Offering {
                    instance_type: "g4dn.12xlarge".into(),
                    placement: Placement::Any,
                    market: if number % 2 == 0 { Market::Spot } else { Market::OnDemand },
                },
                zone: Some("us-east-1b".to_owned()),
                worker: WorkerId::from("w"),
                intent: None,
                kept: false,
                accounted: true,
                launched_at: Time(NOW.0 - 3_600_000 + u64::from(number)),
                adopted_at: NOW,
                ready_at: Some(NOW),
                state: State::Busy { task: Some("d636544c01444ea0a62b805f51639ef2".into()) },
                since: Time(NOW.0 - 600_000),
                signal: Signal::Sidecar,
                finishing: false,
                last_order: None,
                word: planner::Word::default(),
            };
            (id, instance)
        })
        .collect();
    let policy = Policy {
        fleet: FleetId::from("fleet"),
        prefix: "dynamic".to_owned(),
        pools: (0..resources)
            .map(|number| Pool { queue: "gpu".into(), resource: resource(number), maximum: 10 })
            .collect(),
        resources: (0..resources)
            .map(|number| (resource(number), Resource { offerings: Vec::new(), blocked: None }))
            .collect(),
        max_idle: Duration::from_secs(60),
        max_spin_up: Duration::from_secs(600),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        launches_per_minute: 600,
        shutdown: None,
        requeue: planner::Requeue::default(),
    };
    let began = Time(NOW.0 - 7_200_000);
    Published {
        now: NOW,
        policy: Arc::new(policy),
        snapshot: Snapshot { now: NOW, started_at: began, instances, ..Snapshot::default() },
        plan: Plan::default(),
        violation: None,
        ended: Arc::default(),
    }
}

fn plots(published: &Published, prices: &dyn Hourly) -> BTreeMap<&'static str, Value> {
    let mut observer = Observer::default();
    observer.observe(published);
    all(published, &observer, prices)
        .into_iter()
        .map(|plot| {
            assert!(plot.json.len() <= LARGEST, "{} has {} bytes", plot.metric, plot.json.len());
            (plot.metric, serde_json::from_str(&plot.json).unwrap())
        })
        .collect()
}

fn title(plot: &Value) -> &str {
    plot["layout"]["title"]["text"].as_str().unwrap()
}

#[test]
fn the_fleet_is_a_table_with_what_each_instance_costs() {
    let plots = plots(&fleet(2, 1), &OnlySpot);
    let cells = &plots["Fleet"]["data"][0]["cells"]["values"];
    assert_eq!(cells[0][0], "i-0123456789abc0001", "the newest first");
    assert_eq!(cells[6][0], "d636544c01444ea0a62b805f51639ef2");
    assert_eq!(cells[7][0], "2026-11-23 17:51:25");
    assert_eq!(cells[8], serde_json::json!(["unknown", "$0.158 at $0.158 an hour"]));
    assert_eq!(title(&plots["Fleet"]), "2 instances");
}

#[test]
fn a_large_fleet_fits_and_what_is_left_out_is_said() {
    let plots = plots(&fleet(3000, 800), &OnlySpot);
    for (name, plot) in &plots {
        assert!(title(plot).contains("(the "), "{name}: {}", title(plot));
    }
    let rows = plots["Fleet"]["data"][0]["cells"]["values"][0].as_array().unwrap().len();
    assert!(title(&plots["Fleet"]).contains(&format!("the newest {rows} of 3000")));
    assert!(rows >= 900, "{rows} rows");
}

#[test]
fn an_empty_fleet_has_plots_too() {
    let plots = plots(&fleet(0, 1), &NoPrices);
    assert_eq!(title(&plots["Fleet"]), "No instances now");
    assert_eq!(plots["Queues and their resources"]["data"][0]["cells"]["values"][3][0], "unknown");
    assert_eq!(plots["Uptime by resource"]["data"][0]["x"][0], 0.0);
}

#[test]
fn the_timeline_has_a_bar_for_each_stretch() {
    let mut observer = Observer::default();
    let mut published = fleet(1, 1);
    observer.observe(&published);
    for (seconds, state) in [(60, State::Idle), (120, State::Draining), (130, State::Gone)] {
        let now = Time(NOW.0 + seconds * 1000);
        published.snapshot.now = now;
        for instance in published.snapshot.instances.values_mut() {
            instance.state = state.clone();
            instance.since = now;
        }
        observer.observe(&published);
    }
    let plots = all(&published, &observer, &NoPrices);
    let timeline: Value = serde_json::from_str(&plots[3].json).unwrap();
    let bars: Vec<(&str, &Value, &Value)> = timeline["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|trace| !trace["x"].as_array().unwrap().is_empty())
        .map(|trace| (trace["name"].as_str().unwrap(), &trace["base"][0], &trace["x"][0]))
        .collect();
    let text = |time: &str| Value::from(time);
    assert_eq!(
        bars,
        [
            ("idle", &text("2026-11-23 18:52:25.000"), &Value::from(60_000)),
            ("busy", &text("2026-11-23 18:41:25.000"), &Value::from(660_000)),
            ("draining", &text("2026-11-23 18:53:25.000"), &Value::from(10_000)),
        ]
    );
}
