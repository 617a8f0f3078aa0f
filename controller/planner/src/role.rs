//! What an instance is to the plan: its state, read with the clock, the mode and the last order.

use std::time::Duration;

use crate::ids::Time;
use crate::plan::OrderKind;
use crate::policy::{Policy, SidecarMode};
use crate::snapshot::{Answer, Instance, Signal, Snapshot, State};

/// AWS takes an instance back within moments of the time that it names. One that still runs this much later
/// is treated as any other; its sidecar has powered it off by then, if it can.
pub(crate) const TAKEN_WITHIN: Duration = Duration::from_secs(300);

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
    /// Its gate closes, or is closed, behind the task that it holds.
    Finishing,
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

impl Role {
    /// The role of an instance in this pass.
    pub(crate) fn of(policy: &Policy, snapshot: &Snapshot, instance: &Instance) -> Self {
        let reachable = policy.sidecar == SidecarMode::Required && instance.signal == Signal::Sidecar;
        if is_noticed(snapshot, instance) {
            return Self::Leaving;
        }
        match &instance.state {
            State::Requested | State::Pending | State::Booting { .. } => {
                let deadline = deadline(policy, snapshot, instance);
                if snapshot.now < deadline {
                    Self::Coming { deadline }
                } else if instance.ready_at.is_some() {
                    // It was up once: it may hold a task.
                    Self::Busy
                } else {
                    Self::Overdue { deadline }
                }
            }
            State::Idle | State::Busy { .. } if reachable && instance.is_finishing(snapshot.epoch) => {
                Self::Finishing
            }
            State::Idle => Self::Idle,
            State::Busy { .. } => Self::Busy,
            State::Drained if reachable && is_reopening(policy, snapshot, instance) => Self::Undraining,
            State::Draining if reachable => Self::Draining,
            State::Drained if reachable => Self::Drained,
            State::Retiring if reachable => Self::Retiring,
            State::Retired if policy.sidecar == SidecarMode::Required => Self::Retired,
            State::Draining
            | State::Drained
            | State::Retiring
            | State::Retired
            | State::Terminating
            | State::Gone => Self::Leaving,
            State::Lost { .. } => Self::Lost,
        }
    }
}

/// AWS is about to take it back, and it would otherwise be relied on: it takes no more tasks, and there is
/// nothing to tell it.
fn is_noticed(snapshot: &Snapshot, instance: &Instance) -> bool {
    let serves = match instance.state {
        State::Requested
        | State::Pending
        | State::Booting { .. }
        | State::Idle
        | State::Busy { .. }
        | State::Draining
        | State::Drained => true,
        State::Retiring | State::Retired | State::Terminating | State::Gone | State::Lost { .. } => false,
    };
    serves && instance.word.notice.is_some_and(|notice| snapshot.now < notice.ends_at.after(TAKEN_WITHIN))
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
