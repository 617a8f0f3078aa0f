//! What the departed leave behind: worker entries of machines that have gone, and names that nothing accounts for.

use std::time::Duration;

use crate::fleet::{Entry, Fleet, Member};
use crate::plan::{Action, Plan};
use crate::role::Role;
use crate::snapshot::{Snapshot, State};
use crate::task::TaskRef;

/// EC2 may not show a new instance for this long; asked by id any earlier, it may wrongly deny it.
pub(crate) const VISIBLE_AFTER: Duration = Duration::from_secs(60);

/// Unregisters ghosts, and asks EC2 about instances that it should know and does not show.
pub(crate) fn plan_ghosts(fleet: &Fleet<'_>, plan: &mut Plan) {
    let snapshot = fleet.snapshot;
    for entry in &fleet.entries {
        // The role first: to look at every instance again would cost more than all the rest.
        let leaving = entry.role == Some(Role::Leaving)
            && entry.member.map(|at| &fleet.members[at].instance.state).is_some_and(is_departing);
        let gone = snapshot.proven_gone.contains(entry.instance) && !may_be_elsewhere(snapshot, entry);
        if leaving || fault!("unregister-live-worker") || gone {
            plan.actions.push(Action::Unregister { worker: entry.worker.clone() });
        } else if entry.member.is_none() && !snapshot.proven_gone.contains(entry.instance) {
            plan.look_up.insert(entry.instance.into());
        }
    }
    let is_coming = |member: &&Member<'_>| matches!(member.role, Role::Coming { .. } | Role::Overdue { .. });
    for member in fleet.members.iter().filter(is_coming) {
        if member.instance.state == State::Requested {
            let due = member.instance.launched_at.after(VISIBLE_AFTER);
            if due <= snapshot.now {
                plan.look_up.insert(member.id.clone());
            } else {
                plan.wake(due);
            }
        }
    }
}

/// A machine that EC2 knows nothing of may be in another region. As long as a task names it, its entry is the
/// one sign that the task may be alive.
fn may_be_elsewhere(snapshot: &Snapshot, entry: &Entry<'_>) -> bool {
    let ours = snapshot.losses.get(entry.instance).is_none_or(|loss| loss.was_ours);
    let names = |task: &TaskRef| task.last_worker.as_ref() == Some(entry.worker);
    !ours && snapshot.running.iter().any(names)
}

fn is_departing(state: &State) -> bool {
    matches!(state, State::Terminating | State::Gone)
}
