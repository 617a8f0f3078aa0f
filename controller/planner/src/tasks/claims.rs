//! Who says that it has a task: sessions whose gates hold it, and workers that list it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::fleet::Fleet;
use crate::ids::{InstanceId, TaskId, WorkerId};
use crate::names::Names;
use crate::snapshot::State;

/// Tasks to those who claim them.
pub(super) struct Claims<'a> {
    held: Names<'a>,
    /// By their places among the held; the first that was found.
    holders: Vec<&'a InstanceId>,
    /// Further holders.
    more: BTreeMap<&'a TaskId, Vec<&'a InstanceId>>,
    /// Made when the first is asked for.
    listed: OnceCell<Listed<'a>>,
}

/// What ClearML's workers say that they run.
struct Listed<'a> {
    tasks: Names<'a>,
    workers: Vec<Vec<&'a WorkerId>>,
}

impl<'a> Claims<'a> {
    /// Reads what the sessions hold. What a machine held that is proven gone is nobody's claim.
    pub(super) fn of(fleet: &Fleet<'a>) -> Self {
        let mut claims = Self {
            held: Names::with_capacity(fleet.members.len()),
            holders: Vec::new(),
            more: BTreeMap::new(),
            listed: OnceCell::new(),
        };
        for member in &fleet.members {
            let State::Busy { task: Some(task) } = &member.instance.state else {
                for task in &member.instance.word.held {
                    claims.add(fleet, task, member.id);
                }
                continue;
            };
            claims.add(fleet, task, member.id);
            for other in member.instance.word.held.iter().filter(|held| *held != task) {
                claims.add(fleet, other, member.id);
            }
        }
        claims
    }

    fn add(&mut self, fleet: &Fleet<'a>, task: &'a TaskId, holder: &'a InstanceId) {
        if fleet.snapshot.proven_gone.contains(holder) {
            return;
        }
        let place = self.held.place(task.as_str());
        if place == self.holders.len() {
            self.holders.push(holder);
        } else {
            self.more.entry(task).or_default().push(holder);
        }
    }

    /// Tasks that more than one instance holds.
    pub(super) fn twice(&self) -> Vec<(&'a TaskId, Vec<InstanceId>)> {
        let all = |task: &'a TaskId, more: &[&InstanceId]| {
            let first = self.holder(task).into_iter();
            first.chain(more.iter().copied()).cloned().collect()
        };
        self.more.iter().map(|(task, more)| (*task, all(task, more))).collect()
    }

    pub(super) fn is_twice(&self, task: &TaskId) -> bool {
        self.more.contains_key(task)
    }

    /// The instance that holds it, by its sidecar's word.
    pub(super) fn holder(&self, task: &TaskId) -> Option<&'a InstanceId> {
        self.held.find(task.as_str()).map(|place| self.holders[place])
    }

    /// A worker that lists it, other than those of one instance.
    pub(super) fn listed_elsewhere(
        &self,
        fleet: &Fleet<'a>,
        task: &TaskId,
        own: Option<&str>,
    ) -> Option<&'a WorkerId> {
        let listed = self.listed.get_or_init(|| Listed::of(fleet));
        let place = listed.tasks.find(task.as_str())?;
        let of_own = |worker: &WorkerId| own.is_some() && worker.instance_text(&fleet.policy.prefix) == own;
        listed.workers[place].iter().copied().find(|worker| !of_own(worker))
    }
}

impl<'a> Listed<'a> {
    fn of(fleet: &Fleet<'a>) -> Self {
        let mut listed = Self { tasks: Names::with_capacity(0), workers: Vec::new() };
        let ours = fleet.snapshot.workers.iter().map(|(worker, entry)| (worker, &entry.task));
        let others = fleet.snapshot.others.iter().map(|(worker, entry)| (worker, &entry.task));
        for (worker, task) in ours.chain(others) {
            let Some(task) = task else { continue };
            let place = listed.tasks.place(task.as_str());
            if place == listed.workers.len() {
                listed.workers.push(Vec::new());
            }
            listed.workers[place].push(worker);
        }
        listed
    }
}
