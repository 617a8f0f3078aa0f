//! Tasks that left their queue and are in trouble: in limbo, on a machine that is gone or about to go, or
//! stranded on one that lives.
//!
//! A wrong step here kills or doubles a week's training, so each is taken only on positive evidence, and
//! whatever is missing is a hold that says so. One step at a time: what was done stands on the task itself,
//! and the next look at it decides the next one, whoever looks then.

mod back;
mod claims;
mod limbo;
mod lost;

use self::claims::Claims;
use crate::fleet::Fleet;
use crate::hold::{Hold, TaskHold, Trouble};
use crate::ids::{QueueName, Time};
use crate::plan::{Action, Plan};
use crate::policy::Policy;
use crate::role::TAKEN_WITHIN;
use crate::snapshot::{Snapshot, Source};
use crate::task::{Cause, MOST_ATTEMPTS, Notice, TaskRef, TaskStatus, TaskStep};

pub(crate) use self::back::coming_back;

/// Steps of one pass at most: a zone that fails must not make a storm of calls.
const MOST_STEPS: u32 = 20;

/// Steps for tasks in trouble, and holds for the rest of them.
pub(crate) fn plan_tasks(fleet: &Fleet<'_>, plan: &mut Plan) {
    let snapshot = fleet.snapshot;
    let claims = Claims::of(fleet);
    for member in &fleet.members {
        if let Some(notice) = member.instance.word.notice
            && member.instance.counts()
        {
            plan.holds.push(Hold::Noticed { instance: member.id.clone(), until: notice.ends_at });
            let forgotten_at = notice.ends_at.after(TAKEN_WITHIN);
            if forgotten_at > snapshot.now {
                plan.wake(forgotten_at);
            }
        }
    }
    for (task, instances) in claims.twice() {
        plan.holds.push(Hold::TaskTwice { task: task.clone(), instances });
    }
    let Some(age) = snapshot.freshness.get(&Source::Tasks) else { return };
    if fleet.policy.shutdown.is_some() {
        return;
    }
    let unread = |notice: &Notice| age.read_began_at <= notice.seen_at;
    if fleet.members.iter().any(|member| member.instance.word.notice.as_ref().is_some_and(unread)) {
        // What it holds may have been popped since.
        plan.refresh.insert(Source::Tasks);
    }
    if let Some(since) = age.stale_since {
        plan.holds.push(Hold::Stale { source: Source::Tasks, since });
        return;
    }
    let mut desk = Desk { fleet, claims, read_at: age.read_began_at, plan, left: MOST_STEPS, put_off: 0 };
    for task in &snapshot.running {
        if task.marks.tagged && back::is_over(&desk, task) {
            back::plan_release(&mut desk, task);
        } else {
            lost::plan_running(&mut desk, task);
        }
    }
    for task in &snapshot.unplaced {
        limbo::plan_limbo(&mut desk, task);
    }
    for task in &snapshot.marked {
        back::plan_marked(&mut desk, task);
    }
    if desk.put_off > 0 {
        let count = desk.put_off;
        desk.plan.holds.push(Hold::TasksNextPass { count });
    }
}

/// Whom the steps of a pass go through.
struct Desk<'a, 'b> {
    fleet: &'b Fleet<'a>,
    claims: Claims<'a>,
    /// When the read of the tasks began.
    read_at: Time,
    plan: &'b mut Plan,
    left: u32,
    put_off: u32,
}

impl<'a> Desk<'a, '_> {
    fn snapshot(&self) -> &'a Snapshot {
        self.fleet.snapshot
    }

    fn policy(&self) -> &'a Policy {
        self.fleet.policy
    }

    fn hold(&mut self, task: &TaskRef, trouble: Trouble, why: TaskHold) {
        self.plan.holds.push(Hold::Task { task: task.task.clone(), trouble, why });
    }

    /// Takes the step, unless the task was touched and has not been looked at since, or this pass has done enough.
    fn take(&mut self, task: &TaskRef, trouble: Trouble, step: TaskStep) {
        let snapshot = self.snapshot();
        if !snapshot.lease_held {
            return self.hold(task, trouble, TaskHold::LeaseLost);
        }
        if let Some(touch) = snapshot.touched.get(&task.task) {
            if snapshot.now < touch.not_before {
                self.plan.wake(touch.not_before);
                return self.hold(task, trouble, TaskHold::Paused(touch.not_before));
            }
            if self.read_at <= touch.at {
                self.plan.refresh.insert(Source::Tasks);
                return self.hold(task, trouble, TaskHold::FreshLook);
            }
        }
        if self.left == 0 {
            self.put_off += 1;
            return;
        }
        self.left -= 1;
        self.plan.actions.push(Action::Task { task: task.task.clone(), seen: task.seen(), step });
    }

    /// Whether the tasks were read at `due` or later; if not, the hold, and the read once it is time.
    fn read_by(&mut self, task: &TaskRef, trouble: &Trouble, due: Time) -> bool {
        if self.read_at >= due {
            return true;
        }
        let why = if self.snapshot().now >= due {
            self.plan.refresh.insert(Source::Tasks);
            TaskHold::FreshLook
        } else {
            self.plan.wake(due);
            TaskHold::Until(due)
        };
        self.hold(task, trouble.clone(), why);
        false
    }

    /// The same for another source.
    fn source_read_by(&mut self, task: &TaskRef, trouble: &Trouble, source: Source, due: Time) -> bool {
        let snapshot = self.snapshot();
        let age = snapshot.freshness.get(&source);
        if age.is_some_and(|age| age.stale_since.is_none() && age.read_began_at >= due) {
            return true;
        }
        if age.is_none_or(|age| age.stale_since.is_none()) && snapshot.now >= due {
            self.plan.refresh.insert(source);
        }
        self.hold(task, trouble.clone(), TaskHold::FreshLook);
        false
    }

    /// The queue that the task can be put back into: the server lists it, and it is one of the budget's.
    fn queue(&self, task: &TaskRef) -> Option<&'a QueueName> {
        let queue = task.queue.as_ref()?;
        let (listed, _) = self.snapshot().queues.get_key_value(queue)?;
        self.policy().pools.iter().any(|pool| pool.queue == *queue).then_some(listed)
    }

    /// Whether a task that is interrupted so is put back.
    fn puts_back(&self, task: &TaskRef, cause: Cause) -> bool {
        self.policy().requeue.allows(cause)
            && task.marks.attempts < MOST_ATTEMPTS
            && self.queue(task).is_some()
            && task.status != TaskStatus::Ended
    }
}

/// A time of the server's on our clock, if that is known.
fn on_our_clock(snapshot: &Snapshot, time: Option<Time>) -> Option<Time> {
    let ahead = snapshot.server_ahead_ms?;
    Some(Time(time?.0.saturating_add_signed(ahead.checked_neg()?)))
}
