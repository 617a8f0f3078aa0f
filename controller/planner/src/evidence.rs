//! What ClearML shows of an instance, seen afresh: nothing is ended on older evidence.

use std::time::Duration;

use crate::hold::Hold;
use crate::ids::{InstanceId, TaskId, Time, WorkerId};
use crate::plan::Plan;
use crate::snapshot::{Snapshot, Source, TaskRef};

/// Between two looks at an instance that shows a task.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The lists that can show a task on a worker.
const LISTS: [Source; 2] = [Source::Workers, Source::Tasks];

/// Running tasks by their last worker, sorted once, when the first question is asked.
#[derive(Default)]
pub(crate) struct Evidence<'a> {
    running: Option<Vec<(&'a str, &'a TaskId)>>,
}

impl<'a> Evidence<'a> {
    /// Whether the instance is free of tasks by reads that began after `instant`. If not, the hold and
    /// the reads that are wanted go into the plan.
    pub(crate) fn is_free_since(
        &mut self,
        snapshot: &'a Snapshot,
        (id, worker): (&InstanceId, &WorkerId),
        instant: Time,
        plan: &mut Plan,
    ) -> bool {
        if !read_since(snapshot, &LISTS, instant, plan) {
            plan.holds.push(Hold::FreshLook { instance: id.clone() });
            return false;
        }
        let Some(task) = self.task_of(snapshot, worker) else { return true };
        plan.holds.push(Hold::TaskSeen { instance: id.clone(), task: task.clone() });
        for source in LISTS {
            let next = snapshot
                .freshness
                .get(&source)
                .map_or(snapshot.now, |age| age.read_began_at.after(LOOK_AGAIN));
            if next <= snapshot.now {
                plan.refresh.insert(source);
            } else {
                plan.wake(next);
            }
        }
        false
    }

    fn task_of(&mut self, snapshot: &'a Snapshot, worker: &WorkerId) -> Option<&'a TaskId> {
        if let Some(task) = snapshot.listed_task_of(worker) {
            return Some(task);
        }
        let running = self.running.get_or_insert_with(|| {
            let named = |task: &'a TaskRef| Some((task.last_worker.as_ref()?.as_str(), &task.task));
            let mut running: Vec<_> = snapshot.running.iter().filter_map(named).collect();
            running.sort_unstable();
            running
        });
        let (first_child, _) = worker.children();
        // Other names may sort between a worker and its children.
        [worker.as_str(), first_child.as_str()].into_iter().find_map(|from| {
            let (last, task) = running.get(running.partition_point(|(last, _)| *last < from))?;
            (*last == worker.as_str() || last.starts_with(&first_child)).then_some(*task)
        })
    }
}

/// Whether all of these were read afresh after `instant`; if not, those that were not are to be read.
pub(crate) fn read_since(snapshot: &Snapshot, sources: &[Source], instant: Time, plan: &mut Plan) -> bool {
    let mut all = true;
    for source in sources {
        if snapshot.read_after(*source, instant) {
            continue;
        }
        all = false;
        if snapshot.now > instant {
            plan.refresh.insert(*source);
        } else {
            // A read that begins within the same millisecond would not count as later.
            plan.wake(Time(instant.0.saturating_add(1)));
        }
    }
    all
}
