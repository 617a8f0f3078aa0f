//! What ClearML shows of an instance, seen afresh: nothing is ended on older evidence.

use std::time::Duration;

use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::{TaskId, Time};
use crate::names::Names;
use crate::plan::Plan;
use crate::removals::is_orphan;
use crate::role::Role;
use crate::snapshot::{Snapshot, Source};

/// Between two looks at an instance that shows a task.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The lists that can show a task on a worker.
const LISTS: [Source; 2] = [Source::Workers, Source::Tasks];

/// What ClearML shows of those that may be ended.
pub(crate) struct Evidence<'a> {
    suspects: Names<'a>,
    /// By their places among the suspects.
    sightings: Vec<Sighting<'a>>,
}

/// What ClearML shows of one instance's worker or a child of it.
#[derive(Clone, Copy, Default)]
struct Sighting<'a> {
    /// It is on the list of workers: its agent has been up.
    listed: bool,
    /// A task on it, by either list.
    task: Option<&'a TaskId>,
}

impl<'a> Evidence<'a> {
    /// Goes through both lists once, for those members that may be ended.
    pub(crate) fn of(fleet: &Fleet<'a>) -> Self {
        let may_be_ended = |role: Role| {
            matches!(role, Role::Retired | Role::Overdue { .. } | Role::Lost | Role::Coming { .. })
        };
        let is_suspect = |member: &&Member<'_>| {
            let may_be_ended = matches!(member.role, Role::Retired | Role::Overdue { .. } | Role::Lost);
            may_be_ended || is_orphan(fleet, member)
        };
        let mut suspects = Names::with_capacity(0);
        let mut sightings = Vec::new();
        for member in fleet.members.iter().filter(is_suspect) {
            suspects.place(member.id.as_str());
            sightings.push(Sighting::default());
        }
        if sightings.is_empty() {
            return Self { suspects, sightings };
        }
        for entry in &fleet.entries {
            if entry.role.is_some_and(may_be_ended)
                && let Some(at) = suspects.find(entry.instance)
            {
                sightings[at].listed = true;
                sightings[at].task = sightings[at].task.or(entry.task);
            }
        }
        for task in &fleet.snapshot.running {
            if let Some(worker) = &task.last_worker
                && let Some(at) = worker.instance_text(&fleet.policy.prefix).and_then(|id| suspects.find(id))
            {
                sightings[at].task = sightings[at].task.or(Some(&task.task));
            }
        }
        Self { suspects, sightings }
    }

    /// Whether ClearML lists the member's worker.
    pub(crate) fn lists(&self, member: &Member<'_>) -> bool {
        self.of_member(member).listed
    }

    fn of_member(&self, member: &Member<'_>) -> Sighting<'a> {
        let place = self.suspects.find(member.id.as_str());
        place.map_or_else(Sighting::default, |place| self.sightings[place])
    }

    /// Whether the member is free of tasks by reads that began after `instant`. If not, the hold and the
    /// reads that are wanted go into the plan.
    pub(crate) fn is_free_since(
        &self,
        fleet: &Fleet<'a>,
        member: &Member<'a>,
        instant: Time,
        plan: &mut Plan,
    ) -> bool {
        let snapshot = fleet.snapshot;
        if !fault!("no-fresh-look") && !read_since(snapshot, &LISTS, instant, plan) {
            plan.holds.push(Hold::FreshLook { instance: member.id.clone() });
            return false;
        }
        let Some(task) = self.of_member(member).task else { return true };
        plan.holds.push(Hold::TaskSeen { instance: member.id.clone(), task: task.clone() });
        for source in LISTS {
            let read = snapshot.freshness.get(&source).map_or(snapshot.now, |age| age.read_began_at);
            let next = read.after(LOOK_AGAIN);
            if next <= snapshot.now {
                plan.refresh.insert(source);
            } else {
                plan.wake(next);
            }
        }
        false
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
            // What fails is being tried again already, at a pace; tasks are read on demand alone.
            let failing = snapshot.freshness.get(source).is_some_and(|age| age.stale_since.is_some());
            if !failing || *source == Source::Tasks {
                plan.refresh.insert(*source);
            }
        } else {
            // A read that begins within the same millisecond would not count as later.
            plan.wake(Time(instant.0.saturating_add(1)));
        }
    }
    all
}
