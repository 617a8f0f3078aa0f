//! Ends: each by a right that the snapshot proves, none by stale data, none with a task in sight.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use super::{Violation, require};
use crate::ids::{InstanceId, TaskId, Time, WorkerId};
use crate::plan::{Action, Plan, TerminateReason};
use crate::policy::{Policy, ShutdownAction, SidecarMode};
use crate::snapshot::{Instance, Signal, Snapshot, Source, State};

pub(super) fn check(policy: &Policy, snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    let mut shown: Option<BTreeSet<&str>> = None;
    for action in &plan.actions {
        match action {
            Action::Terminate { instances, reason } => {
                let shown = shown.get_or_insert_with(|| workers_with_tasks(snapshot));
                for id in instances {
                    let Some(instance) = snapshot.instances.get(id) else {
                        return Err(Violation(format!("{id} is ended and not on record")));
                    };
                    require(!instance.kept, || format!("{id} is ended, and an operator's tag spares it"))?;
                    if *reason == TerminateReason::Shutdown {
                        let said = policy.shutdown == Some(ShutdownAction::All);
                        require(said, || format!("{id} is ended as {reason}, and nobody said so"))?;
                        require(instance.counts(), || format!("{id} is ended as {reason} and gone already"))?;
                        continue;
                    }
                    by_right(policy, snapshot, id, instance, *reason)?;
                    let children = format!("{}:", instance.worker);
                    let seen = shown.contains(instance.worker.as_str())
                        || shown
                            .range(children.as_str()..)
                            .next()
                            .is_some_and(|worker| worker.starts_with(&children));
                    require(!seen, || format!("{id} is ended with a task in sight"))?;
                }
            }
            Action::Unregister { worker } => unregistered(policy, snapshot, worker)?,
            Action::Launch { .. } | Action::Settle { .. } | Action::Send { .. } | Action::Task { .. } => {}
        }
    }
    Ok(())
}

/// A task that may be of its queue has been missing for a minute, and nobody holds it.
fn may_hold_limbo(snapshot: &Snapshot, instance: &Instance) -> bool {
    let held: BTreeSet<&TaskId> = snapshot
        .instances
        .values()
        .flat_map(|known| {
            known.word.held.iter().chain(match &known.state {
                State::Busy { task } => task.as_ref(),
                _ => None,
            })
        })
        .collect();
    snapshot.unplaced.iter().any(|task| {
        let since = task.out_since.map_or(Duration::ZERO, |out| snapshot.now.since(out));
        since >= Duration::from_secs(60)
            && task.queue.as_ref().is_none_or(|queue| *queue == instance.queue)
            && !held.contains(&task.task)
    })
}

/// Workers that either list shows with a task.
fn workers_with_tasks(snapshot: &Snapshot) -> BTreeSet<&str> {
    let listed = snapshot.workers.iter().filter(|(_, worker)| worker.task.is_some()).map(|(id, _)| id);
    let named = snapshot.running.iter().filter_map(|task| task.last_worker.as_ref());
    listed.chain(named).map(WorkerId::as_str).collect()
}

/// The state that the reason names, its time past, and both lists read afresh since.
fn by_right(
    policy: &Policy,
    snapshot: &Snapshot,
    id: &InstanceId,
    instance: &Instance,
    reason: TerminateReason,
) -> Result<(), Violation> {
    let required = policy.sidecar == SidecarMode::Required;
    let right = match reason {
        TerminateReason::Retired => (required && instance.state == State::Retired).then_some(instance.since),
        TerminateReason::NeverReady => {
            let coming = matches!(instance.state, State::Requested | State::Pending | State::Booting { .. });
            let listed = was_up(snapshot, &instance.worker);
            let more = if listed { policy.max_idle + policy.silent_grace } else { Duration::ZERO };
            (coming && instance.ready_at.is_none()).then(|| ready_by(policy, snapshot, instance).after(more))
        }
        TerminateReason::Lost => {
            let lost = required && matches!(instance.state, State::Lost { .. });
            (lost && !(was_up(snapshot, &instance.worker) && may_hold_limbo(snapshot, instance)))
                .then(|| instance.since.after(policy.max_idle + policy.silent_grace))
        }
        TerminateReason::Orphan => {
            let silent = instance.signal == Signal::None && !instance.accounted;
            let never_up = instance.ready_at.is_none() && !was_up(snapshot, &instance.worker);
            let again = instance.adopted_at.after(Duration::from_secs(30));
            require(snapshot.read_after(Source::Cloud, again), || {
                format!("{id} is ended as {reason} without another look")
            })?;
            (required && silent && never_up && orphans_state(&instance.state)).then_some(again)
        }
        // Rests on the operator's word alone, and was looked at by then.
        TerminateReason::Shutdown => None,
    };
    let Some(since) = right else {
        return Err(Violation(format!("{id} is {:?} and ended as {reason}", instance.state)));
    };
    require(snapshot.now >= since, || format!("{id} is ended as {reason} before its time"))?;
    for source in [Source::Workers, Source::Tasks] {
        let looked = snapshot.read_after(source, since);
        require(looked, || format!("{id} is ended as {reason} without a fresh look at the {source}"))?;
    }
    Ok(())
}

/// Nobody has told of its life.
fn orphans_state(state: &State) -> bool {
    matches!(state, State::Requested | State::Pending | State::Booting { .. } | State::Lost { .. })
}

/// Whether ClearML lists the worker or a child of it: its agent has been up, and gets the time of a lost one.
fn was_up(snapshot: &Snapshot, worker: &WorkerId) -> bool {
    let children = format!("{worker}:");
    let from = (Bound::Included(children.as_str()), Bound::Unbounded);
    let child = snapshot.workers.range::<str, _>(from).next();
    snapshot.workers.contains_key(worker) || child.is_some_and(|(id, _)| worker.covers(id))
}

/// The limit counts from the launch if it was watched within it, else from the adoption.
fn ready_by(policy: &Policy, snapshot: &Snapshot, instance: &Instance) -> Time {
    let watched = instance.launched_at >= snapshot.started_at
        || instance.adopted_at.since(instance.launched_at) < policy.max_spin_up;
    let from = if watched { instance.launched_at } else { instance.adopted_at };
    from.after(policy.max_spin_up)
}

/// Only an entry of a machine that is going or gone.
fn unregistered(policy: &Policy, snapshot: &Snapshot, worker: &WorkerId) -> Result<(), Violation> {
    let going = worker.instance(&policy.prefix).is_some_and(|id| {
        snapshot.proven_gone.contains(&id)
            || snapshot
                .instances
                .get(&id)
                .is_some_and(|instance| matches!(instance.state, State::Terminating | State::Gone))
    });
    require(going && snapshot.workers.contains_key(worker), || {
        format!("{worker} is unregistered, and nothing proves its machine gone")
    })
}
