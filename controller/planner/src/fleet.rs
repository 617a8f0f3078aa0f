//! The snapshot, indexed once: every instance in its role, every pool and queue with its sums.

use std::collections::BTreeMap;

use crate::ids::{InstanceId, TaskId, Time};
use crate::plan::OrderKind;
use crate::policy::{Policy, Pool, Resource, SidecarMode};
use crate::snapshot::{Answer, Instance, Signal, Snapshot, Source, State};

/// Everything that the steps of a pass ask about.
pub(crate) struct Fleet<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) snapshot: &'a Snapshot,
    /// By instance id.
    pub(crate) members: Vec<Member<'a>>,
    /// In the budget's order.
    pub(crate) pools: Vec<PoolView<'a>>,
    /// In the budget's order.
    pub(crate) queues: Vec<QueueView<'a>>,
    /// Pools by resource.
    pub(crate) by_resource: BTreeMap<&'a str, usize>,
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
}

/// What an instance is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// On its way, and within its limit.
    Coming {
        deadline: Time,
    },
    /// It was to be ready by then.
    Overdue {
        deadline: Time,
    },
    Idle,
    Busy,
    Draining,
    Drained,
    /// Its gate is about to open again.
    Undraining,
    Retiring,
    Retired,
    Lost,
    /// Nothing to be told any more.
    Leaving,
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
    /// Tasks that wait and that no session holds yet; `None` if that is not known afresh.
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
            pools: Vec::with_capacity(policy.pools.len()),
            queues: Vec::new(),
            by_resource: BTreeMap::new(),
        };
        let by_queue = fleet.index_policy();
        let read_began = snapshot.freshness.get(&Source::Queues).map(|age| age.read_began_at);
        let mut held: Vec<Vec<&TaskId>> = vec![Vec::new(); fleet.queues.len()];
        for (id, instance) in &snapshot.instances {
            let owner = fleet.by_resource.get(instance.resource.as_str()).copied();
            let pool = owner.filter(|at| fleet.pools[*at].pool.queue == instance.queue);
            let queue = match pool {
                Some(at) => Some(fleet.pools[at].queue),
                None => by_queue.get(instance.queue.as_str()).copied(),
            };
            let role = role(policy, snapshot, instance);
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
            fleet.place(Member { id, instance, role, pool, decided: false }, queue);
        }
        fleet.count_waiting(held);
        fleet
    }

    fn index_policy(&mut self) -> BTreeMap<&'a str, usize> {
        let mut by_queue = BTreeMap::new();
        for (at, pool) in self.policy.pools.iter().enumerate() {
            let queue = *by_queue.entry(pool.queue.as_str()).or_insert_with(|| {
                self.queues.push(QueueView {
                    name: pool.queue.as_str(),
                    pools: Vec::new(),
                    listed: false,
                    waiting: None,
                    unattached: 0,
                    stray_capacity: 0,
                });
                self.queues.len() - 1
            });
            self.queues[queue].pools.push(at);
            self.by_resource.entry(pool.resource.as_str()).or_insert(at);
            self.pools.push(PoolView {
                pool,
                resource: self.policy.resources.get(&pool.resource),
                queue,
                counted: 0,
                in_flight: 0,
                expected: 0,
                staying: 0,
                coming: 0,
                undraining: 0,
                idle: Vec::new(),
                open: 0,
                drained: Vec::new(),
            });
        }
        by_queue
    }

    fn place(&mut self, member: Member<'a>, queue: Option<usize>) {
        let index = self.members.len();
        let coming = matches!(member.role, Role::Coming { .. });
        if let Some(queue) = queue {
            let queue = &mut self.queues[queue];
            let earlier = member.instance.launched_at < self.snapshot.started_at;
            if coming && earlier && member.instance.signal == Signal::None {
                queue.unattached += 1;
            }
            let serves = coming || member.role == Role::Idle;
            if member.pool.is_none() && serves && self.policy.sidecar == SidecarMode::Off {
                queue.stray_capacity += 1;
            }
        }
        if let Some(pool) = member.pool {
            let pool = &mut self.pools[pool];
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
                Role::Busy => pool.staying += 1,
                Role::Undraining => {
                    pool.undraining += 1;
                    pool.staying += 1;
                }
                Role::Drained => pool.drained.push(index),
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
        for (queue, mut held) in self.queues.iter_mut().zip(held) {
            let Some(tasks) = self.snapshot.queues.get(queue.name) else { continue };
            queue.listed = true;
            if fresh {
                held.sort_unstable();
                let waits = |task: &&TaskId| held.is_empty() || held.binary_search(task).is_err();
                queue.waiting = Some(u32::try_from(tasks.iter().filter(waits).count()).unwrap_or(u32::MAX));
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

/// The instant by which an instance on its way is to be ready: its limit counts from the launch, or,
/// if an older run launched it so long ago that nobody watched, from its adoption.
fn deadline(policy: &Policy, snapshot: &Snapshot, instance: &Instance) -> Time {
    let from_launch = instance.launched_at.after(policy.max_spin_up);
    if instance.launched_at >= snapshot.started_at || instance.adopted_at < from_launch {
        from_launch
    } else {
        instance.adopted_at.after(policy.max_spin_up)
    }
}

fn role(policy: &Policy, snapshot: &Snapshot, instance: &Instance) -> Role {
    let reachable = policy.sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
    match &instance.state {
        State::Requested | State::Pending | State::Booting { .. } => {
            let deadline = deadline(policy, snapshot, instance);
            if snapshot.now < deadline {
                Role::Coming { deadline }
            } else if instance.ready_at.is_some() {
                // It was up once: it may hold a task.
                Role::Busy
            } else {
                Role::Overdue { deadline }
            }
        }
        State::Idle => Role::Idle,
        State::Busy { .. } => Role::Busy,
        State::Drained if reachable && is_reopening(policy, snapshot, instance) => Role::Undraining,
        State::Draining if reachable => Role::Draining,
        State::Drained if reachable => Role::Drained,
        State::Retiring if reachable => Role::Retiring,
        State::Retired if policy.sidecar == SidecarMode::Required => Role::Retired,
        State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Terminating
        | State::Gone => Role::Leaving,
        State::Lost { .. } => Role::Lost,
    }
}

/// Told to open its gate again: not answered yet, or answered and not reported yet.
fn is_reopening(policy: &Policy, snapshot: &Snapshot, instance: &Instance) -> bool {
    match &instance.last_order {
        Some((order, sent_at, answer))
            if order.epoch == snapshot.epoch && order.kind == OrderKind::Undrain =>
        {
            match answer {
                Answer::Awaited => true,
                Answer::Done => snapshot.now < sent_at.after(policy.order_patience),
                Answer::RefusedBusy(_) | Answer::RefusedUnsure | Answer::RefusedStale => false,
            }
        }
        Some(_) | None => false,
    }
}
