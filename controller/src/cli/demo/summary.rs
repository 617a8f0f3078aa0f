//! What the demo came to: told by the sandbox, which saw every call, not by the autoscaler.

use sandbox::clearml::{Status, TaskInfo};
use sandbox::ec2::Counts;
use serde::Serialize;

/// The schema of `demo --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    tasks: Tasks,
    instances: Instances,
    wait_s: Waits,
}

/// What became of the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Tasks {
    completed: usize,
    /// Neither ended, nor running, nor waiting in a queue.
    lost: usize,
    /// Ended otherwise than by completing, or started more than once.
    killed: usize,
    #[serde(skip)]
    enqueued: usize,
}

/// What became of the instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Instances {
    launched: u64,
    terminated: u64,
    left: u64,
}

/// From the enqueue to the start, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Waits {
    p50: f64,
    p95: f64,
}

impl Summary {
    /// Of these tasks; `waiting` are the ids of those that are in a queue.
    pub(super) fn of(tasks: &[TaskInfo], waiting: &[String], instances: Counts) -> Self {
        let count = |matches: &dyn Fn(&TaskInfo) -> bool| tasks.iter().filter(|task| matches(task)).count();
        let mut waits: Vec<f64> = tasks.iter().filter_map(wait_seconds).collect();
        waits.sort_by(f64::total_cmp);
        let Counts { launched, terminated, left } = instances;
        Self {
            tasks: Tasks {
                completed: count(&|task| task.status == Status::Completed && task.starts == 1),
                lost: count(&|task| task.status == Status::Queued && !waiting.contains(&task.id)),
                killed: count(&|task| task.starts > 1 || was_cut_short(task.status)),
                enqueued: tasks.len(),
            },
            instances: Instances { launched, terminated, left },
            wait_s: Waits { p50: percentile(&waits, 0.5), p95: percentile(&waits, 0.95) },
        }
    }

    /// All tasks have ended and every instance has gone.
    pub(super) fn is_over(&self) -> bool {
        let Tasks { completed, lost: _, killed, enqueued } = self.tasks;
        completed + killed >= enqueued && self.instances.left == 0
    }

    /// Nothing was lost, killed or left.
    pub(super) fn is_clean(&self) -> bool {
        let Tasks { completed, lost, killed, enqueued } = self.tasks;
        completed == enqueued && lost == 0 && killed == 0 && self.instances.left == 0
    }

    pub(super) fn text(&self) -> String {
        let Self { tasks, instances, wait_s } = self;
        let Tasks { completed, lost, killed, enqueued } = tasks;
        let Instances { launched, terminated, left } = instances;
        let Waits { p50, p95 } = wait_s;
        format!(
            "\ntasks      {completed} of {enqueued} completed, {lost} lost, {killed} killed\n\
             instances  {launched} launched, {terminated} terminated, {left} left\n\
             wait       {p50:.1} s at p50, {p95:.1} s at p95, from enqueue to start\n"
        )
    }
}

fn was_cut_short(status: Status) -> bool {
    match status {
        Status::Stopped | Status::Failed | Status::Closed => true,
        Status::Created
        | Status::Queued
        | Status::InProgress
        | Status::Completed
        | Status::Publishing
        | Status::Published => false,
    }
}

fn wait_seconds(task: &TaskInfo) -> Option<f64> {
    let enqueued = task.history.iter().find(|change| change.to == Status::Queued)?.at;
    let started = task.history.iter().find(|change| change.to == Status::InProgress)?.at;
    Some(started.duration_since(enqueued).unwrap_or_default().as_secs_f64())
}

/// The nearest-rank percentile of sorted values; 0 of none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        assert!(percentile(&[], 0.5) < f64::EPSILON);
        let values = [1.0, 2.0, 3.0, 4.0];
        assert!((percentile(&values, 0.5) - 2.0).abs() < f64::EPSILON);
        assert!((percentile(&values, 0.95) - 4.0).abs() < f64::EPSILON);
    }
}
