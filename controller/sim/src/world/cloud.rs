//! EC2: tokens, capacity by offering, instances that the list shows late and forgets in the end.

use std::collections::{BTreeMap, BTreeSet};

use engine::ports::{CloudError, CloudInstance, CloudState, Gone, Launch};
use planner::{ClientToken, InstanceId, IntentId, Offering, Time};

use super::machine::{Ender, Machine};
use super::{BASE, World};
use crate::scenario::SECOND;

/// Instances of the whole account at most.
const ACCOUNT_LIMIT: usize = 60;

/// EC2's own books.
#[derive(Debug, Default)]
pub(crate) struct Region {
    /// What requests were prepared: the whole of each, its secret included, is its place here.
    pub(crate) prepared: Vec<Launch>,
    /// By token: the request, and what it gave.
    tokens: BTreeMap<ClientToken, (usize, BTreeSet<InstanceId>)>,
    /// How many instances of an offering there are to be had, and until when so few.
    pub(crate) shortages: BTreeMap<Offering, (u64, usize)>,
    /// How much its clock is ahead of the right one.
    pub(crate) offset: i64,
    /// By intent, how many times instances came of it.
    pub(crate) brought: BTreeMap<IntentId, u32>,
}

impl World {
    pub(crate) fn machine_of(&self, id: &InstanceId) -> Option<usize> {
        let at = usize::from_str_radix(id.as_str().strip_prefix("i-")?, 16).ok()?;
        (at < self.machines.len()).then_some(at)
    }

    /// By EC2's clock.
    pub(crate) fn cloud_time(&self, at: u64) -> Time {
        Time((BASE + at).saturating_add_signed(self.region.offset))
    }

    /// `RunInstances`.
    pub(crate) fn run_instances(&mut self, request: usize) -> Result<BTreeSet<InstanceId>, CloudError> {
        let launch = self.region.prepared[request].clone();
        if let Some((first, ids)) = self.region.tokens.get(&launch.token) {
            if *first != request {
                return Err(CloudError::Invalid("IdempotentParameterMismatch".to_owned()));
            }
            let ids = ids.clone();
            let ended =
                ids.iter().filter_map(|id| self.machine_of(id)).all(|at| self.machines[at].has_ended());
            if ended {
                return Err(CloudError::Gone("IdempotentInstanceTerminated".to_owned()));
            }
            return Ok(ids);
        }
        let live = self.machines.iter().filter(|machine| !machine.has_ended()).count();
        if live >= ACCOUNT_LIMIT {
            return Err(CloudError::NoCapacity("InstanceLimitExceeded".to_owned()));
        }
        let mut count = launch.count as usize;
        if let Some((until, left)) = self.region.shortages.get_mut(&launch.offering)
            && *until > self.now
        {
            if *left == 0 {
                return Err(CloudError::NoCapacity("InsufficientInstanceCapacity".to_owned()));
            }
            count = count.min(*left);
            *left -= count;
        }
        let ids: BTreeSet<InstanceId> = (0..count).map(|_| self.launch_machine(&launch)).collect();
        self.region.tokens.insert(launch.token.clone(), (request, ids.clone()));
        *self.region.brought.entry(launch.intent.clone()).or_default() += 1;
        self.judge.launches += ids.len() as u64;
        self.judge_launched(&launch, &ids);
        Ok(ids)
    }

    fn launch_machine(&mut self, launch: &Launch) -> InstanceId {
        let at = self.machines.len();
        let id = InstanceId(format!("i-{at:08x}"));
        let hidden = self.scenario.luck.invisible_for;
        let visible_at = self.now + if self.quiet { 300 } else { self.range(0, hidden) };
        self.tell(|| format!("{id} launched for {} by {}", launch.resource, launch.intent));
        let machine = Machine::new(at, id.clone(), launch, self.now, visible_at);
        self.machines.push(machine);
        self.begin_machine(at);
        id
    }

    /// `DescribeInstances` by our tag.
    pub(crate) fn describe(&self) -> BTreeMap<InstanceId, CloudInstance> {
        let now = self.now;
        let shown = self.machines.iter().filter(|machine| {
            machine.ours
                && now >= machine.visible_at
                && machine.ended_at.is_none_or(|ended| now < ended + machine.remembered_for)
        });
        shown.map(|machine| (machine.id.clone(), self.listed(machine))).collect()
    }

    fn listed(&self, machine: &Machine) -> CloudInstance {
        CloudInstance {
            resource: machine.resource.clone(),
            queue: machine.queue.clone(),
            intent: Some(machine.intent.clone()),
            offering: machine.offering.clone(),
            zone: Some("us-east-1a".to_owned()),
            state: machine.state,
            launched_at: self.cloud_time(machine.launched_at),
            kept: false,
            ended_at: None,
        }
    }

    /// `DescribeInstances` by id: what is gone, or not known.
    pub(crate) fn gone(&self, ids: &BTreeSet<InstanceId>) -> BTreeMap<InstanceId, Gone> {
        let gone = |id: &&InstanceId| {
            self.machine_of(id).is_none_or(|at| {
                let machine = &self.machines[at];
                self.now < machine.visible_at
                    || matches!(machine.state, CloudState::Terminated | CloudState::Stopped)
            })
        };
        let known = |id: &InstanceId| {
            let machine = self.machine_of(id).map(|at| &self.machines[at]);
            let machine = machine.filter(|machine| self.now >= machine.visible_at);
            Gone {
                ours: machine.is_some_and(|machine| machine.ours),
                by_spot: machine.is_some_and(|machine| machine.taken && machine.ended_at.is_some()),
            }
        };
        ids.iter().filter(gone).map(|id| (id.clone(), known(id))).collect()
    }

    /// `TerminateInstances`.
    pub(crate) fn terminate(&mut self, ids: &[InstanceId]) -> Result<(), CloudError> {
        for id in ids {
            match self.machine_of(id) {
                Some(at) if self.now >= self.machines[at].visible_at => {}
                Some(_) | None => return Err(CloudError::Gone("InvalidInstanceID.NotFound".to_owned())),
            }
        }
        for at in ids.iter().filter_map(|id| self.machine_of(id)).collect::<Vec<_>>() {
            self.end_machine(at, Ender::Controller);
        }
        Ok(())
    }

    /// EC2 ends it: no longer running at once, `terminated` some time later.
    pub(crate) fn end_machine(&mut self, at: usize, by: Ender) {
        if self.machines[at].has_ended() {
            return;
        }
        self.judge_end(at, by);
        let id = self.machines[at].id.clone();
        self.tell(|| format!("{id} ends: {by:?}"));
        self.power_gone(at, by);
        let machine = &mut self.machines[at];
        machine.state = if by == Ender::Stopped { CloudState::Stopping } else { CloudState::ShuttingDown };
        let lasts = self.range(SECOND, 30 * SECOND);
        self.after(lasts, move |world| {
            let now = world.now;
            let machine = &mut world.machines[at];
            let stopped = machine.state == CloudState::Stopping;
            machine.state = if stopped { CloudState::Stopped } else { CloudState::Terminated };
            machine.ended_at.get_or_insert(now);
        });
    }
}
