//! The snapshot, indexed once: every instance in its role, every pool and queue with its sums.

use crate::ids::{InstanceId, ResourceName, TaskId, WorkerId};
use crate::names::Names;
use crate::policy::{Policy, Pool, Resource, SidecarMode};
use crate::role::Role;
use crate::snapshot::{Instance, Signal, Snapshot, Source, State};
use crate::tasks::coming_back;

/// Everything that the steps of a pass ask about.
pub(crate) struct Fleet<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) snapshot: &'a Snapshot,
    /// By instance id.
    pub(crate) members: Vec<Member<'a>>,
    /// Busy ones that were told something: they may have refused to drain.
    pub(crate) refusing: Vec<usize>,
    /// In the budget's order.
    pub(crate) pools: Vec<PoolView<'a>>,
    /// In the budget's order.
    pub(crate) queues: Vec<QueueView<'a>>,
    /// ClearML's entries of our prefix, in their order.
    pub(crate) entries: Vec<Entry<'a>>,
    resources: Names<'a>,
    queue_names: Names<'a>,
    ids: Names<'a>,
}

/// One of ClearML's workers, and the instance that its id names.
pub(crate) struct Entry<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) task: Option<&'a TaskId>,
    pub(crate) instance: &'a str,
    /// Its place among the members, if it is known.
    pub(crate) member: Option<usize>,
    /// What that member is to the plan.
    pub(crate) role: Option<Role>,
}

/// One instance.
pub(crate) struct Member<'a> {
    pub(crate) id: &'a InstanceId,
    pub(crate) instance: &'a Instance,
    pub(crate) role: Role,
    /// Its pool. A stray has none: the budget no longer has its resource, or has it for another queue.
    pub(crate) pool: Option<usize>,
    /// This pass has decided about it.
    pub(crate) decided: bool,
    /// The operator drains it: no capacity, whatever it is.
    pub(crate) asked: bool,
}

/// One line of the budget and what there is of it.
pub(crate) struct PoolView<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) resource: Option<&'a Resource>,
    pub(crate) queue: usize,
    /// Instances that count against the maximum, strays of this resource included.
    pub(crate) counted: u32,
    /// Instances that open launches may yet bring.
    pub(crate) in_flight: u32,
    /// Of those, the ones that come soon enough to be relied on.
    pub(crate) expected: u32,
    /// Instances that nothing has told to go.
    pub(crate) staying: u32,
    pub(crate) coming: u32,
    /// Instances that have not shown yet whether they boot, the overdue included.
    pub(crate) unready: u32,
    pub(crate) undraining: u32,
    /// Idle ones, and how many of them this pass leaves open.
    pub(crate) idle: Vec<usize>,
    pub(crate) open: u32,
    pub(crate) drained: Vec<usize>,
}

/// One queue of the budget.
pub(crate) struct QueueView<'a> {
    pub(crate) name: &'a str,
    pub(crate) pools: Vec<usize>,
    /// Whether the server lists it.
    pub(crate) listed: bool,
    /// Tasks that wait and that no session holds yet, and those about to come back from an interrupted
    /// instance; `None` if that is not known afresh.
    pub(crate) waiting: Option<u32>,
    /// Instances of an earlier run that no sidecar speaks for yet.
    pub(crate) unattached: u32,
    /// What strays can take: without a way in they go on serving.
    pub(crate) stray_capacity: u32,
}

impl<'a> Fleet<'a> {
    /// Reads the snapshot once.
    pub(crate) fn of(policy: &'a Policy, snapshot: &'a Snapshot) -> Self {
        let mut fleet = Self {
            policy,
            snapshot,
            members: Vec::with_capacity(snapshot.instances.len()),
            refusing: Vec::new(),
            pools: Vec::with_capacity(policy.pools.len()),
            queues: Vec::new(),
            entries: Vec::new(),
            resources: Names::with_capacity(policy.pools.len()),
            queue_names: Names::with_capacity(policy.pools.len()),
            ids: Names::with_capacity(snapshot.instances.len()),
        };
        fleet.index_policy();
        let read_began = snapshot.freshness.get(&Source::Queues).map(|age| age.read_began_at);
        let mut held: Vec<Vec<&TaskId>> = vec![Vec::new(); fleet.queues.len()];
        // Small enough to stay in the cache while ClearML's entries, in another order, are matched with members.
        let mut roles = Vec::with_capacity(snapshot.instances.len());
        for (id, instance) in &snapshot.instances {
            fleet.ids.place(id.as_str());
            let owner = fleet.pool_of(&instance.resource);
            let pool = owner.filter(|at| fleet.pools[*at].pool.queue == instance.queue);
            let queue = match pool {
                Some(at) => Some(fleet.pools[at].queue),
                None => fleet.queue_names.find(instance.queue.as_str()),
            };
            let gone = snapshot.proven_gone.contains(id);
            let role = if gone { Role::Leaving } else { Role::of(policy, snapshot, instance) };
            if let Some(at) = owner
                && instance.counts()
            {
                fleet.pools[at].counted += 1;
            }
            // A list that was read before the task left it still shows it.
            if let (Some(queue), State::Busy { task: Some(task) }, Some(began)) =
                (queue, &instance.state, read_began)
                && instance.since >= began
            {
                held[queue].push(task);
            }
            roles.push(role);
            let asked = snapshot.is_drained_by_operator(id, instance);
            fleet.place(Member { id, instance, role, pool, decided: false, asked }, queue);
        }
        fleet.count_waiting(held);
        fleet.index_workers(&roles);
        fleet
    }

