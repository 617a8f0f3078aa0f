//! The five ports of the engine, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::ports::{
    Admission, ClearMl, ClearMlError, Clock, Cloud, CloudError, CloudInstance, Gone, Journal, JournalError,
    Launch, Prepared, Session, Sessions, TaskList, TaskScope, Workers,
};
use planner::{
    Boots, InstanceId, Intent, IntentId, Order, QueueName, ResourceName, Seen, Source, TaskId, TaskStep,
    Time, WorkerId,
};
use tokio::sync::Notify;

use crate::world::calls::{Failure, Slot, To};
use crate::world::table::order_to;
use crate::world::{BASE, World};

/// The world, as a run of the controller reaches it.
#[derive(Clone)]
pub(crate) struct Ports {
    world: Arc<Mutex<World>>,
    clock: Arc<AtomicU64>,
    offset: i64,
    changed: Arc<Notify>,
}

impl Ports {
    pub(crate) fn new(world: &Arc<Mutex<World>>) -> Self {
        let locked = world.lock().unwrap_or_else(PoisonError::into_inner);
        let (clock, offset) = (locked.clock(), locked.controller.offset);
        let changed = Arc::clone(&locked.sessions_changed);
        drop(locked);
        Self { world: Arc::clone(world), clock, offset, changed }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T: Send + 'static>(
        &self,
        to: To,
        name: &'static str,
        failed: fn(Failure) -> T,
        effect: impl FnMut(&mut World) -> T + Send + 'static,
    ) -> Slot<T> {
        let slot = Slot::new();
        self.world().begin_call(to, name, slot.clone(), failed, effect);
        slot
    }

    async fn ask<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnMut(&mut World) -> Result<T, ClearMlError> + Send + 'static,
    ) -> Result<T, ClearMlError> {
        let failed = |_| Err(ClearMlError::Unavailable("no answer".to_owned()));
        self.call(To::ClearMl, name, failed, effect).await
    }

    async fn read<T: Send + 'static>(
        &self,
        source: Source,
        name: &'static str,
        effect: impl FnMut(&mut World) -> Result<T, ClearMlError> + Send + 'static,
    ) -> Result<T, ClearMlError> {
        let began = self.clock.load(Ordering::Relaxed);
        let answer = self.ask(name, effect).await;
        self.world().judge_read(source, began, answer.is_ok());
        answer
    }

    async fn cloud<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnMut(&mut World) -> Result<T, CloudError> + Send + 'static,
    ) -> Result<T, CloudError> {
        let failed = |failure| match failure {
            Failure::Lost => Err(CloudError::Other("no answer".to_owned())),
            Failure::Throttled => Err(CloudError::Throttled("RequestLimitExceeded".to_owned())),
        };
        self.call(To::Cloud, name, failed, effect).await
    }

    async fn note<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnMut(&mut World) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let failed = |_| Err(JournalError("disk I/O error".to_owned()));
        self.call(To::Journal, name, failed, effect).await
    }
}

impl Clock for Ports {
    fn now(&self) -> Time {
        Time((BASE + self.clock.load(Ordering::Relaxed)).saturating_add_signed(self.offset))
    }

    async fn sleep(&self, duration: Duration) {
        let slot = Slot::new();
        let delay = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
        self.world().wake_after(delay, slot.clone());
        slot.await;
    }
}

impl ClearMl for Ports {
    async fn queues(&self) -> Result<BTreeMap<QueueName, Vec<TaskId>>, ClearMlError> {
        self.read(Source::Queues, "queues", |world| Ok(world.list_queues())).await
    }

    async fn workers(&self) -> Result<Workers, ClearMlError> {
        let listed = |world: &mut World| Ok(Workers { ours: world.list_workers(), ..Workers::default() });
        self.read(Source::Workers, "workers", listed).await
    }

    async fn tasks(&self, scope: &TaskScope) -> Result<TaskList, ClearMlError> {
        let (scope, offset) = (scope.clone(), self.offset);
        self.read(Source::Tasks, "tasks", move |world| Ok(world.list_tasks(&scope, offset))).await
    }

    async fn step(&self, task: &TaskId, seen: &Seen, step: &TaskStep) -> Result<(), ClearMlError> {
        let (task, seen, step) = (task.clone(), seen.clone(), step.clone());
        self.ask("step", move |world| world.take_step(&task, &seen, &step)).await
    }

    async fn unregister(&self, worker: &WorkerId) -> Result<(), ClearMlError> {
        let worker = worker.clone();
        self.ask("unregister", move |world| {
            world.judge_unregister(&worker);
            world.server.workers.remove(&worker);
            Ok(())
        })
        .await
    }
}

