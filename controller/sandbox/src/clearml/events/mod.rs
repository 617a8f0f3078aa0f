//! `events.*`: console lines, scalars and plots, kept by task.

mod add;
mod read;

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::document::Doc;
use super::endpoints::{Endpoint, V1, Version};

const V2_9: &[Version] = &[(1, 5), (1, 7), (2, 9)];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("events.add", V1, add::add),
    Endpoint::new("events.add_batch", V1, add::add_batch),
    Endpoint::new("events.get_task_log", V2_9, read::get_task_log),
    Endpoint::new("events.get_task_events", V1, read::get_task_events),
    Endpoint::new("events.get_task_plots", V1, read::get_task_plots),
    Endpoint::new("events.get_task_latest_scalar_values", V1, read::get_task_latest_scalar_values),
    Endpoint::new("events.get_task_single_value_metrics", V1, read::get_task_single_value_metrics),
    Endpoint::new("events.get_task_metrics", V1, read::get_task_metrics),
    Endpoint::new("events.scalar_metrics_iter_histogram", V1, read::scalar_metrics_iter_histogram),
    Endpoint::new("events.debug_images", V1, read::debug_images),
];

/// The newest of each kind that are kept for a task.
const KEPT: usize = 100_000;
/// What the SDK puts into `iter` for a value without one.
const NO_ITERATION: i64 = -(1 << 31);

#[derive(Default)]
pub(crate) struct TaskEvents {
    pub(crate) console: VecDeque<Doc>,
    /// By metric and variant.
    scalars: BTreeMap<String, BTreeMap<String, VecDeque<Point>>>,
    plots: VecDeque<Doc>,
    images: VecDeque<Doc>,
}

#[derive(Clone, Copy, Serialize)]
struct Point {
    iter: i64,
    /// Milliseconds since the epoch.
    timestamp: i64,
    value: f64,
}

fn push<T>(kept: &mut VecDeque<T>, item: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(item);
}
