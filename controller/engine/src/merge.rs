//! Merging: what EC2, ClearML and the sidecars say of one machine becomes one state.
//!
//! The sidecar's word outranks ClearML's list, and EC2's word that a machine has gone outranks both.
//! Silence is not an answer: a state outlives a broken stream for [`SESSION_GRACE`], then it is *lost*.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use planner::{
    Answer, InstanceId, IntentId, Loss, LostReason, OrderKind, Policy, SidecarMode, Signal, Snapshot, Source,
    State, TaskId, Time, WorkerId,
};

use crate::boots::boot_end;
use crate::history::{Event, EventKind};
use crate::memory::{Known, Memory, is_gone};
use crate::ports::{CloudState, Gate, Session, Standing};
use crate::reasons::span;
use crate::status::lost_words;
use crate::tasks::{Sorted, TaskMemory};
use crate::views::Views;

/// How long an instance keeps its last state after its stream broke: a reconnect takes seconds.
pub(crate) const SESSION_GRACE: Duration = Duration::from_secs(30);
/// How long EC2 may show a machine as running after our call to end it went through.
const TERMINATION_PATIENCE: Duration = Duration::from_secs(120);

/// The age at which a source's data counts as stale although no read failed.
pub(crate) fn patience(source: Source) -> Duration {
    Duration::from_secs(match source {
        Source::Queues => 20,
        Source::Workers => 40,
        Source::Tasks => 60,
        Source::Cloud => 100,
    })
}

/// One look at everything.
#[allow(clippy::too_many_arguments, reason = "the sources, and what is remembered of each")]
pub(crate) fn snapshot(
    policy: &Policy,
    views: &Views,
    sessions: &BTreeMap<InstanceId, Session>,
    knows: impl Fn(&InstanceId, Option<&IntentId>) -> bool,
    memory: &mut Memory,
    tasks: &TaskMemory,
    lease_held: bool,
    now: Time,
) -> Snapshot {
    let workers = workers_by_instance(policy, views);
    let mut boot_ends = Vec::new();
    for (id, known) in &mut memory.instances {
        if let Some(session) = sessions.get(id) {
            known.word.clone_from(&session.word);
        }
        let (was_lost, was_gone) = (matches!(known.state, State::Lost { .. }), known.state == State::Gone);
        settle_state(
            policy,
            known,
            sessions.get(id),
            views,
            workers.get(id).copied(),
            views.losses.contains_key(id),
            now,
        );
        if let State::Lost { reason } = known.state
            && !was_lost
        {
            tracing::warn!(instance = %id, ?reason, "lost an instance");
        }
        if let Some(end) = boot_end(known, sessions.get(id)) {
            boot_ends.push((known.seen.resource.clone(), end));
        }
        memory.events.extend(change_of(id, known, was_lost, was_gone, now));
        memory.events.extend(refusal(id, known, sessions.get(id), now));
    }
    memory.note_boot_ends(boot_ends, now);
    let answered = memory.intents.values().filter_map(|(intent, _)| intent.answered.clone()).flatten();
    let answered: BTreeSet<InstanceId> = answered.collect();
    memory.forget(|id| workers.contains_key(id) || answered.contains(id), now);

    let instances = memory
        .instances
        .iter()
        .map(|(id, known)| {
            let worker =
                WorkerId::of(&policy.prefix, &known.seen.resource, &known.seen.offering.instance_type, id);
            let accounted = sessions.contains_key(id) || knows(id, known.seen.intent.as_ref());
            (id.clone(), known.instance(worker, answer(known, sessions.get(id)), accounted))
        })
        .collect();
    let Sorted { running, unplaced, marked } = tasks.sorted(&views.tasks.data);
    Snapshot {
        now,
        started_at: memory.started_at,
        journal_is_new: memory.journal_is_new,
        lease_held,
        epoch: memory.epoch,
        next_intent: memory.next_intent,
        freshness: freshness(views, now),
        queues: views.queues.data.clone(),
        instances,
        workers: views.workers.data.ours.clone(),
        others: views.workers.data.others.clone(),
        running,
        unplaced,
        marked,
        touched: tasks.touched(),
        server_ahead_ms: views.tasks.data.server_ahead_ms,
        intents: memory.intents.iter().map(|(id, (intent, _))| (id.clone(), intent.clone())).collect(),
        unavailable: memory.unavailable.clone(),
        boots: memory.boots.clone(),
        launches: memory.launches(),
        proven_gone: views.losses.keys().cloned().collect(),
        losses: views.losses.iter().map(|(id, loss)| (id.clone(), loss_of(memory, id, *loss))).collect(),
        ..Snapshot::default()
    }
}

