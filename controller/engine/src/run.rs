//! The loop itself: reads that fall due, passes that follow, calls in flight, and when to wake.
//!
//! One future, no tasks of its own: dropping it at any await is a crash, which is how the simulator
//! makes one. Reads go on while a pass's calls are in flight; the next pass waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use planner::{Action, InstanceId, Intent, Operator, Plan, Policy, Source, Time};
use tokio::sync::watch;

use crate::apply::{Notes, Outcome, Ports, apply};
use crate::holds::HoldLog;
use crate::memory::Memory;
use crate::merge;
use crate::ports::{
    Admission, ClearMl, Clock, Cloud, CloudInstance, CloudState, Journal, JournalError, Session, Sessions,
    TaskScope,
};
use crate::publish::Published;
use crate::read::{Read, Reading};
use crate::tasks::TaskMemory;
use crate::views::Views;

/// Between the beginnings of two passes at least: a storm of reports costs one pass, not one each.
const PASS_GAP: Duration = Duration::from_millis(10);
/// Between two reads of one source at least, however often a plan asks for it.
const READ_GAP: Duration = Duration::from_millis(500);
/// After a pass of which a call failed.
const FAILURE_GAP: Duration = Duration::from_secs(2);
/// Between two looks at machines by id at least.
const LOOK_UP_GAP: Duration = Duration::from_secs(5);
/// How often the tasks are read, unless something wants it sooner.
const TASKS_EVERY: Duration = Duration::from_secs(15);
/// A machine whose session broke is asked about by id for so long: it may have gone.
const ASKED_AFTER_A_BREAK: Duration = Duration::from_secs(120);
/// EC2 may show a machine as running for so long after it was called gone.
const GONE_FOR_GOOD: Duration = Duration::from_secs(60);
/// Without any event, look again after this.
const IDLE_GAP: Duration = Duration::from_secs(30);

/// How often the sources are read.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// `queues.get_all`.
    pub queues: Duration,
    /// `workers.get_all`.
    pub workers: Duration,
    /// `DescribeInstances`.
    pub cloud: Duration,
}

/// What a run starts from.
pub struct Start {
    /// The operator's will; a new one is taken at the next pass.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// What the operator asks for meanwhile; taken at once.
    pub operator: watch::Receiver<Arc<Operator>>,
    /// How often the sources are read; a new pace is taken up at once.
    pub intervals: watch::Receiver<Intervals>,
    /// This run's number, from the journal.
    pub epoch: u64,
    /// The number of this run's first intent, from the journal.
    pub next_intent: u64,
    /// No journal of an earlier run was there.
    pub journal_is_new: bool,
    /// Whether this run holds the prefix's lease.
    pub lease: watch::Receiver<bool>,
}

/// The loop, ready to run.
pub struct Engine<C, E, S, J, K> {
    pub(crate) ports: Ports<C, E, S, J, K>,
    start: Start,
    pub(crate) views: Views,
    pub(crate) memory: Memory,
    pub(crate) tasks: TaskMemory,
    due: BTreeMap<Source, Time>,
    in_flight: BTreeSet<Source>,
    look_up: BTreeSet<InstanceId>,
    looked_up_at: Time,
    pub(crate) published: watch::Sender<Arc<Published>>,
    ended: Arc<BTreeMap<InstanceId, CloudInstance>>,
    holds: HoldLog,
}

impl<C: ClearMl, E: Cloud, S: Sessions, J: Journal, K: Clock> Engine<C, E, S, J, K> {
    /// Reads the open intents and gets ready.
    ///
    /// # Errors
    /// If the journal can't be read: without it, nothing may be launched.
    pub async fn new(ports: Ports<C, E, S, J, K>, start: Start) -> Result<Self, JournalError> {
        let now = ports.clock.now();
        let mut intents = ports.journal.open().await?;
        if planner::fault!("journal-forgotten") {
            intents.clear();
        }
        let memory = Memory {
            started_at: now,
            epoch: start.epoch,
            next_intent: start.next_intent,
            journal_is_new: start.journal_is_new,
            instances: BTreeMap::new(),
            intents,
            unavailable: BTreeMap::new(),
            refusals: BTreeMap::new(),
            boots: ports.journal.boots(),
            unnoted_boots: BTreeSet::new(),
            launches: BTreeMap::new(),
            ready_marks: ports.journal.ready_marks(),
            events: Vec::new(),
        };
        let policy = start.policy.borrow().clone();
        let due = [Source::Queues, Source::Workers, Source::Tasks, Source::Cloud]
            .map(|source| (source, now))
            .into();
        Ok(Self {
            ports,
            start,
            views: Views::default(),
            memory,
            tasks: TaskMemory::default(),
            due,
            in_flight: BTreeSet::new(),
            look_up: BTreeSet::new(),
            looked_up_at: Time(0),
            published: watch::Sender::new(Arc::new(Published::before(policy, now))),
            ended: Arc::default(),
            holds: HoldLog::default(),
        })
    }

