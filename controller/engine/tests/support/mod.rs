//! A small world on virtual time: queues, EC2 and sidecars in memory, with the faults that the loop must bear.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test support: each story uses its part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use engine::history::Event;
use engine::ports::{
    Admission, ClearMl, ClearMlError, Clock, Cloud, CloudError, CloudInstance, CloudState, Gate, Gone,
    Journal, JournalError, Launch, Prepared, Session, Sessions, Standing, TaskList, TaskScope, Workers,
};
use engine::{Engine, Intervals, Ports, Start};
use planner::{
    Answer, Boots, FleetId, InstanceId, Intent, IntentId, Market, NOT_RESPONSIVE, Offering, Operator, Order,
    OrderKind, OtherWorker, Placement, Policy, Pool, QueueName, REASON, Requeue, Resource, ResourceName,
    STOPPED_AS_ASKED, STOPPING, Seen, SidecarMode, TaskId, TaskRef, TaskStatus, TaskStep, Time, Word, Worker,
    WorkerId,
};
use tokio::sync::{Notify, watch};

/// Everything, behind one lock.
#[derive(Default)]
pub struct State {
    pub queues: BTreeMap<QueueName, Vec<TaskId>>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub others: BTreeMap<WorkerId, OtherWorker>,
    pub tasks: Vec<TaskRef>,
    /// Steps that went through, in their order.
    pub steps: Vec<(TaskId, TaskStep)>,
    /// Tasks whose steps are refused.
    pub refused: BTreeSet<TaskId>,
    /// Calls that were made to read tasks, and rows that they gave.
    pub scopes: Vec<TaskScope>,
    /// Instances that EC2 took back.
    pub taken: BTreeSet<InstanceId>,
    pub clearml_down: bool,
    pub instances: BTreeMap<InstanceId, CloudInstance>,
    /// Launched by token: the same token gives the same instances.
    pub by_token: BTreeMap<String, BTreeSet<InstanceId>>,
    /// The next launches go through, and their replies are lost.
    pub replies_to_lose: u32,
    /// EC2 does not show instances yet.
    pub invisible: bool,
    pub refuse_next: Option<CloudError>,
    pub launch_calls: Vec<Launch>,
    pub terminated: Vec<InstanceId>,
    pub sessions: BTreeMap<InstanceId, Session>,
    pub orders: Vec<(InstanceId, Order)>,
    pub task_reads: u32,
    pub intents: BTreeMap<IntentId, (Intent, Prepared)>,
    pub ready: BTreeMap<InstanceId, Time>,
    pub boots: BTreeMap<ResourceName, Boots>,
    /// Instances that nothing on record accounts for.
    pub strange: BTreeSet<InstanceId>,
    pub events: Vec<Event>,
    /// Taken by an agent just before the next order reaches it, and not reported before.
    pub taken_unseen: Option<TaskId>,
    /// The operator's will, as the journal keeps it.
    pub operator: Operator,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    began: tokio::time::Instant,
}

