//! Orders to sidecars: what to send now, given what was sent before and what came of it.
//!
//! An unanswered order is only ever repeated as it was; whatever else is to be said waits for its
//! answer, so that at most one order is under way to an instance.

use std::time::Duration;

use crate::fleet::{Fleet, Member};
use crate::hold::Hold;
use crate::ids::Time;
use crate::plan::{Action, Order, OrderKind, Plan};
use crate::snapshot::Answer;

/// Between a refusal and the next try.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// What to do about an order.
enum Step {
    Send(Order),
    /// One is out.
    Await(OrderKind, Time),
    /// It was refused.
    Pause(Time),
}

/// Sends the order, or says why not now; whether it is sent.
pub(crate) fn give(fleet: &Fleet<'_>, member: &Member<'_>, kind: OrderKind, plan: &mut Plan) -> bool {
    match step(fleet, member, kind) {
        Step::Send(order) => {
            plan.actions.push(Action::Send { instance: member.id.clone(), order });
            true
        }
        Step::Await(kind, until) => {
            plan.holds.push(Hold::OrderAwaited { instance: member.id.clone(), kind });
            plan.wake(until);
            false
        }
        Step::Pause(until) => {
            plan.holds.push(refusal(member, kind, until));
            plan.wake(until);
            false
        }
    }
}

fn step(fleet: &Fleet<'_>, member: &Member<'_>, kind: OrderKind) -> Step {
    let (policy, snapshot, instance) = (fleet.policy, fleet.snapshot, member.instance);
    let numbered = |generation| Step::Send(Order { epoch: snapshot.epoch, generation, kind });
    let Some((last, sent_at, answer)) = &instance.last_order else { return numbered(1) };
    if last.epoch < snapshot.epoch {
        return numbered(1);
    }
    let now = snapshot.now;
    let patience_ends = sent_at.after(policy.order_patience);
    let Some(generation) = last.generation.checked_add(1).filter(|_| last.epoch == snapshot.epoch) else {
        // A newer run has spoken to it: it would refuse us.
        return Step::Pause(now.after(policy.order_patience.max(REFUSAL_PAUSE)));
    };
    let same = last.kind == kind;
    match answer {
        Answer::Awaited if now < patience_ends => Step::Await(last.kind, patience_ends),
        Answer::Awaited if same => Step::Send(*last),
        // Its report may be on the way.
        Answer::Done if same && now < patience_ends => Step::Await(kind, patience_ends),
        Answer::RefusedBusy(_) | Answer::RefusedUnsure
            if same && instance.since <= *sent_at && now < sent_at.after(REFUSAL_PAUSE) =>
        {
            Step::Pause(sent_at.after(REFUSAL_PAUSE))
        }
        Answer::RefusedStale if same && now < patience_ends => Step::Pause(patience_ends),
        Answer::Awaited
        | Answer::Done
        | Answer::RefusedBusy(_)
        | Answer::RefusedUnsure
        | Answer::RefusedStale => numbered(generation),
    }
}

fn refusal(member: &Member<'_>, kind: OrderKind, retry_at: Time) -> Hold {
    let instance = member.id.clone();
    match (kind, member.instance.last_order.as_ref().map(|(_, _, answer)| answer)) {
        (OrderKind::Drain | OrderKind::Finish, Some(Answer::RefusedBusy(task))) => {
            Hold::DrainRefused { instance, task: task.clone() }
        }
        (OrderKind::Drain | OrderKind::Finish, Some(Answer::RefusedUnsure)) => {
            Hold::DrainRefused { instance, task: None }
        }
        (
            OrderKind::Drain | OrderKind::Finish | OrderKind::Undrain | OrderKind::Retire,
            Some(
                Answer::Awaited
                | Answer::Done
                | Answer::RefusedBusy(_)
                | Answer::RefusedUnsure
                | Answer::RefusedStale,
            )
            | None,
        ) => Hold::OrderRefused { instance, kind, retry_at },
    }
}

/// The hold of a busy instance that refused the last order to drain.
pub(crate) fn refused_drain(member: &Member<'_>) -> Option<Hold> {
    let (order, _, answer) = member.instance.last_order.as_ref()?;
    let task = match (order.kind, answer) {
        (OrderKind::Drain, Answer::RefusedBusy(task)) => task.clone(),
        (OrderKind::Drain, Answer::RefusedUnsure) => None,
        (OrderKind::Drain | OrderKind::Finish | OrderKind::Undrain | OrderKind::Retire, _) => return None,
    };
    Some(Hold::DrainRefused { instance: member.id.clone(), task })
}
