//! What holds of the last passes of a run, whatever the policy and the snapshot.

use planner::{Action, Hold, OrderKind, Policy, ShutdownAction, State, TerminateReason, check, plan};
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate;

const ACTIONS: [ShutdownAction; 3] = [ShutdownAction::Nothing, ShutdownAction::Idle, ShutdownAction::All];

fn policy() -> impl Strategy<Value = Policy> {
    let action = select(&ACTIONS[..]);
    (generate::policy(), action).prop_map(|(policy, action)| Policy { shutdown: Some(action), ..policy })
}

proptest! {
    #[test]
    fn nothing_is_launched_and_no_invariant_broken(policy in policy(), snapshot in generate::snapshot()) {
        let made = plan(&policy, &snapshot);
        prop_assert_eq!(check(&policy, &snapshot, &made), Ok(()));
        let launches = made.actions.iter().any(|action| matches!(action, Action::Launch { .. }));
        prop_assert!(!launches);
    }

    #[test]
    fn only_a_word_of_the_operators_ends_what_was_not_retired(
        policy in policy(),
        snapshot in generate::snapshot(),
    ) {
        for action in plan(&policy, &snapshot).actions {
            let Action::Terminate { instances, reason } = action else { continue };
            if policy.shutdown == Some(ShutdownAction::All) {
                prop_assert_eq!(reason, TerminateReason::Shutdown);
                continue;
            }
            prop_assert_eq!(policy.shutdown, Some(ShutdownAction::Idle));
            for id in instances {
                let known = &snapshot.instances[&id];
                let at_work = matches!(known.state, State::Idle | State::Busy { .. });
                prop_assert!(!at_work, "{}", id);
                prop_assert_eq!(snapshot.task_of(&known.worker), None);
            }
        }
    }

    #[test]
    fn all_means_all(policy in policy(), snapshot in generate::snapshot()) {
        let made = plan(&policy, &snapshot);
        let adopted = !made.holds.iter().any(|hold| matches!(hold, Hold::Adopting { .. }));
        if policy.shutdown == Some(ShutdownAction::All) && adopted {
            let mut left = snapshot.instances.iter().filter(|(_, instance)| instance.counts() && !instance.kept);
            let ends = |id| made.actions.iter().any(|action| {
                matches!(action, Action::Terminate { instances, .. } if instances.contains(id))
            });
            let all_end = left.all(|(id, _)| ends(id));
            prop_assert!(all_end);
        }
    }

    #[test]
    fn a_gate_opens_only_if_it_was_told_to_before(policy in policy(), snapshot in generate::snapshot()) {
        for action in plan(&policy, &snapshot).actions {
            if let Action::Send { instance, order } = action {
                let told = snapshot.instances[&instance].last_order.as_ref().map(|(last, ..)| last.kind);
                prop_assert!(order.kind != OrderKind::Undrain || told == Some(OrderKind::Undrain));
            }
        }
    }

    #[test]
    fn the_plan_says_when_it_is_over(policy in policy(), snapshot in generate::snapshot()) {
        let made = plan(&policy, &snapshot);
        let remaining = made.holds.iter().find_map(|hold| match hold {
            Hold::ShuttingDown { remaining, .. } => Some(*remaining),
            _ => None,
        });
        let told = made.actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
        prop_assert!(remaining.is_none_or(|remaining| remaining as usize >= told));
        prop_assert!(remaining != Some(0) || told == 0);
    }
}