impl Cloud for Ports {
    async fn describe(&self) -> Result<BTreeMap<InstanceId, CloudInstance>, CloudError> {
        let began = self.clock.load(Ordering::Relaxed);
        let answer = self.cloud("describe", |world| Ok(world.describe())).await;
        self.world().judge_read(Source::Cloud, began, answer.is_ok());
        answer
    }

    async fn gone(&self, ids: &BTreeSet<InstanceId>) -> Result<BTreeMap<InstanceId, Gone>, CloudError> {
        let ids = ids.clone();
        self.cloud("gone", move |world| Ok(world.gone(&ids))).await
    }

    /// The request is its place in EC2's books; another secret makes it another request.
    fn prepare(&self, launch: &Launch) -> Result<Prepared, CloudError> {
        let mut world = self.world();
        world.region.prepared.push(launch.clone());
        Ok(Prepared { request: (world.region.prepared.len() - 1).to_string(), secret: vec![0; 4] })
    }

    async fn launch(&self, request: &Prepared) -> Result<BTreeSet<InstanceId>, CloudError> {
        let request: usize =
            request.request.parse().map_err(|_| CloudError::Invalid("no such request".to_owned()))?;
        {
            let mut world = self.world();
            let launch = world.region.prepared[request].clone();
            world.judge_launch_sent(&launch);
        }
        self.cloud("launch", move |world| world.run_instances(request)).await
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        self.world().judge_terminate_sent(ids);
        let ids = ids.to_vec();
        self.cloud("terminate", move |world| world.terminate(&ids)).await
    }
}

impl Sessions for Ports {
    fn sessions(&self) -> BTreeMap<InstanceId, Session> {
        self.world().table.sessions()
    }

    fn send(&self, instance: &InstanceId, order: Order) -> bool {
        let mut world = self.world();
        world.judge_order_sent(instance, order.kind);
        match world.machine_of(instance) {
            Some(at) => world.send_order(at, order_to(order)),
            None => false,
        }
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn admit(&self, admission: Admission) {
        self.world().table.admission = admission;
    }
}

impl Journal for Ports {
    async fn begin(&self, id: &IntentId, intent: &Intent, request: &Prepared) -> Result<(), JournalError> {
        let (id, intent, request) = (id.clone(), intent.clone(), request.clone());
        self.note("begin", move |world| world.notes.begin(&id, &intent, &request)).await
    }

    async fn answer(&self, id: &IntentId, instances: &BTreeSet<InstanceId>) -> Result<(), JournalError> {
        let (id, instances) = (id.clone(), instances.clone());
        self.note("answer", move |world| {
            world.notes.change(&id, |intent| intent.answered = Some(instances.clone()))
        })
        .await
    }

    async fn postpone(&self, id: &IntentId, retry_at: Time) -> Result<(), JournalError> {
        let id = id.clone();
        self.note("postpone", move |world| world.notes.change(&id, |intent| intent.retry_at = retry_at)).await
    }

    async fn close(&self, id: &IntentId) -> Result<(), JournalError> {
        let id = id.clone();
        self.note("close", move |world| {
            world.notes.open.remove(&id);
            Ok(())
        })
        .await
    }

    fn ready_marks(&self) -> BTreeMap<InstanceId, Time> {
        self.world().notes.ready.clone()
    }

    async fn mark_ready(&self, instance: &InstanceId, at: Time) -> Result<(), JournalError> {
        let instance = instance.clone();
        self.note("mark ready", move |world| {
            world.notes.ready.entry(instance.clone()).or_insert(at);
            Ok(())
        })
        .await
    }

    fn knows(&self, _instance: &InstanceId, intent: Option<&IntentId>) -> bool {
        intent.is_some_and(|intent| self.world().notes.known.contains(intent))
    }

    fn boots(&self) -> BTreeMap<ResourceName, Boots> {
        self.world().notes.boots.clone()
    }

    async fn note_boots(&self, resource: &ResourceName, boots: &Boots) -> Result<(), JournalError> {
        let (resource, boots) = (resource.clone(), boots.clone());
        self.note("note boots", move |world| {
            world.notes.boots.insert(resource.clone(), boots.clone());
            Ok(())
        })
        .await
    }

    async fn open(&self) -> Result<BTreeMap<IntentId, (Intent, Prepared)>, JournalError> {
        self.note("open", |world| Ok(world.notes.open.clone())).await
    }
}
