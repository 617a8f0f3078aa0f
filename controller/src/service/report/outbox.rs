//! Scalars and plots on their way to ClearML. Bounded: of points the oldest make room for new ones, of
//! plots only the newest of each is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clearml::Event;
use tokio::sync::Notify;

/// Points kept at most: half an hour of some two hundred curves.
const POINTS: usize = 20_000;

/// A point of a curve.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// The diagram.
    pub(super) metric: String,
    /// The curve.
    pub(super) variant: String,
    /// Its place.
    pub(super) iter: i64,
    /// Its height; never one that is no number.
    pub(super) value: f64,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// A plot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plot {
    /// The diagram.
    pub(super) metric: &'static str,
    /// Plotly's JSON, as text.
    pub(super) json: String,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// What is to be sent. Clones mean the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inside: Mutex<Inside>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    points: VecDeque<Point>,
    dropped: u64,
    plots: BTreeMap<&'static str, Plot>,
}

impl Outbox {
    /// Takes points in; what is no number is left out.
    pub(super) fn points(&self, points: impl IntoIterator<Item = Point>) {
        let mut inside = self.inside();
        for point in points.into_iter().filter(|point| point.value.is_finite()) {
            if inside.points.len() == POINTS {
                inside.points.pop_front();
                inside.dropped += 1;
            }
            inside.points.push_back(point);
        }
        drop(inside);
        self.shared.news.notify_one();
    }

    /// Takes a plot in, in place of an older one.
    pub(super) fn plot(&self, plot: Plot) {
        self.inside().plots.insert(plot.metric, plot);
        self.shared.news.notify_one();
    }

    /// The next points to send, so many at most, and how many older ones were dropped.
    pub(super) fn take_points(&self, most: usize) -> (Vec<Point>, u64) {
        let mut inside = self.inside();
        let count = most.min(inside.points.len());
        (inside.points.drain(..count).collect(), std::mem::take(&mut inside.dropped))
    }

    /// The next plot to send.
    pub(super) fn take_plot(&self) -> Option<Plot> {
        self.inside().plots.pop_first().map(|(_, plot)| plot)
    }

    /// Resolves when something came since the last time.
    pub(super) async fn news(&self) {
        self.shared.news.notified().await;
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Whole after each change, whoever panicked elsewhere.
        self.shared.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Point {
    pub(super) fn event(&self, task: &str) -> Event {
        let Self { metric, variant, iter, value, at_ms } = self;
        Event::Scalar {
            task: task.to_owned(),
            timestamp: *at_ms,
            iter: *iter,
            metric: metric.clone(),
            variant: variant.clone(),
            value: *value,
        }
    }
}

impl Plot {
    /// Always at the same place: the server then keeps the newest alone.
    pub(super) fn event(&self, task: &str) -> Event {
        let Self { metric, json, at_ms } = self;
        Event::Plot {
            task: task.to_owned(),
            timestamp: *at_ms,
            iter: 0,
            metric: (*metric).to_owned(),
            variant: "now".to_owned(),
            plot_str: json.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f64) -> Point {
        Point { metric: "m".into(), variant: "v".into(), iter: 0, value, at_ms: 0 }
    }

    #[test]
    fn what_is_no_number_never_leaves() {
        let outbox = Outbox::default();
        outbox.points([f64::NAN, 1.0, f64::INFINITY].map(point));
        assert_eq!(outbox.take_points(10), (vec![point(1.0)], 0));
    }

    #[test]
    fn the_oldest_points_make_room_and_are_counted() {
        let outbox = Outbox::default();
        outbox.points((0..POINTS + 3).map(|number| point(number as f64)));
        let (points, dropped) = outbox.take_points(1);
        assert_eq!((points, dropped), (vec![point(3.0)], 3));
    }

    #[test]
    fn of_a_plot_only_the_newest_is_sent() {
        let outbox = Outbox::default();
        let plot = |json: &str| Plot { metric: "fleet", json: json.into(), at_ms: 0 };
        outbox.plot(plot("old"));
        outbox.plot(plot("new"));
        assert_eq!(outbox.take_plot(), Some(plot("new")));
        assert_eq!(outbox.take_plot(), None);
    }
}