/// What this run has adopted was of this fleet, even if EC2 has forgotten it.
fn loss_of(memory: &Memory, id: &InstanceId, loss: Loss) -> Loss {
    Loss { was_ours: loss.was_ours || memory.instances.contains_key(id), ..loss }
}

fn freshness(views: &Views, now: Time) -> BTreeMap<Source, planner::Freshness> {
    [
        (Source::Queues, views.queues.freshness(now, patience(Source::Queues))),
        (Source::Workers, views.workers.freshness(now, patience(Source::Workers))),
        (Source::Tasks, views.tasks.freshness(now, patience(Source::Tasks))),
        (Source::Cloud, views.cloud.freshness(now, patience(Source::Cloud))),
    ]
    .into_iter()
    .filter_map(|(source, age)| Some((source, age?)))
    .collect()
}

/// ClearML's entries by the machine that they name: whether one is there, and the task that any of them shows.
fn workers_by_instance<'a>(policy: &Policy, views: &'a Views) -> BTreeMap<InstanceId, Option<&'a TaskId>> {
    let mut by_instance: BTreeMap<InstanceId, Option<&TaskId>> = BTreeMap::new();
    for (id, worker) in &views.workers.data.ours {
        if let Some(instance) = id.instance(&policy.prefix) {
            let task = by_instance.entry(instance).or_default();
            *task = task.or(worker.task.as_ref());
        }
    }
    by_instance
}

#[allow(clippy::too_many_arguments, reason = "one instance's evidence, source by source")]
fn settle_state(
    policy: &Policy,
    known: &mut Known,
    session: Option<&Session>,
    views: &Views,
    worker: Option<Option<&TaskId>>,
    proven_gone: bool,
    now: Time,
) {
    known.finishing = false;
    if proven_gone || (known.visible && is_gone(known.seen.state)) {
        known.enter(State::Gone, Signal::None, now);
        return;
    }
    let leaving = match known.seen.state {
        CloudState::ShuttingDown | CloudState::Stopping => true,
        CloudState::Pending | CloudState::Running | CloudState::Terminated | CloudState::Stopped => false,
    };
    let ended = known.terminated_at.is_some_and(|at| now.since(at) < TERMINATION_PATIENCE);
    if leaving || ended {
        known.enter(State::Terminating, Signal::None, now);
        return;
    }
    match policy.sidecar {
        SidecarMode::Required => match session {
            Some(session) => by_session(known, session, now),
            None => without_session(policy, known, worker.is_some(), now),
        },
        SidecarMode::Off => {
            let fresh = views.workers.freshness(now, patience(Source::Workers));
            by_worker(known, worker, fresh.is_some_and(|age| age.stale_since.is_none()), now);
        }
    }
}

/// The sidecar's word.
fn by_session(known: &mut Known, session: &Session, now: Time) {
    if !session.connected
        && now.since(session.last_seen) >= SESSION_GRACE
        && session.standing != Standing::Retired
    {
        if planner::fault!("session-loss-is-gone") {
            return known.enter(State::Gone, Signal::None, now);
        }
        if known.ready_at.is_some() {
            known.lose(LostReason::SessionLost, session.last_seen);
        } else {
            known.enter(State::Booting { phase: "its sidecar fell silent".to_owned() }, Signal::None, now);
        }
        return;
    }
    let up = session.boot_phase == "ready" && session.gate != Gate::Absent;
    if up && known.ready_at.is_none() {
        known.ready_at = Some(now);
    }
    let awaited = known
        .last_order
        .filter(|(order, _)| session.last_answer.as_ref().is_none_or(|(answered, _)| answered != order))
        .map(|(order, _)| order.kind);
    match (session.standing, awaited) {
        (Standing::Retired, _) => {
            known.enter_since(State::Retired, Signal::Sidecar, session.standing_since);
        }
        (Standing::Drained, Some(OrderKind::Retire)) => known.enter(State::Retiring, Signal::Sidecar, now),
        (Standing::Drained, Some(OrderKind::Drain | OrderKind::Finish | OrderKind::Undrain) | None) => {
            known.enter(State::Drained, Signal::Sidecar, now);
        }
        (Standing::Open | Standing::Finishing, _) if !up && known.ready_at.is_none() => {
            known.enter(State::Booting { phase: session.boot_phase.clone() }, Signal::Sidecar, now);
        }
        (Standing::Open | Standing::Finishing, _) if !session.alive => {
            known.lose(LostReason::AgentDead, now);
        }
        (Standing::Open, Some(OrderKind::Drain)) => known.enter(State::Draining, Signal::Sidecar, now),
        (Standing::Open, Some(OrderKind::Finish | OrderKind::Undrain | OrderKind::Retire) | None) => {
            by_gate(known, session, now);
        }
        (Standing::Finishing, _) => {
            known.finishing = true;
            by_gate(known, session, now);
        }
    }
}