    /// The instance of that id.
    pub(crate) fn member(&self, id: &str) -> Option<&Member<'a>> {
        self.ids.find(id).map(|at| &self.members[at])
    }

    /// The pool of a resource.
    pub(crate) fn pool_of(&self, resource: &ResourceName) -> Option<usize> {
        self.resources.find(resource.as_str())
    }

    fn index_workers(&mut self, roles: &[Role]) {
        let named = self.snapshot.workers.iter().filter_map(|(worker, entry)| {
            Some((worker, entry.task.as_ref(), worker.instance_text(&self.policy.prefix)?))
        });
        let named: Vec<_> = named.collect();
        let texts: Vec<&str> = named.iter().map(|(_, _, instance)| *instance).collect();
        let members = self.ids.find_all(&texts);
        let entry = |((worker, task, instance), member): (_, Option<usize>)| Entry {
            worker,
            task,
            instance,
            member,
            role: member.map(|at| roles[at]),
        };
        self.entries = named.into_iter().zip(members).map(entry).collect();
    }

    fn index_policy(&mut self) {
        for pool in &self.policy.pools {
            let queue = self.queue_names.place(pool.queue.as_str());
            if queue == self.queues.len() {
                self.queues.push(QueueView {
                    name: pool.queue.as_str(),
                    pools: Vec::new(),
                    listed: false,
                    waiting: None,
                    unattached: 0,
                    stray_capacity: 0,
                });
            }
            let at = self.resources.place(pool.resource.as_str());
            if at < self.pools.len() {
                // A resource stands in one queue only: the configuration has refused anything else.
                continue;
            }
            self.queues[queue].pools.push(at);
            self.pools.push(PoolView {
                pool,
                resource: self.policy.resources.get(&pool.resource),
                queue,
                counted: 0,
                in_flight: 0,
                expected: 0,
                staying: 0,
                coming: 0,
                unready: 0,
                undraining: 0,
                idle: Vec::new(),
                open: 0,
                drained: Vec::new(),
            });
        }
    }

    fn place(&mut self, member: Member<'a>, queue: Option<usize>) {
        let index = self.members.len();
        let coming = matches!(member.role, Role::Coming { .. });
        if member.role == Role::Busy && member.instance.last_order.is_some() {
            self.refusing.push(index);
        }
        if let Some(queue) = queue {
            let queue = &mut self.queues[queue];
            let earlier = member.instance.launched_at < self.snapshot.started_at;
            if coming && earlier && member.instance.signal == Signal::None {
                queue.unattached += 1;
            }
            let serves = (coming || member.role == Role::Idle) && !member.asked;
            if member.pool.is_none() && serves && self.policy.sidecar == SidecarMode::Off {
                queue.stray_capacity += 1;
            }
        }
        if let Some(pool) = member.pool.filter(|_| !member.asked) {
            let pool = &mut self.pools[pool];
            let unready = member.instance.is_coming() && member.instance.ready_at.is_none();
            pool.unready += u32::from(unready);
            match member.role {
                Role::Coming { .. } => {
                    pool.coming += 1;
                    pool.staying += 1;
                }
                Role::Idle => {
                    pool.idle.push(index);
                    pool.open += 1;
                    pool.staying += 1;
                }
                Role::Busy | Role::Finishing => pool.staying += 1,
                Role::Undraining => {
                    pool.undraining += 1;
                    pool.staying += 1;
                }
                Role::Drained => pool.drained.push(index),
                Role::Retired if fault!("undrain-after-retire") => pool.drained.push(index),
                Role::Overdue { .. }
                | Role::Draining
                | Role::Retiring
                | Role::Retired
                | Role::Lost
                | Role::Leaving => {}
            }
        }
        self.members.push(member);
    }

    fn count_waiting(&mut self, held: Vec<Vec<&TaskId>>) {
        let fresh = self.snapshot.is_fresh(Source::Queues);
        let coming_back = coming_back(self.policy, self.snapshot);
        for (queue, mut held) in self.queues.iter_mut().zip(held) {
            let Some(tasks) = self.snapshot.queues.get(queue.name) else { continue };
            queue.listed = true;
            if fresh {
                held.sort_unstable();
                let held: Vec<(u64, &TaskId)> =
                    held.into_iter().map(|task| (beginning(task), task)).collect();
                let waits = |task: &&TaskId| !is_held(&held, task);
                let waiting = u32::try_from(tasks.iter().filter(waits).count()).unwrap_or(u32::MAX);
                let more = coming_back.get(queue.name).copied().unwrap_or(0);
                queue.waiting = Some(waiting.saturating_add(more));
            }
        }
    }

    /// Tasks that wait for this member's queue, if that is known; for a stray nothing waits.
    pub(crate) fn demand_is_known(&self, member: &Member<'_>) -> bool {
        match member.pool {
            Some(pool) => self.queues[self.pools[pool].queue].waiting.is_some(),
            None => self.snapshot.is_fresh(Source::Queues),
        }
    }
}

/// A task id's first eight bytes; they sort as the ids do, and nearly always tell two apart.
fn beginning(task: &TaskId) -> u64 {
    let mut bytes = [0; 8];
    for (place, byte) in bytes.iter_mut().zip(task.as_str().bytes()) {
        *place = byte;
    }
    u64::from_be_bytes(bytes)
}

/// Whether the task is among these, which are sorted.
fn is_held(held: &[(u64, &TaskId)], task: &TaskId) -> bool {
    if held.is_empty() {
        return false;
    }
    let first = beginning(task);
    let from = held.partition_point(|(known, _)| *known < first);
    held[from..].iter().take_while(|(known, _)| *known == first).any(|(_, known)| *known == task)
}
