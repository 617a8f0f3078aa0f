//! A small fleet that lives: machines that boot, agents that pop, sidecars that obey, refuse or fall silent,
//! an EC2 whose replies get lost, and lists that are a moment old. It knows what a controller can't.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use planner::{
    Action, Answer, ClientToken, Freshness, Instance, InstanceId, Intent, IntentId, Pause, Plan, Policy,
    QueueName, ResourceName, SidecarMode, Snapshot, Source, TaskId, TaskRef, TerminateReason, Time, Word,
    Worker, WorkerId,
};

use crate::machine::{Gate, LEASE, Machine, Memory};
use crate::text::NOW;

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) dice: Dice,
    pub(crate) faults: bool,
    pub(crate) seen: Snapshot,
    pub(crate) waiting: BTreeMap<QueueName, VecDeque<TaskId>>,
    pub(crate) done: BTreeSet<TaskId>,
    pub(crate) asked: u32,
    machines: BTreeMap<InstanceId, Machine>,
    ghosts: BTreeSet<WorkerId>,
    calls: BTreeMap<ClientToken, BTreeSet<InstanceId>>,
}

impl World {
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        let waiting = policy.queues().into_iter().map(|queue| (queue.clone(), VecDeque::new())).collect();
        let seen = Snapshot {
            now: NOW,
            started_at: NOW,
            lease_held: true,
            epoch: 1,
            next_intent: 1,
            ..Snapshot::default()
        };
        Self {
            policy,
            dice: Dice(seed),
            faults: true,
            seen,
            waiting,
            done: BTreeSet::new(),
            asked: 0,
            machines: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            calls: BTreeMap::new(),
        }
    }

    pub(crate) fn enqueue(&mut self, queue: &QueueName) {
        self.asked += 1;
        let task = TaskId(format!("t{}", self.asked));
        self.waiting.get_mut(queue).unwrap().push_back(task);
    }

    /// The controller is killed and starts again: its memory is what the journal kept.
    pub(crate) fn restart(&mut self) {
        let now = self.seen.now;
        self.seen.epoch += 1;
        self.seen.started_at = now;
        self.seen.next_intent = 1;
        self.seen.freshness.clear();
        self.seen.unavailable.clear();
        self.seen.proven_gone.clear();
        for machine in self.machines.values_mut() {
            machine.memory = Memory::blank();
            machine.attached_at = Some(now.after(Duration::from_millis(self.dice.below(20_000))));
            machine.inbox.clear();
        }
    }

    /// The operator changes his mind, now and then.
    pub(crate) fn wish(&mut self) {
        let now = self.seen.now;
        let places = self.machines.len() as u64;
        if places > 0 && self.dice.percent(5) {
            let place = usize::try_from(self.dice.below(places)).unwrap();
            let id = self.machines.keys().nth(place).unwrap().clone();
            if self.seen.operator.drains.remove(&id).is_none() {
                self.seen.operator.drains.insert(id, now);
            }
        }
        if self.dice.percent(2) {
            self.seen.operator.paused = match self.seen.operator.paused {
                None => Some(Pause { since: now, reason: None }),
                Some(_) => None,
            };
        }
    }

    /// Machines that run.
    pub(crate) fn alive(&self) -> usize {
        self.machines.values().filter(|machine| machine.ended_at.is_none()).count()
    }

    pub(crate) fn alive_of(&self, resource: &ResourceName) -> usize {
        let of = |machine: &&Machine| machine.ended_at.is_none() && machine.resource == *resource;
        self.machines.values().filter(of).count()
    }

    /// Lets time pass for the machines.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.seen.now = self.seen.now.after(span);
        let now = self.seen.now;
        let Self { machines, dice, faults, waiting, done, policy, ghosts, .. } = self;
        for (id, machine) in machines.iter_mut().filter(|(_, machine)| machine.ended_at.is_none()) {
            if machine.up_at.is_none_or(|at| at > now) {
                continue;
            }
            if *faults && dice.percent(1) && machine.silent_since.is_none() {
                machine.silent_since = Some(now);
            } else if machine.silent_since.is_some() && (!*faults || dice.percent(5)) {
                machine.silent_since = None;
            }
            if machine.silent_since.is_none() && machine.attached_at.is_none_or(|at| at <= now) {
                for order in std::mem::take(&mut machine.inbox) {
                    machine.obey(order, now, dice.percent(10) && *faults);
                }
            }
            if let Some((task, until)) = &machine.task
                && *until <= now
            {
                assert!(done.insert(task.clone()), "{task} ran twice");
                (machine.task, machine.task_at) = (None, now);
                if machine.gate == Gate::Finishing {
                    (machine.gate, machine.gate_at) = (Gate::Drained, now);
                }
            }
            let lease = machine.silent_since.is_none_or(|since| now.since(since) < LEASE);
            let polls = machine.task.is_none() && machine.gate == Gate::Open && lease && dice.percent(60);
            if polls && let Some(task) = waiting.get_mut(&machine.queue).and_then(VecDeque::pop_front) {
                let span = Duration::from_millis(1 + dice.below(90_000));
                (machine.task, machine.task_at) = (Some((task, now.after(span))), now);
            }
            let idle = now.since(machine.task_at.max(machine.up_at.unwrap()));
            let by_itself = match policy.sidecar {
                SidecarMode::Required => {
                    machine.gate == Gate::Retired && now.since(machine.gate_at) >= 2 * LEASE
                }
                SidecarMode::Off => machine.task.is_none() && idle >= policy.max_idle,
            };
            if by_itself {
                assert_eq!(machine.task, None, "{id} powered off at work");
                machine.ended_at = Some(now);
                ghosts.insert(machine.worker(policy, id));
            }
        }
    }

    /// Reads a source, or fails to.
    pub(crate) fn read(&mut self, source: Source) {
        let now = self.seen.now;
        if self.faults && self.dice.percent(10) {
            if let Some(age) = self.seen.freshness.get_mut(&source) {
                age.stale_since.get_or_insert(now);
            }
            return;
        }
        self.seen.freshness.insert(source, Freshness { read_began_at: now, stale_since: None });
        let alive = self.machines.iter().filter(|(_, machine)| machine.ended_at.is_none());
        match source {
            Source::Queues => {
                let lists = self
                    .waiting
                    .iter()
                    .map(|(queue, tasks)| (queue.clone(), tasks.iter().cloned().collect()));
                self.seen.queues = lists.collect();
            }
            Source::Workers => {
                let up = alive.filter(|(_, machine)| machine.up_at.is_some_and(|at| at <= now));
                let listed = up.map(|(id, machine)| {
                    let task = machine.task.as_ref().map(|(task, _)| task.clone());
                    (machine.worker(&self.policy, id), Worker { task })
                });
                let ghosts = self.ghosts.iter().map(|worker| (worker.clone(), Worker { task: None }));
                self.seen.workers = listed.chain(ghosts).collect();
            }
            Source::Tasks => {
                let held = alive.filter_map(|(id, machine)| {
                    let (task, _) = machine.task.clone()?;
                    let last_worker = Some(machine.worker(&self.policy, id));
                    Some(TaskRef { task, last_worker, ..TaskRef::default() })
                });
                self.seen.running = held.collect();
            }
            Source::Cloud => {
                for machine in self.machines.values_mut().filter(|machine| machine.visible_at <= now) {
                    machine.memory.adopted_at.get_or_insert(now);
                    machine.memory.listed = true;
                }
            }
        }
    }

    /// What the controller knows now.
    pub(crate) fn look(&mut self) -> &Snapshot {
        let now = self.seen.now;
        self.seen.instances.clear();
        for (id, machine) in &mut self.machines {
            let Some(adopted_at) = machine.memory.adopted_at else { continue };
            let listed = self.seen.workers.get(&machine.worker(&self.policy, id));
            let was_ready = machine.memory.ready_at.is_some();
            let (state, since, signal) = machine.merged(&self.policy, listed, adopted_at, now);
            if !was_ready && machine.memory.ready_at.is_some() {
                self.seen.boots.entry(machine.resource.clone()).or_default().succeed();
            }
            if std::mem::discriminant(&machine.memory.state) != std::mem::discriminant(&state) || since != now
            {
                machine.memory.since = since;
            }
            machine.memory.state = state.clone();
            let instance = Instance {
                resource: machine.resource.clone(),
                queue: machine.queue.clone(),
                offering: machine.offering.clone(),
                zone: machine.memory.listed.then(|| "zone-1".to_owned()),
                worker: machine.worker(&self.policy, id),
                intent: Some(machine.intent.clone()),
                kept: false,
                accounted: true,
                launched_at: machine.launched_at,
                adopted_at,
                ready_at: machine.memory.ready_at,
                state,
                since: machine.memory.since,
                signal,
                finishing: machine.gate == Gate::Finishing,
                last_order: machine.memory.order.clone(),
                word: Word::default(),
            };
            self.seen.instances.insert(id.clone(), instance);
        }
        &self.seen
    }

    /// Does what the plan says, or fails at it.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        let now = self.seen.now;
        for action in &plan.actions {
            match action {
                Action::Launch { intent, resource, queue, offering, count, token } => {
                    let note = Intent {
                        resource: resource.clone(),
                        queue: queue.clone(),
                        offering: offering.clone(),
                        count: *count,
                        token: token.clone(),
                        created_at: now,
                        retry_at: now,
                        answered: None,
                    };
                    if !self.seen.intents.contains_key(intent) {
                        self.seen.next_intent += 1;
                        self.seen.launches.push((now, *count));
                        self.seen.intents.insert(intent.clone(), note);
                    }
                    self.call(intent);
                }
                Action::Settle { intent } => {
                    self.seen.intents.remove(intent);
                }
                Action::Send { instance, order } => {
                    let lost = self.faults && self.dice.percent(10);
                    let machine = self.machines.get_mut(instance).unwrap();
                    machine.memory.order = Some((*order, now, Answer::Awaited));
                    if !lost {
                        machine.inbox.push(*order);
                    }
                }
                Action::Terminate { instances, reason } => {
                    for id in instances {
                        let machine = self.machines.get_mut(id).unwrap();
                        if *reason == TerminateReason::NeverReady {
                            let boots = self.seen.boots.entry(machine.resource.clone()).or_default();
                            boots.fail(now, "never ready".to_owned());
                        }
                        assert_eq!(machine.task, None, "{id} was killed at work as {reason}");
                        machine.ended_at.get_or_insert(now);
                        self.ghosts.insert(machine.worker(&self.policy, id));
                    }
                }
                Action::Unregister { worker } => {
                    self.ghosts.remove(worker);
                    self.seen.workers.remove(worker);
                }
                Action::Task { task, step, .. } => panic!("no task is in trouble here, {task}: {step:?}"),
            }
        }
        for id in &plan.look_up {
            if self.machines.get(id).is_none_or(|machine| machine.ended_at.is_some()) {
                self.seen.proven_gone.insert(id.clone());
            }
        }
    }

    /// RunInstances: the same token never launches twice; now and then nothing, too little, or no reply.
    fn call(&mut self, name: &IntentId) {
        let now = self.seen.now;
        let note = self.seen.intents[name].clone();
        if self.faults && self.dice.percent(10) && !self.calls.contains_key(&note.token) {
            self.seen.intents.remove(name);
            let until = now.after(Duration::from_secs(30));
            self.seen.unavailable.insert(note.offering, (until, "InsufficientInstanceCapacity".to_owned()));
            return;
        }
        let never_arrives = self.faults && self.dice.percent(10);
        if !self.calls.contains_key(&note.token) && !never_arrives {
            let given =
                if self.faults { 1 + self.dice.below(u64::from(note.count)) } else { u64::from(note.count) };
            let ids = (0..given).map(|_| self.boot(name, &note, now)).collect();
            self.calls.insert(note.token.clone(), ids);
        }
        let written = self.seen.intents.get_mut(name).unwrap();
        match self.calls.get(&note.token) {
            Some(ids) if !(self.faults && self.dice.percent(20)) => {
                for id in ids {
                    self.machines.get_mut(id).unwrap().memory.adopted_at.get_or_insert(now);
                }
                written.answered = Some(ids.clone());
            }
            Some(_) | None => written.retry_at = now.after(Duration::from_secs(5)),
        }
    }

    fn boot(&mut self, intent: &IntentId, note: &Intent, now: Time) -> InstanceId {
        let id = InstanceId(format!("i-{:04}", self.machines.len()));
        let dud = self.faults && self.dice.percent(10);
        let up_at = (!dud).then(|| now.after(Duration::from_millis(5_000 + self.dice.below(100_000))));
        let machine = Machine {
            resource: note.resource.clone(),
            queue: note.queue.clone(),
            offering: note.offering.clone(),
            intent: intent.clone(),
            launched_at: now,
            visible_at: now.after(Duration::from_millis(self.dice.below(20_000))),
            up_at,
            ended_at: None,
            gate: Gate::Open,
            gate_at: now,
            task: None,
            task_at: now,
            newest: (0, 0),
            inbox: Vec::new(),
            attached_at: None,
            silent_since: None,
            memory: Memory::blank(),
        };
        self.machines.insert(id.clone(), machine);
        id
    }
}