    /// What the last pass saw and decided.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Reads every source once and plans once; applies nothing.
    pub async fn plan_once(&mut self) -> Arc<Published> {
        let reads: Vec<_> = [Source::Queues, Source::Workers, Source::Tasks, Source::Cloud]
            .into_iter()
            .map(|source| Reading::of(&self.ports, source, TaskScope::default()))
            .collect();
        for read in futures_util::future::join_all(reads).await {
            self.absorb_read(read);
        }
        self.pass();
        self.published.borrow().clone()
    }

    /// Runs until `stop` resolves. Calls in flight are then awaited, so that no launch is left unanswered.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut reads: FuturesUnordered<BoxFuture<'static, Read>> = FuturesUnordered::new();
        let mut applying: Option<BoxFuture<'static, Vec<Outcome>>> = None;
        let mut next_pass = Some(self.ports.clock.now());
        let mut last_pass = Time(0);
        let sessions = Arc::clone(&self.ports.sessions);
        let clock = self.ports.clock.clone();
        loop {
            let now = clock.now();
            self.begin_reads(&mut reads, now);
            if applying.is_none() && next_pass.is_some_and(|at| at <= now) {
                let (actions, wake_at) = self.pass();
                let passed = Arc::clone(&self.published.borrow());
                self.holds.tell(&passed.plan, now);
                last_pass = now;
                next_pass = Some(wake_at.map_or(now.after(IDLE_GAP), |at| at.min(now.after(IDLE_GAP))));
                let notes =
                    Notes { ready: self.memory.take_unmarked(), boots: self.memory.take_unnoted_boots() };
                if !actions.is_empty() || !notes.is_empty() {
                    let known = self.memory.intents.clone();
                    applying = Some(Box::pin(apply(self.ports.clone(), actions, known, notes)));
                }
                continue;
            }
            let mut sleep_until = self.next_read(now);
            if applying.is_none() {
                sleep_until = sleep_until.min(next_pass.unwrap_or(sleep_until));
            }
            let soon = |next_pass: &mut Option<Time>| {
                let at = now.max(last_pass.after(PASS_GAP));
                *next_pass = Some(next_pass.map_or(at, |planned| planned.min(at)));
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(outcomes) = OptionFuture::from(applying.as_mut()) => {
                    applying = None;
                    let failed = self.absorb_outcomes(outcomes);
                    if failed {
                        next_pass = Some(clock.now().after(FAILURE_GAP));
                    } else {
                        soon(&mut next_pass);
                    }
                }
                Some(read) = reads.next(), if !reads.is_empty() => {
                    self.absorb_read(read);
                    soon(&mut next_pass);
                }
                () = sessions.changed() => soon(&mut next_pass),
                // Whoever had the policy to give may be gone: then it stays as it is.
                Ok(()) = self.start.policy.changed() => soon(&mut next_pass),
                Ok(()) = self.start.operator.changed() => soon(&mut next_pass),
                // Nobody to change them is no event.
                Ok(()) = self.start.intervals.changed() => self.keep_pace(clock.now()),
                changed = self.start.lease.changed() => {
                    if changed.is_err() {
                        tracing::warn!("nobody renews the lease any more");
                        break;
                    }
                    soon(&mut next_pass);
                }
                () = clock.sleep(sleep_until.since(now)) => {}
            }
        }
        if let Some(applying) = applying {
            let outcomes = applying.await;
            self.absorb_outcomes(outcomes);
        }
    }

    /// Merges, plans, checks, publishes. What is to be applied comes back, and when to look again.
    fn pass(&mut self) -> (Vec<Action>, Option<Time>) {
        let now = self.ports.clock.now();
        let policy = self.start.policy.borrow_and_update().clone();
        let lease_held = *self.start.lease.borrow_and_update();
        let sessions = self.ports.sessions.sessions();
        let knows = |instance: &InstanceId, intent: Option<&planner::IntentId>| {
            self.ports.journal.knows(instance, intent)
        };
        let mut snapshot = merge::snapshot(
            &policy,
            &self.views,
            &sessions,
            knows,
            &mut self.memory,
            &self.tasks,
            lease_held,
            now,
        );
        for event in self.memory.events.drain(..) {
            self.ports.journal.note(event);
        }
        snapshot.operator = Operator::clone(&self.start.operator.borrow_and_update());
        let mut plan = planner::plan(&policy, &snapshot);
        let violation = planner::check(&policy, &snapshot, &plan).err();
        if let Some(violation) = &violation {
            // A plan that breaks an invariant is a fault of ours: doing nothing is always safe.
            tracing::error!(%violation, "the plan was refused");
            plan.actions.clear();
            plan.wake_at = Some(now.after(FAILURE_GAP));
        }
        self.take_requests(&plan, now);
        self.ask_about_broken(&sessions, now);
        let launches = plan.actions.iter().filter_map(|action| match action {
            Action::Launch { intent, .. } => Some(intent),
            Action::Settle { .. }
            | Action::Send { .. }
            | Action::Terminate { .. }
            | Action::Unregister { .. }
            | Action::Task { .. } => None,
        });
        let new = launches.filter(|intent| !self.memory.intents.contains_key(*intent)).count();
        self.memory.next_intent += new as u64;
        let to_do = (plan.actions.clone(), plan.wake_at);
        let ended = Arc::clone(&self.ended);
        self.published.send_replace(Arc::new(Published { now, policy, snapshot, plan, violation, ended }));
        to_do
    }

    /// Reads and look-ups that the plan wants, besides our own: machines that a list no longer shows.
    fn take_requests(&mut self, plan: &Plan, now: Time) {
        for source in &plan.refresh {
            self.due.entry(*source).and_modify(|due| *due = (*due).min(now)).or_insert(now);
        }
        self.look_up.extend(plan.look_up.iter().cloned());
        let unlisted = self.memory.instances.iter().filter(|(id, known)| {
            known.visible && !self.views.cloud.data.contains_key(*id) && !self.views.losses.contains_key(*id)
        });
        self.look_up.extend(unlisted.map(|(id, _)| id.clone()));
        self.forget_losses();
    }

    /// Asks EC2 about machines whose sidecar's stream has just broken.
    fn ask_about_broken(&mut self, sessions: &BTreeMap<InstanceId, Session>, now: Time) {
        let broken = sessions.iter().filter(|(id, session)| {
            !session.connected
                && now.since(session.last_seen) < ASKED_AFTER_A_BREAK
                // EC2 may deny for a while what it has only just launched.
                && self.memory.instances.get(*id).is_some_and(|known| known.visible)
                && !self.views.losses.contains_key(*id)
        });
        self.look_up.extend(broken.map(|(id, _)| id.clone()));
    }

    /// Drops what nothing names any more.
    fn forget_losses(&mut self) {
        if self.views.losses.is_empty() {
            return;
        }
        let prefix = &self.start.policy.borrow().prefix;
        let workers = self.views.workers.data.ours.keys();
        let tasks = &self.views.tasks.data.tasks;
        let last_workers = tasks.iter().filter_map(|task| task.last_worker.as_ref());
        let mut named: BTreeSet<InstanceId> =
            workers.chain(last_workers).filter_map(|worker| worker.instance(prefix)).collect();
        named.extend(tasks.iter().filter_map(|task| task.marks.instance.clone()));
        let instances = &self.memory.instances;
        self.views.losses.retain(|id, _| instances.contains_key(id) || named.contains(id));
    }

    fn begin_reads(&mut self, reads: &mut FuturesUnordered<BoxFuture<'static, Read>>, now: Time) {
        let due: Vec<Source> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(source, _)| *source).collect();
        for source in due {
            let last = self.last_read(source);
            if self.in_flight.contains(&source) || last.is_some_and(|last| now.since(last) < READ_GAP) {
                continue;
            }
            self.due.remove(&source);
            self.in_flight.insert(source);
            let scope = match source {
                Source::Tasks => self.tasks.scope(now),
                Source::Queues | Source::Workers | Source::Cloud => TaskScope::default(),
            };
            reads.push(Reading::of(&self.ports, source, scope));
        }
        if !self.look_up.is_empty() && now.since(self.looked_up_at) >= LOOK_UP_GAP {
            self.looked_up_at = now;
            let asked = std::mem::take(&mut self.look_up);
            reads.push(Reading::gone(&self.ports, asked));
        }
    }

    fn last_read(&self, source: Source) -> Option<Time> {
        match source {
            Source::Queues => self.views.queues.read_began_at(),
            Source::Workers => self.views.workers.read_began_at(),
            Source::Tasks => self.views.tasks.read_began_at(),
            Source::Cloud => self.views.cloud.read_began_at(),
        }
    }

    /// When the next read may begin.
    fn next_read(&self, now: Time) -> Time {
        let next =
            self.due.iter().filter(|(source, _)| !self.in_flight.contains(source)).map(|(source, due)| {
                let gap_over = self.last_read(*source).map_or(*due, |last| last.after(READ_GAP));
                (*due).max(gap_over)
            });
        next.min().unwrap_or(now.after(IDLE_GAP))
    }

    fn absorb_read(&mut self, read: Read) {
        let now = self.ports.clock.now();
        let before = self.tasks.waiting(&self.views.queues.data, &read);
        let Some(source) = read.store(&mut self.views) else { return };
        self.in_flight.remove(&source);
        let succeeded = self.views.failures(source) == 0;
        match source {
            Source::Cloud => {
                self.memory.observe(&self.views.cloud.data, now);
                let ended = self.views.cloud.data.iter().filter(|(_, seen)| is_over(seen.state));
                self.ended = Arc::new(ended.map(|(id, seen)| (id.clone(), seen.clone())).collect());
                self.revive(now);
                self.admit();
            }
            Source::Queues if succeeded => self.tasks.queues_read(before, &self.views),
            Source::Tasks if succeeded => self.tasks.tasks_read(&mut self.views, now),
            Source::Queues | Source::Tasks | Source::Workers => {}
        }
        if let Some(interval) = self.interval(source) {
            let next = now.after(crate::read::next_delay(interval, self.views.failures(source), now));
            self.due.entry(source).and_modify(|due| *due = (*due).min(next)).or_insert(next);
        }
    }

    fn interval(&self, source: Source) -> Option<Duration> {
        let intervals = *self.start.intervals.borrow();
        match source {
            Source::Queues => Some(intervals.queues),
            Source::Workers => Some(intervals.workers),
            Source::Cloud => Some(intervals.cloud),
            Source::Tasks => Some(TASKS_EVERY),
        }
    }

    /// Brings forward what was put off for longer than the intervals are now.
    fn keep_pace(&mut self, now: Time) {
        for source in [Source::Queues, Source::Workers, Source::Cloud] {
            let next = self.interval(source).map(|interval| now.after(interval));
            if let (Some(next), Some(due)) = (next, self.due.get_mut(&source)) {
                *due = (*due).min(next);
            }
        }
    }

    /// Takes what came of the calls; whether any of them failed.
    fn absorb_outcomes(&mut self, outcomes: Vec<Outcome>) -> bool {
        let now = self.ports.clock.now();
        let mut failed = false;
        for outcome in outcomes {
            failed |= self.absorb_outcome(outcome, now);
        }
        self.admit();
        failed
    }

    /// Lets the sidecars of all known instances in: those launched just now, and those of earlier runs.
    fn admit(&self) {
        let instances =
            self.memory.instances.iter().map(|(id, known)| (id.clone(), known.seen.intent.clone())).collect();
        self.ports.sessions.admit(Admission { instances });
    }

    /// A stopped machine can be started again: what the list shows as running, some time after it was called
    /// gone, is not.
    fn revive(&mut self, now: Time) {
        let Some(began) = self.views.cloud.read_began_at() else { return };
        let listed = &self.views.cloud.data;
        self.views.losses.retain(|id, loss| {
            let runs = listed.get(id).is_some_and(|instance| match instance.state {
                CloudState::Pending | CloudState::Running => true,
                CloudState::ShuttingDown
                | CloudState::Terminated
                | CloudState::Stopping
                | CloudState::Stopped => false,
            });
            let revived = runs && began.since(loss.first_seen) >= GONE_FOR_GOOD;
            if revived {
                tracing::warn!(instance = %id, "runs again, after EC2 had called it gone");
                if let Some(known) = self.memory.instances.get_mut(id) {
                    known.adopted_at = now;
                }
            }
            !revived
        });
    }

    /// Looks at the tasks again soon: one was changed.
    pub(crate) fn look_at_tasks(&mut self, now: Time) {
        self.due.insert(Source::Tasks, now);
    }

    /// Looks at EC2 again soon: something there was changed.
    pub(crate) fn look_at_cloud(&mut self, now: Time) {
        self.due.insert(Source::Cloud, now.after(READ_GAP));
    }

    pub(crate) fn remember_intent(
        &mut self,
        id: planner::IntentId,
        intent: Intent,
        request: crate::ports::Prepared,
    ) {
        self.memory.intents.insert(id, (intent, request));
    }
}

/// No longer paid for, or nearly so.
fn is_over(state: CloudState) -> bool {
    match state {
        CloudState::ShuttingDown | CloudState::Terminated | CloudState::Stopping | CloudState::Stopped => {
            true
        }
        CloudState::Pending | CloudState::Running => false,
    }
}