/// What the agents do behind a gate that nothing has closed on all of them.
fn by_gate(known: &mut Known, session: &Session, now: Time) {
    match &session.gate {
        Gate::Idle => known.enter_since(State::Idle, Signal::Sidecar, session.gate_since),
        Gate::Busy(task) => {
            known.enter_since(State::Busy { task: task.clone() }, Signal::Sidecar, session.gate_since);
        }
        // The server may have popped a task for it: it holds one until the contrary is known.
        Gate::Unknown | Gate::Absent => known.enter(State::Busy { task: None }, Signal::Sidecar, now),
    }
}

/// A sidecar is expected and none has attached to this run.
fn without_session(policy: &Policy, known: &mut Known, registered: bool, now: Time) {
    let old = known.adopted_at.since(known.seen.launched_at) > policy.max_spin_up;
    if (old || registered || known.ready_at.is_some()) && now.since(known.adopted_at) >= SESSION_GRACE {
        known.lose(LostReason::NeverAttached, known.adopted_at);
        return;
    }
    match (known.visible, known.seen.state) {
        (false, _) => known.enter(State::Requested, Signal::None, now),
        (true, CloudState::Pending) => known.enter(State::Pending, Signal::None, now),
        (
            true,
            CloudState::Running
            | CloudState::ShuttingDown
            | CloudState::Stopping
            | CloudState::Stopped
            | CloudState::Terminated,
        ) => known.enter(State::Booting { phase: "waiting for its sidecar".to_owned() }, Signal::None, now),
    }
}

/// Nobody but ClearML's list can tell.
fn by_worker(known: &mut Known, worker: Option<Option<&TaskId>>, fresh: bool, now: Time) {
    match worker {
        Some(task) => {
            known.ready_at.get_or_insert(now);
            let state = match task {
                Some(task) => State::Busy { task: Some(task.clone()) },
                None => State::Idle,
            };
            known.enter(state, Signal::Clearml, now);
        }
        None if known.ready_at.is_some() => {
            if fresh {
                known.lose(LostReason::SessionLost, now);
            }
        }
        None if !known.visible => known.enter(State::Requested, Signal::None, now),
        None if known.seen.state == CloudState::Pending => known.enter(State::Pending, Signal::None, now),
        None => known.enter(State::Booting { phase: "waiting for its worker".to_owned() }, Signal::None, now),
    }
}

/// What of its new state belongs into the history.
fn change_of(id: &InstanceId, known: &Known, was_lost: bool, was_gone: bool, now: Time) -> Option<Event> {
    match &known.state {
        State::Lost { reason } if !was_lost => {
            Some(known.event(id, now, EventKind::Lost, lost_words(*reason).to_owned()))
        }
        State::Gone if !was_gone => {
            let age = span(now.since(known.seen.launched_at));
            Some(known.event(id, now, EventKind::Gone, format!("{age} after its launch")))
        }
        State::Lost { .. }
        | State::Gone
        | State::Requested
        | State::Pending
        | State::Booting { .. }
        | State::Idle
        | State::Busy { .. }
        | State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Terminating => None,
    }
}

/// That it would not do as it was told, once.
fn refusal(id: &InstanceId, known: &mut Known, session: Option<&Session>, now: Time) -> Option<Event> {
    if known.answer_noted || known.last_order.is_none() {
        return None;
    }
    let answer = answer(known, session);
    known.answer_noted = answer != Answer::Awaited;
    let refused = |reason: &str| known.event(id, now, EventKind::DrainRefused, reason.to_owned());
    match answer {
        Answer::Awaited | Answer::Done => None,
        Answer::RefusedBusy(Some(task)) => Some(refused("it holds a task").about(&task)),
        Answer::RefusedBusy(None) => Some(refused("it holds a task")),
        Answer::RefusedUnsure => Some(refused("it cannot tell whether it holds a task")),
        Answer::RefusedStale => Some(refused("it has seen a newer order")),
    }
}

fn answer(known: &Known, session: Option<&Session>) -> Answer {
    let Some((order, _)) = known.last_order else { return Answer::Awaited };
    match session.and_then(|session| session.last_answer.as_ref()) {
        Some((answered, answer)) if *answered == order => answer.clone(),
        Some(_) | None => Answer::Awaited,
    }
}
