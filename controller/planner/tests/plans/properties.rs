//! What holds of every plan, whatever the policy and the snapshot.

use std::collections::BTreeMap;

use planner::{
    Action, Hold, InstanceId, OrderKind, Policy, QueueName, ResourceName, Snapshot, Source, State, TaskRef,
    TaskStatus, TerminateReason, Time, check, plan,
};
use proptest::prelude::*;

use crate::generate;
use crate::model::applied;

fn launched<'a>(snapshot: &'a Snapshot, actions: &'a [Action]) -> impl Iterator<Item = (&'a Action, u32)> {
    actions.iter().filter_map(|action| match action {
        Action::Launch { intent, count, .. } if !snapshot.intents.contains_key(intent) => {
            Some((action, *count))
        }
        _ => None,
    })
}

fn closes_a_gate(action: &Action) -> bool {
    matches!(action, Action::Send { order, .. } if order.kind != OrderKind::Undrain)
}

fn told(action: &Action) -> Option<&InstanceId> {
    match action {
        Action::Send { instance, .. } => Some(instance),
        _ => None,
    }
}

fn counted(snapshot: &Snapshot) -> BTreeMap<&ResourceName, u32> {
    let mut counts = BTreeMap::new();
    for instance in snapshot.instances.values().filter(|instance| instance.counts()) {
        *counts.entry(&instance.resource).or_default() += 1;
    }
    counts
}

fn idle_of(policy: &Policy, snapshot: &Snapshot, queue: &str) -> usize {
    let of_pool =
        |resource: &ResourceName| policy.pool(resource).is_some_and(|pool| pool.queue.as_str() == queue);
    let drained = |id: &InstanceId| snapshot.operator.drains.contains_key(id);
    let idle = snapshot.instances.iter().filter(|(id, instance)| {
        let taken =
            instance.word.notice.is_some_and(|notice| snapshot.now.since(notice.ends_at).as_secs() < 300);
        let gone = snapshot.proven_gone.contains(*id);
        instance.state == State::Idle && !taken && !gone && !drained(id) && !instance.finishing
    });
    idle.filter(|(_, instance)| instance.queue.as_str() == queue && of_pool(&instance.resource)).count()
}

/// Tasks that an interruption may bring back to the queue, at most.
fn returning(snapshot: &Snapshot, queue: &QueueName) -> usize {
    let of_queue = |task: &&TaskRef| task.queue.as_ref() == Some(queue);
    let noticed = snapshot.instances.values().filter(|known| known.word.notice.is_some());
    let held = noticed.map(|known| {
        let here = |task: &&TaskRef| known.word.held.contains(&task.task);
        snapshot.running.iter().filter(of_queue).filter(here).count()
    });
    let stopped = |task: &&TaskRef| task.status == TaskStatus::Stopped;
    held.sum::<usize>() + snapshot.marked.iter().filter(of_queue).filter(stopped).count()
}

