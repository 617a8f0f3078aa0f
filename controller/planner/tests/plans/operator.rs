//! What holds of the operator's will, whatever the policy and the snapshot.

use std::collections::BTreeSet;

use planner::{Action, Hold, InstanceId, OrderKind, Plan, Snapshot, State, plan};
use proptest::prelude::*;

use crate::generate;

fn orders(made: &Plan) -> impl Iterator<Item = (&InstanceId, OrderKind)> {
    made.actions.iter().filter_map(|action| match action {
        Action::Send { instance, order } => Some((instance, order.kind)),
        _ => None,
    })
}

fn launches(made: &Plan) -> u32 {
    let counts = made.actions.iter().map(|action| match action {
        Action::Launch { count, .. } => *count,
        _ => 0,
    });
    counts.sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_pause_launches_nothing_and_keeps_nobody(policy in generate::policy(), snapshot in generate::snapshot()) {
        let mut free = snapshot.clone();
        free.operator.paused = None;
        let (paused, unpaused) = (plan(&policy, &snapshot), plan(&policy, &free));
        if snapshot.operator.paused.is_some() {
            prop_assert_eq!(launches(&paused), 0);
            let ends = |made: &Plan| -> Vec<Action> {
                let ended = made.actions.iter().filter(|action| matches!(action, Action::Terminate { .. }));
                ended.cloned().collect()
            };
            prop_assert_eq!(ends(&paused), ends(&unpaused));
            let told: Vec<_> = orders(&paused).collect();
            prop_assert_eq!(told, orders(&unpaused).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_is_told_to_finish_but_by_the_operator(
        policy in generate::policy(), snapshot in generate::snapshot()
    ) {
        let made = plan(&policy, &snapshot);
        let drains = &snapshot.operator.drains;
        for (instance, kind) in orders(&made) {
            prop_assert!(kind != OrderKind::Finish || drains.contains_key(instance), "{}", instance);
            // What was told to open before it was drained opens first.
            let before = snapshot.instances[instance].last_order.as_ref().map(|(order, ..)| order.kind);
            let reopened = kind == OrderKind::Undrain && before != Some(OrderKind::Undrain);
            let willed = drains.contains_key(instance) && !snapshot.instances[instance].kept;
            prop_assert!(!(reopened && willed), "{} is opened against the will", instance);
        }
    }

    #[test]
    fn what_the_operator_drains_is_no_capacity(policy in generate::policy(), snapshot in generate::snapshot()) {
        let mut without = snapshot.clone();
        let strangers: BTreeSet<InstanceId> = snapshot.operator.drains.keys().cloned().collect();
        // The same fleet, with those at work that the operator drains: they count, and take nothing.
        for id in &strangers {
            if let Some(known) = without.instances.get_mut(id)
                && matches!(known.state, State::Idle)
            {
                known.state = State::Busy { task: None };
            }
        }
        without.operator.drains.retain(|id, _| snapshot.instances.get(id).is_none_or(|known| known.state != State::Idle));
        prop_assert_eq!(launches(&plan(&policy, &snapshot)), launches(&plan(&policy, &without)));
    }

    #[test]
    fn a_drain_that_can_not_be_done_yet_says_why(policy in generate::policy(), snapshot in generate::snapshot()) {
        let made = plan(&policy, &snapshot);
        let adopted = !made.holds.iter().any(|hold| matches!(hold, Hold::Adopting { .. }));
        for id in snapshot.operator.drains.keys().filter(|_| adopted) {
            let Some(known) = snapshot.instances.get(id) else { continue };
            let busy = matches!(known.state, State::Busy { .. }) && !snapshot.proven_gone.contains(id);
            // What AWS takes back is waited for by nobody, and a tag outranks the operator's word.
            let busy = busy && known.word.notice.is_none() && !known.kept;
            let told = made.holds.iter().any(|hold| {
                matches!(hold, Hold::OperatorDrain { instance, .. } if instance == id)
            });
            prop_assert!(told || !busy, "{} is busy, and nobody says that it is waited for", id);
        }
    }
}

/// A word about the text format's own facts, so that a scenario can't fail to say what it means.
#[test]
fn a_drain_of_nobody_is_no_plan() {
    let (policy, mut snapshot): (_, Snapshot) =
        crate::text::parse("pool gpu g4 max=1 spot:a\nqueue gpu\noperator drain i-9");
    let with = plan(&policy, &snapshot);
    snapshot.operator.drains.clear();
    assert_eq!(with, plan(&policy, &snapshot));
}
