//! What the departed leave behind: worker entries of machines that have gone, and names that nothing accounts for.

use std::time::Duration;

use crate::fleet::{Fleet, Member};
use crate::plan::{Action, Plan};
use crate::role::Role;
use crate::snapshot::State;

/// EC2 may not show a new instance for this long; asked by id any earlier, it may wrongly deny it.
pub(crate) const VISIBLE_AFTER: Duration = Duration::from_secs(60);

/// Unregisters ghosts, and asks EC2 about instances that it should know and does not show.
pub(crate) fn plan_ghosts(fleet: &Fleet<'_>, plan: &mut Plan) {
    let snapshot = fleet.snapshot;
    for entry in &fleet.entries {
        // The role first: to look at every instance again would cost more than all the rest.
        let leaving = entry.role == Some(Role::Leaving)
            && entry.member.map(|at| &fleet.members[at].instance.state).is_some_and(is_departing);
        if leaving || snapshot.proven_gone.contains(entry.instance) {
            plan.actions.push(Action::Unregister { worker: entry.worker.clone() });
        } else if entry.member.is_none() {
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

fn is_departing(state: &State) -> bool {
    matches!(state, State::Terminating | State::Gone)
}