/// So many times proptest's 256, unless `PROPTEST_CASES` says otherwise.
fn cases(times: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * times, max_shrink_iters: 20_000, ..usual }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn no_plan_breaks_an_invariant(policy in generate::policy(), snapshot in generate::snapshot()) {
        prop_assert_eq!(check(&policy, &snapshot, &plan(&policy, &snapshot)), Ok(()));
    }

    #[test]
    fn the_same_snapshot_gives_the_same_plan(policy in generate::policy(), snapshot in generate::snapshot()) {
        prop_assert_eq!(plan(&policy, &snapshot), plan(&policy, &snapshot));
    }

    #[test]
    fn a_plan_applied_and_observed_gives_no_further_action(
        policy in generate::policy(), snapshot in generate::snapshot()
    ) {
        let first = plan(&policy, &snapshot);
        let mut seen = applied(&policy, &snapshot, &first);
        let second = plan(&policy, &seen);
        // What ends makes a ghost of its worker and room for another; a launch that is answered is settled.
        let ended = first.actions.iter().any(|action| matches!(action, Action::Terminate { .. }));
        let settled = first.actions.iter().any(|action| matches!(action, Action::Settle { .. }));
        for action in &second.actions {
            let follows = match action {
                Action::Settle { .. } => true,
                Action::Unregister { .. } => ended,
                Action::Launch { .. } => ended || settled,
                Action::Send { order, .. } => order.kind == OrderKind::Undrain && (ended || settled),
                Action::Terminate { .. } | Action::Task { .. } => false,
            };
            prop_assert!(follows, "{action:?} after {first:?}");
        }
        for _ in 0..4 {
            let next = plan(&policy, &seen);
            prop_assert_eq!(check(&policy, &seen, &next), Ok(()));
            seen = applied(&policy, &seen, &next);
        }
        prop_assert_eq!(plan(&policy, &seen).actions, Vec::new());
    }

    #[test]
    fn before_it_wakes_time_alone_changes_nothing(policy in generate::policy(), snapshot in generate::snapshot()) {
        let mut seen = snapshot;
        for _ in 0..6 {
            let next = plan(&policy, &seen);
            seen = applied(&policy, &seen, &next);
        }
        let settled = plan(&policy, &seen);
        prop_assert_eq!(&settled.actions, &Vec::new());
        let wake_at = settled.wake_at.unwrap_or(seen.now.after(std::time::Duration::from_secs(86_400)));
        prop_assert!(wake_at > seen.now);
        seen.now = Time(wake_at.0 - 1);
        prop_assert_eq!(plan(&policy, &seen).actions, Vec::new());
    }

    #[test]
    fn no_queue_gets_more_launches_than_its_tasks_lack(
        policy in generate::policy(), snapshot in generate::snapshot()
    ) {
        let made = plan(&policy, &snapshot);
        for queue in policy.queues() {
            let new: u32 = launched(&snapshot, &made.actions)
                .filter(|(action, _)| matches!(action, Action::Launch { queue: of, .. } if of == queue))
                .map(|(_, count)| count)
                .sum();
            let told = made.actions.iter().filter(|action| match action {
                Action::Send { instance, order } => {
                    let known = &snapshot.instances[instance];
                    order.kind == OrderKind::Drain && known.state == State::Idle && known.queue == *queue
                }
                _ => false,
            });
            let idle = idle_of(&policy, &snapshot, queue.as_str()).saturating_sub(told.count());
            let waiting = snapshot.queues.get(queue).map_or(0, Vec::len) + returning(&snapshot, queue);
            prop_assert!(new as usize + idle <= waiting || new == 0);
        }
    }

    #[test]
    fn as_many_idle_instances_stay_as_tasks_wait(policy in generate::policy(), snapshot in generate::snapshot()) {
        let counts = counted(&snapshot);
        let over = |queue: &QueueName| {
            let mut pools = policy.pools.iter().filter(|pool| pool.queue == *queue);
            pools.any(|pool| counts.get(&pool.resource).is_some_and(|count| *count > pool.maximum))
        };
        let after = applied(&policy, &snapshot, &plan(&policy, &snapshot));
        let taken = |task: &planner::TaskId| {
            snapshot.instances.values().any(|known| known.state == State::Busy { task: Some(task.clone()) })
        };
        for queue in policy.queues().into_iter().filter(|queue| !over(queue)) {
            let waiting = snapshot.queues.get(queue).map_or(0, |tasks| tasks.iter().filter(|task| !taken(task)).count());
            let before = idle_of(&policy, &snapshot, queue.as_str());
            prop_assert!(idle_of(&policy, &after, queue.as_str()) >= waiting.min(before));
        }
    }

    #[test]
    fn no_pool_grows_beyond_its_maximum(policy in generate::policy(), snapshot in generate::snapshot()) {
        let after = applied(&policy, &snapshot, &plan(&policy, &snapshot));
        let before = counted(&snapshot);
        for (resource, count) in counted(&after) {
            let maximum = policy.pool(resource).map_or(0, |pool| pool.maximum);
            prop_assert!(count <= maximum.max(before.get(resource).copied().unwrap_or(0)), "{resource}: {count}");
        }
    }

    #[test]
    fn stale_input_removes_nothing(policy in generate::policy(), snapshot in generate::snapshot()) {
        let made = plan(&policy, &snapshot);
        let asked = |id: &InstanceId| snapshot.operator.drains.contains_key(id);
        if !snapshot.is_fresh(Source::Queues) {
            let closed = |action: &Action| closes_a_gate(action) && !told(action).is_some_and(asked);
            prop_assert!(!made.actions.iter().any(closed));
            prop_assert_eq!(launched(&snapshot, &made.actions).count(), 0);
        }
        if !snapshot.is_fresh(Source::Workers) || !snapshot.is_fresh(Source::Tasks) {
            let ends = made.actions.iter().any(|action| matches!(action, Action::Terminate { .. }));
            prop_assert!(!ends);
        }
        for action in &made.actions {
            if let Action::Send { instance, order } = action {
                let known = &snapshot.instances[instance];
                let of_pool = policy.pool(&known.resource).is_some_and(|pool| pool.queue == known.queue);
                let listed = snapshot.queues.contains_key(&known.queue);
                prop_assert!(order.kind == OrderKind::Undrain || listed || !of_pool || asked(instance));
            }
        }
    }

    #[test]
    fn nothing_with_a_task_in_sight_is_ended(policy in generate::policy(), snapshot in generate::snapshot()) {
        for action in plan(&policy, &snapshot).actions {
            if let Action::Terminate { instances, reason } = action {
                for id in instances {
                    let known = &snapshot.instances[&id];
                    prop_assert_eq!(snapshot.task_of(&known.worker), None);
                    let fits = match reason {
                        TerminateReason::Retired => known.state == State::Retired,
                        TerminateReason::NeverReady => known.is_coming() && known.ready_at.is_none(),
                        TerminateReason::Lost => matches!(known.state, State::Lost { .. }),
                        TerminateReason::Orphan => !known.accounted && known.ready_at.is_none(),
                        TerminateReason::Shutdown => false,
                    };
                    prop_assert!(fits && !known.kept, "{id} ended as {reason}");
                }
            }
        }
    }

    #[test]
    fn every_hold_has_words(policy in generate::policy(), snapshot in generate::snapshot()) {
        for hold in plan(&policy, &snapshot).holds {
            let words = hold.describe(snapshot.now);
            prop_assert!(words.len() > 10 && !words.contains('\n'), "{words:?}");
            if let Hold::Adopting { missing } = hold {
                prop_assert!(!missing.is_empty());
            }
        }
    }
}
