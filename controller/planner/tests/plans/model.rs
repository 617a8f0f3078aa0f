//! What a plan does when everything goes well, seen at once: the smallest world that obeys.

use std::collections::BTreeSet;

use planner::{
    Action, Answer, Instance, InstanceId, Intent, OrderKind, Plan, Policy, Signal, Snapshot, State, Time,
    Touch, Word, WorkerId,
};

/// The snapshot after every action of the plan went through and was observed, at the same instant.
pub(crate) fn applied(policy: &Policy, before: &Snapshot, plan: &Plan) -> Snapshot {
    let mut after = before.clone();
    for action in &plan.actions {
        match action {
            Action::Launch { intent, resource, queue, offering, count, token } => {
                if !after.intents.contains_key(intent) {
                    after.next_intent += 1;
                    after.launches.push((before.now, *count));
                }
                let shown =
                    after.instances.values().filter(|known| known.intent.as_ref() == Some(intent)).count();
                let mut ids = BTreeSet::new();
                for place in shown..*count as usize {
                    let id = InstanceId(format!("i-new-{intent}-{place}"));
                    let worker = WorkerId::of(&policy.prefix, resource, &offering.instance_type, &id);
                    ids.insert(id.clone());
                    let instance = Instance {
                        resource: resource.clone(),
                        queue: queue.clone(),
                        offering: offering.clone(),
                        zone: Some("zone-1".to_owned()),
                        worker,
                        intent: Some(intent.clone()),
                        kept: false,
                        accounted: true,
                        launched_at: after.now,
                        adopted_at: after.now,
                        ready_at: None,
                        state: State::Pending,
                        since: after.now,
                        signal: Signal::None,
                        finishing: false,
                        last_order: None,
                        word: Word::default(),
                    };
                    after.instances.insert(id, instance);
                }
                let known = after
                    .instances
                    .iter()
                    .filter(|(_, known)| known.intent.as_ref() == Some(intent))
                    .map(|(id, _)| id);
                ids.extend(known.cloned());
                let written = after.intents.entry(intent.clone()).or_insert_with(|| Intent {
                    resource: resource.clone(),
                    queue: queue.clone(),
                    offering: offering.clone(),
                    count: *count,
                    token: token.clone(),
                    created_at: before.now,
                    retry_at: before.now,
                    answered: None,
                });
                written.answered = Some(ids);
            }
            Action::Settle { intent } => {
                after.intents.remove(intent);
            }
            Action::Send { instance, order } => {
                let known = after.instances.get_mut(instance).unwrap();
                known.last_order = Some((*order, after.now, Answer::Awaited));
                match order.kind {
                    OrderKind::Drain => enter(known, State::Draining, after.now),
                    OrderKind::Retire => enter(known, State::Retiring, after.now),
                    OrderKind::Undrain => known.finishing = false,
                    OrderKind::Finish => {}
                }
            }
            Action::Terminate { instances, .. } => {
                for id in instances {
                    enter(after.instances.get_mut(id).unwrap(), State::Terminating, after.now);
                }
            }
            Action::Unregister { worker } => {
                after.workers.remove(worker);
            }
            // Nobody has looked at the task since.
            Action::Task { task, .. } => {
                after.touched.insert(task.clone(), Touch { at: after.now, not_before: after.now });
            }
        }
    }
    after
}

fn enter(instance: &mut Instance, state: State, now: Time) {
    if instance.state != state {
        instance.state = state;
        instance.since = now;
    }
}
