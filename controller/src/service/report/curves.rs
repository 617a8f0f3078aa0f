//! The curves: instances by state, waiting tasks, waits, launches, failures, spend.
//!
//! A curve that stays level is written every few minutes only. One that counts goes in steps: its old
//! height is written once more just before the new one, so that a step looks like one.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Published;
use planner::Time;

use super::observe::{Counts, Observer, Phase};
use super::outbox::Point;
use super::spend::Meter;

/// A level curve is written this often.
const LEVEL: Duration = Duration::from_secs(300);

/// Turns what was observed into points.
#[derive(Debug)]
pub(super) struct Curves {
    /// The place of this run's beginning: behind everything that an earlier run of the task has written.
    first: i64,
    began: Time,
    last: BTreeMap<(String, String), (i64, Time, f64)>,
}

impl Curves {
    /// A place is a second of this run, counted on from `first`.
    pub(super) fn new(first: i64, began: Time) -> Self {
        Self { first, began, last: BTreeMap::new() }
    }

    /// The points of this moment; with the last ones, curves that stay level come to their end as well.
    pub(super) fn points(
        &mut self,
        published: &Published,
        observer: &mut Observer,
        meter: &Meter,
        is_last: bool,
    ) -> Vec<Point> {
        let now = published.snapshot.now;
        let mut steps = instances(published, observer);
        steps.extend(waiting(published));
        steps.extend(events(observer.counts));
        steps.extend(rate(meter));
        let mut slopes = oldest(published, observer);
        slopes.extend(total(meter));
        let iter = self.place(now);
        let level = if is_last { Duration::ZERO } else { LEVEL };
        let mut points = Vec::new();
        for (heights, in_steps) in [(steps, true), (slopes, false)] {
            for (curve, value) in heights {
                self.draw(&mut points, curve, value, in_steps, (iter, now), level);
            }
        }
        // Each of these stands for itself: no level is drawn between two of them.
        for (queue, sample) in observer.waits.sample() {
            for (variant, wait) in
                [(format!("{queue}, mean"), sample.mean()), (format!("{queue}, longest"), sample.longest)]
            {
                points.push(Point {
                    metric: "wait until start (s)".to_owned(),
                    variant,
                    iter,
                    value: wait.as_secs_f64(),
                    at_ms: now.0,
                });
            }
        }
        points
    }

    fn place(&self, now: Time) -> i64 {
        let seconds = i64::try_from(now.since(self.began).as_secs()).unwrap_or(i64::MAX);
        self.first.saturating_add(seconds)
    }

    fn draw(
        &mut self,
        points: &mut Vec<Point>,
        curve: (String, String),
        value: f64,
        in_steps: bool,
        (iter, now): (i64, Time),
        level: Duration,
    ) {
        let at = |iter, value, at_ms| Point {
            metric: curve.0.clone(),
            variant: curve.1.clone(),
            iter,
            value,
            at_ms,
        };
        if let Some((last_iter, last_at, last)) = self.last.get(&curve) {
            let is_level = last.to_bits() == value.to_bits();
            // Two heights at one place would be one.
            if *last_iter >= iter || (is_level && now.since(*last_at) < level) {
                return;
            }
            if in_steps && !is_level && last_iter + 1 < iter {
                points.push(at(iter - 1, *last, now.0.saturating_sub(1000)));
            }
        }
        points.push(at(iter, value, now.0));
        self.last.insert(curve, (iter, now, value));
    }
}

type Heights = BTreeMap<(String, String), f64>;

/// By state: all of them, each resource's, each type's.
fn instances(published: &Published, observer: &Observer) -> Heights {
    let mut heights = Heights::new();
    let mut count = |diagram: String, phase: Phase, more: f64| {
        *heights.entry((diagram, phase.name().to_owned())).or_default() += more;
    };
    let mut diagrams = std::collections::BTreeSet::from(["instances".to_owned()]);
    diagrams.extend(published.policy.pools.iter().map(|pool| of_resource(&pool.resource)));
    for track in observer.tracks.values() {
        // Those gone lately as well: their curves must come down to 0.
        diagrams.extend([of_resource(&track.resource), of_type(&track.instance_type)]);
    }
    for phase in Phase::ALL {
        for diagram in &diagrams {
            count(diagram.clone(), phase, 0.0);
        }
    }
    for instance in published.snapshot.instances.values() {
        if let Some(phase) = Phase::of(&instance.state) {
            count("instances".to_owned(), phase, 1.0);
            count(of_resource(&instance.resource), phase, 1.0);
            count(of_type(instance.instance_type()), phase, 1.0);
        }
    }
    heights
}

fn of_resource(resource: &planner::ResourceName) -> String {
    format!("instances of resource {resource}")
}

fn of_type(instance_type: &planner::InstanceType) -> String {
    format!("instances of type {instance_type}")
}

/// A queue that can't be read has no height.
fn waiting(published: &Published) -> Heights {
    let queues = published.policy.queues().into_iter();
    let counted = queues.filter_map(|queue| Some((queue, published.snapshot.queues.get(queue)?.len())));
    counted.map(|(queue, count)| (("waiting tasks".to_owned(), queue.to_string()), count as f64)).collect()
}

/// For how long those that wait have waited.
fn oldest(published: &Published, observer: &Observer) -> Heights {
    let listed = published.policy.queues().into_iter();
    let listed = listed.filter(|queue| published.snapshot.queues.contains_key(*queue));
    listed
        .map(|queue| {
            let oldest = observer.waits.oldest(queue, published.snapshot.now).unwrap_or_default();
            let curve = ("longest wait of those waiting (s)".to_owned(), queue.to_string());
            (curve, oldest.as_secs_f64().round())
        })
        .collect()
}

fn events(counts: Counts) -> Heights {
    let Counts { launched, refused, never_ready, lost } = counts;
    [
        ("launches", "instances launched", launched),
        ("failures", "launches refused", refused),
        ("failures", "instances never ready", never_ready),
        ("failures", "instances lost", lost),
    ]
    .into_iter()
    .map(|(metric, variant, count)| ((metric.to_owned(), variant.to_owned()), count as f64))
    .collect()
}

/// A sum with a price missing in it goes by another name.
fn rate(meter: &Meter) -> Heights {
    let rate = meter.rate();
    let mut heights = Heights::from([(
        ("instances of unknown price".to_owned(), "now".to_owned()),
        f64::from(rate.unpriced),
    )]);
    let variant = match (rate.priced, rate.unpriced) {
        (_, 0) => "all instances",
        (0, _) => return heights,
        _ => "instances of known price",
    };
    heights.insert(("spend ($ an hour)".to_owned(), variant.to_owned()), rate.known);
    heights
}

fn total(meter: &Meter) -> Heights {
    let variant = if meter.is_partial() { "known part" } else { "all instances" };
    let total = meter.total().map(|total| (("spend in total ($)".to_owned(), variant.to_owned()), total));
    total.into_iter().collect()
}