impl World {
    pub fn new() -> Self {
        Self { state: Arc::default(), changed: Arc::default(), began: tokio::time::Instant::now() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes sidecars' reports and lets the loop know.
    pub fn report(&self, change: impl FnOnce(&mut State, Time)) {
        let now = self.now();
        change(&mut self.state(), now);
        self.changed.notify_one();
    }

    /// An agent that is up and holds no task since `now`.
    pub fn idle_session(now: Time) -> Session {
        Session {
            connected: true,
            last_seen: now,
            boot_phase: "ready".to_owned(),
            boot_failure: None,
            gate: Gate::Idle,
            gate_since: now,
            alive: true,
            standing: Standing::Open,
            standing_since: now,
            last_answer: None,
            word: Word { settled_at: Some(now), at_work: Some(BTreeSet::new()), ..Word::default() },
        }
    }

    /// Lets time pass with a heartbeat of every connected sidecar.
    pub async fn beat(&self, seconds: u64) {
        for _ in 0..seconds {
            self.report(|state, now| {
                for session in state.sessions.values_mut().filter(|session| session.connected) {
                    session.last_seen = now;
                    session.word.settled_at = Some(now);
                }
            });
            pass(1).await;
        }
    }

    /// An agent pops the first task of a queue, and its gate holds it; the server is told that it runs.
    pub fn run_first(&self, queue: &str, id: &str) -> TaskId {
        let task = self.pop(queue);
        self.report(|state, now| {
            let worker = WorkerId(format!("dynamic:t4:g4dn.xlarge:{id}"));
            let session = state.sessions.get_mut(&InstanceId::from(id)).unwrap();
            session.gate = Gate::Busy(Some(task.clone()));
            session.gate_since = now;
            session.word.held.insert(task.clone());
            let known = state.tasks.iter_mut().find(|known| known.task == task).unwrap();
            known.status = TaskStatus::InProgress;
            known.status_changed = Some(now);
            known.last_worker = Some(worker);
        });
        task
    }

    /// The server pops the first task of a queue, and that is all.
    pub fn pop(&self, queue: &str) -> TaskId {
        self.state().queues.get_mut(&QueueName::from(queue)).unwrap().remove(0)
    }

    /// The machine dies at once, and its session breaks.
    pub fn kill(&self, id: &str) {
        self.report(|state, now| {
            let id = InstanceId::from(id);
            state.instances.get_mut(&id).unwrap().state = CloudState::Terminated;
            let session = state.sessions.get_mut(&id).unwrap();
            session.connected = false;
            session.last_seen = now;
        });
    }

    /// A task as the server has it.
    pub fn task(&self, task: &TaskId) -> TaskRef {
        self.state().tasks.iter().find(|known| known.task == *task).unwrap().clone()
    }

    /// All instances boot and attach.
    pub fn attach_all(&self) {
        self.report(|state, now| {
            for (id, instance) in &mut state.instances {
                if instance.state == CloudState::Pending {
                    instance.state = CloudState::Running;
                    state.sessions.insert(id.clone(), Self::idle_session(now));
                }
            }
        });
    }

    pub fn enqueue(&self, queue: &str, tasks: &[&str]) {
        let now = self.now();
        let mut state = self.state();
        state.tasks.extend(tasks.iter().map(|task| TaskRef {
            task: TaskId::from(*task),
            status: TaskStatus::Queued,
            status_changed: Some(now),
            queue: Some(queue.into()),
            ..TaskRef::default()
        }));
        state.queues.entry(queue.into()).or_default().extend(tasks.iter().map(|task| TaskId::from(*task)));
    }

    pub fn live(&self) -> usize {
        self.state().instances.values().filter(|instance| instance.state != CloudState::Terminated).count()
    }

    /// Starts a run of the loop; dropping the handle's task is a crash.
    pub async fn start(&self, policy: Policy, epoch: u64) -> Run {
        let ports = Ports {
            clearml: Arc::new(self.clone()),
            cloud: Arc::new(self.clone()),
            sessions: Arc::new(self.clone()),
            journal: Arc::new(self.clone()),
            clock: self.clone(),
        };
        let (policy_sender, policy) = watch::channel(Arc::new(policy));
        let (lease_sender, lease) = watch::channel(true);
        let (interval_sender, intervals) = watch::channel(Intervals {
            queues: Duration::from_secs(5),
            workers: Duration::from_secs(10),
            cloud: Duration::from_secs(30),
        });
        let (operator_sender, operator) = watch::channel(Arc::new(self.state().operator.clone()));
        let start =
            Start { policy, operator, intervals, epoch, next_intent: 1, journal_is_new: false, lease };
        let engine = Engine::new(ports, start).await.unwrap();
        let published = engine.published();
        let task = tokio::spawn(engine.run(pending()));
        Run {
            task,
            published,
            policy: policy_sender,
            operator: operator_sender,
            intervals: interval_sender,
            lease: lease_sender,
        }
    }
}

/// A run of the loop.
pub struct Run {
    pub task: tokio::task::JoinHandle<()>,
    pub published: watch::Receiver<Arc<engine::Published>>,
    pub policy: watch::Sender<Arc<Policy>>,
    pub operator: watch::Sender<Arc<Operator>>,
    pub intervals: watch::Sender<Intervals>,
    pub lease: watch::Sender<bool>,
}

impl Run {
    /// The controller dies here and now.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// One queue, one pool.
pub fn policy(maximum: u32) -> Policy {
    let offering =
        Offering { instance_type: "g4dn.xlarge".into(), placement: Placement::Any, market: Market::OnDemand };
    Policy {
        fleet: FleetId::from("fleet"),
        prefix: "dynamic".to_owned(),
        pools: vec![Pool { queue: "gpu".into(), resource: "t4".into(), maximum }],
        resources: [(ResourceName::from("t4"), Resource { offerings: vec![offering], blocked: None })].into(),
        max_idle: Duration::from_secs(60),
        max_spin_up: Duration::from_secs(600),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(15),
        launches_per_minute: 600,
        shutdown: None,
        requeue: Requeue::default(),
    }
}

/// Lets virtual time pass.
pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl Clock for World {
    fn now(&self) -> Time {
        Time(1_000_000).after(self.began.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl ClearMl for World {
    async fn queues(&self) -> Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError> {
        self.answer(|state| state.queues.clone())
    }

    async fn workers(&self) -> Result<Workers, ClearMlError> {
        self.answer(|state| Workers { ours: state.workers.clone(), others: state.others.clone() })
    }

    async fn tasks(&self, scope: &TaskScope) -> Result<TaskList, ClearMlError> {
        self.answer(|state| {
            state.task_reads += 1;
            state.scopes.push(scope.clone());
            let wanted = |task: &&TaskRef| {
                let lately = scope.queued_since.is_none_or(|since| task.status_changed >= Some(since));
                task.status == TaskStatus::InProgress
                    || task.marks.tagged
                    || (task.status == TaskStatus::Queued && lately)
                    || scope.ids.contains(&task.task)
            };
            let tasks = state.tasks.iter().filter(wanted).cloned().collect();
            TaskList { tasks, server_ahead_ms: Some(0) }
        })
    }

    async fn step(&self, task: &TaskId, seen: &Seen, step: &TaskStep) -> Result<(), ClearMlError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = self.now();
        self.answer(|state| take(state, task, seen, step, now))?
    }

    async fn unregister(&self, worker: &WorkerId) -> Result<(), ClearMlError> {
        self.answer(|state| {
            state.workers.remove(worker);
        })
    }
}

fn take(state: &mut State, id: &TaskId, seen: &Seen, step: &TaskStep, now: Time) -> Result<(), ClearMlError> {
    let refused = |why: &str| Err(ClearMlError::Refused(why.to_owned()));
    if state.refused.contains(id) {
        return refused("by the test");
    }
    let task = state.tasks.iter_mut().find(|known| known.task == *id).unwrap();
    if task.seen() != *seen {
        return refused("it has changed");
    }
    match step {
        TaskStep::Note { cause, instance, aborting } => {
            task.marks.tagged = true;
            task.marks.cause = Some(*cause);
            task.marks.instance = Some(instance.clone());
            task.marks.aborting = *aborting;
            task.marks.stopped_at = None;
        }
        TaskStep::Abort => {
            STOPPING.clone_into(&mut task.status_message);
            task.status_reason = format!("{REASON}interrupted");
        }
        TaskStep::Stop { cause, instance, as_asked } => {
            task.status = TaskStatus::Stopped;
            task.status_changed = Some(now);
            task.status_message =
                if *as_asked { STOPPED_AS_ASKED.to_owned() } else { NOT_RESPONSIVE.to_owned() };
            task.status_reason = cause.reason(instance);
        }
        TaskStep::Claim { attempt, stopped_at, reset } => {
            task.marks.attempts = *attempt;
            task.marks.stopped_at = *stopped_at;
            task.marks.resetting = reset.then_some(*attempt);
        }
        TaskStep::Reset => {
            task.status = TaskStatus::Created;
            task.status_changed = Some(now);
        }
        TaskStep::Enqueue { queue, why: _ } => {
            let entries = state.queues.entry(queue.clone()).or_default();
            if entries.contains(id) {
                return refused("it waits already");
            }
            entries.insert(0, id.clone());
            task.status = TaskStatus::Queued;
            task.status_changed = Some(now);
        }
        TaskStep::Release { attempts } => {
            task.marks = planner::Marks { attempts: *attempts, ..planner::Marks::default() };
        }
    }
    state.steps.push((id.clone(), step.clone()));
    Ok(())
}

impl World {
    fn answer<T>(&self, give: impl FnOnce(&mut State) -> T) -> Result<T, ClearMlError> {
        let mut state = self.state();
        if state.clearml_down {
            return Err(ClearMlError::Unavailable("connection refused".to_owned()));
        }
        Ok(give(&mut state))
    }
}

impl Cloud for World {
    async fn describe(&self) -> Result<BTreeMap<InstanceId, CloudInstance>, CloudError> {
        let state = self.state();
        Ok(if state.invisible { BTreeMap::new() } else { state.instances.clone() })
    }

    async fn gone(&self, ids: &BTreeSet<InstanceId>) -> Result<BTreeMap<InstanceId, Gone>, CloudError> {
        let state = self.state();
        let live = |id: &&InstanceId| {
            state.instances.get(*id).is_none_or(|instance| instance.state == CloudState::Terminated)
        };
        let gone = |id: &InstanceId| Gone {
            ours: state.instances.contains_key(id),
            by_spot: state.taken.contains(id),
        };
        Ok(ids.iter().filter(live).map(|id| (id.clone(), gone(id))).collect())
    }

    fn prepare(&self, launch: &Launch) -> Result<Prepared, CloudError> {
        let Launch { intent, resource, queue, offering, count, token } = launch;
        let place = offering.instance_type.as_str();
        let request = format!("{intent}|{resource}|{queue}|{place}|{count}|{token}");
        Ok(Prepared { request, secret: vec![7; 32] })
    }

    async fn launch(&self, request: &Prepared) -> Result<BTreeSet<InstanceId>, CloudError> {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let parts: Vec<&str> = request.request.split('|').collect();
        let [intent, resource, queue, kind, count, token] = parts[..] else {
            panic!("a request of six parts")
        };
        let count: u32 = count.parse().unwrap();
        let offering =
            Offering { instance_type: kind.into(), placement: Placement::Any, market: Market::OnDemand };
        let now = self.now();
        let mut state = self.state();
        state.launch_calls.push(Launch {
            intent: intent.into(),
            resource: resource.into(),
            queue: queue.into(),
            offering: offering.clone(),
            count,
            token: token.into(),
        });
        if let Some(error) = state.refuse_next.take() {
            return Err(error);
        }
        let ids = match state.by_token.get(token) {
            Some(ids) => ids.clone(),
            None => {
                let first = state.instances.len();
                let ids: BTreeSet<InstanceId> =
                    (first..first + count as usize).map(|n| InstanceId(format!("i-{n:04}"))).collect();
                for id in &ids {
                    let instance = CloudInstance {
                        resource: resource.into(),
                        queue: queue.into(),
                        intent: Some(intent.into()),
                        offering: offering.clone(),
                        zone: Some("us-east-1a".to_owned()),
                        state: CloudState::Pending,
                        launched_at: now,
                        kept: false,
                        ended_at: None,
                    };
                    state.instances.insert(id.clone(), instance);
                }
                state.by_token.insert(token.to_owned(), ids.clone());
                ids
            }
        };
        if state.replies_to_lose > 0 {
            state.replies_to_lose -= 1;
            return Err(CloudError::Other("the connection was reset".to_owned()));
        }
        Ok(ids)
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        let mut state = self.state();
        for id in ids {
            state.terminated.push(id.clone());
            state.sessions.remove(id);
            if let Some(instance) = state.instances.get_mut(id) {
                instance.state = CloudState::Terminated;
            }
        }
        Ok(())
    }
}

impl Sessions for World {
    fn sessions(&self) -> BTreeMap<InstanceId, Session> {
        self.state().sessions.clone()
    }

    fn send(&self, instance: &InstanceId, order: Order) -> bool {
        let now = self.now();
        let mut state = self.state();
        state.orders.push((instance.clone(), order));
        let taken = state.taken_unseen.take();
        let Some(session) = state.sessions.get_mut(instance).filter(|session| session.connected) else {
            return false;
        };
        if let Some(task) = taken {
            session.gate = Gate::Busy(Some(task));
        }
        let answer = match (&session.gate, order.kind) {
            (Gate::Busy(_), OrderKind::Finish) => {
                session.standing = Standing::Finishing;
                Answer::Done
            }
            (Gate::Busy(task), OrderKind::Drain) => Answer::RefusedBusy(task.clone()),
            (_, OrderKind::Drain | OrderKind::Finish) => {
                session.standing = Standing::Drained;
                Answer::Done
            }
            (_, OrderKind::Undrain) => {
                session.standing = Standing::Open;
                Answer::Done
            }
            (_, OrderKind::Retire) => {
                session.standing = Standing::Retired;
                session.standing_since = now;
                Answer::Done
            }
        };
        session.last_answer = Some((order, answer));
        drop(state);
        self.changed.notify_one();
        true
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn admit(&self, _admission: Admission) {}
}

impl Journal for World {
    async fn begin(&self, id: &IntentId, intent: &Intent, request: &Prepared) -> Result<(), JournalError> {
        self.state().intents.insert(id.clone(), (intent.clone(), request.clone()));
        Ok(())
    }

    async fn answer(&self, id: &IntentId, instances: &BTreeSet<InstanceId>) -> Result<(), JournalError> {
        if let Some((intent, _)) = self.state().intents.get_mut(id) {
            intent.answered = Some(instances.clone());
        }
        Ok(())
    }

    async fn postpone(&self, id: &IntentId, retry_at: Time) -> Result<(), JournalError> {
        if let Some((intent, _)) = self.state().intents.get_mut(id) {
            intent.retry_at = retry_at;
        }
        Ok(())
    }

    async fn close(&self, id: &IntentId) -> Result<(), JournalError> {
        self.state().intents.remove(id);
        Ok(())
    }

    fn ready_marks(&self) -> BTreeMap<InstanceId, Time> {
        self.state().ready.clone()
    }

    async fn mark_ready(&self, instance: &InstanceId, at: Time) -> Result<(), JournalError> {
        self.state().ready.insert(instance.clone(), at);
        Ok(())
    }

    fn knows(&self, instance: &InstanceId, _intent: Option<&IntentId>) -> bool {
        !self.state().strange.contains(instance)
    }

    fn boots(&self) -> BTreeMap<ResourceName, Boots> {
        self.state().boots.clone()
    }

    async fn note_boots(&self, resource: &ResourceName, boots: &Boots) -> Result<(), JournalError> {
        self.state().boots.insert(resource.clone(), boots.clone());
        Ok(())
    }

    async fn open(&self) -> Result<BTreeMap<IntentId, (Intent, Prepared)>, JournalError> {
        Ok(self.state().intents.clone())
    }

    fn note(&self, event: Event) {
        self.state().events.push(event);
    }
}
