//! Any policy and any snapshot, the odd ones included: small names, so that everything meets everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use planner::{
    Answer, Boots, ClientToken, Freshness, Instance, InstanceId, Intent, IntentId, Loss, LostReason, Notice,
    Operator, Order, OrderKind, OtherWorker, Pause, Policy, Pool, QueueName, Requeue, RequeueWhen, Resource,
    ResourceName, SidecarMode, Signal, Snapshot, Source, State, TaskId, TaskRef, TaskStatus, Time, Touch,
    Word, Worker, WorkerId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::text::{NOW, offering};

/// Ages that lie on, just before and just after the limits of [`policy`].
const AGES: [u64; 14] = [
    0, 1, 999, 5_000, 9_999, 10_000, 59_999, 60_000, 119_999, 120_000, 300_000, 900_000, 1_800_000, 7_200_000,
];
const OFFERINGS: [&str; 4] = ["spot:a", "on-demand:a", "spot:b@zone-1", "spot:b@zone-2"];

fn ago() -> impl Strategy<Value = Time> {
    prop_oneof![select(&AGES[..]), 0..2_000_000u64].prop_map(|age| Time(NOW.0 - age))
}

fn queue() -> impl Strategy<Value = QueueName> {
    select(vec!["red", "blue", "green"]).prop_map(QueueName::from)
}

fn task() -> impl Strategy<Value = TaskId> {
    (0..30u32).prop_map(|number| TaskId(format!("t{number}")))
}

/// A budget over up to five resources; each stands in one queue.
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let pool = (queue(), 0..5u32, vec(select(&OFFERINGS[..]), 1..3), prop::bool::weighted(0.1));
    let limits = (select(vec![0, 60, 300]), select(vec![60, 120, 1800]), select(vec![0, 60]), any::<bool>());
    let requeue = (select(vec![RequeueWhen::Never, RequeueWhen::Spot, RequeueWhen::All]), any::<bool>());
    (vec(pool, 0..5), limits, requeue).prop_map(|(lines, (idle, spin_up, grace, off), (when, reset))| {
        let mut pools = Vec::new();
        let mut resources = BTreeMap::new();
        for (number, (queue, maximum, offerings, blocked)) in lines.into_iter().enumerate() {
            let resource = ResourceName(format!("r{number}"));
            let blocked = blocked.then(|| "no sidecar".to_owned());
            let offerings = offerings.into_iter().map(offering).collect();
            resources.insert(resource.clone(), Resource { offerings, blocked });
            pools.push(Pool { queue, resource, maximum });
        }
        Policy {
            fleet: "fleet".into(),
            prefix: "p".to_owned(),
            pools,
            resources,
            max_idle: Duration::from_secs(idle),
            max_spin_up: Duration::from_secs(spin_up),
            sidecar: if off { SidecarMode::Off } else { SidecarMode::Required },
            silent_grace: Duration::from_secs(grace),
            order_patience: Duration::from_secs(10),
            launches_per_minute: 600,
            shutdown: None,
            requeue: Requeue { when, reset },
        }
    })
}

fn state() -> impl Strategy<Value = State> {
    let simple = select(vec![
        State::Requested,
        State::Pending,
        State::Booting { phase: "script".to_owned() },
        State::Idle,
        State::Idle,
        State::Idle,
        State::Busy { task: None },
        State::Draining,
        State::Drained,
        State::Drained,
        State::Retiring,
        State::Retired,
        State::Retired,
        State::Terminating,
        State::Gone,
        State::Lost { reason: LostReason::SessionLost },
        State::Lost { reason: LostReason::AgentDead },
    ]);
    prop_oneof![8 => simple, 1 => task().prop_map(|task| State::Busy { task: Some(task) })]
}

fn last_order() -> impl Strategy<Value = Option<(Order, Time, Answer)>> {
    let kind = select(vec![OrderKind::Drain, OrderKind::Undrain, OrderKind::Retire, OrderKind::Finish]);
    let answer = select(vec![
        Answer::Awaited,
        Answer::Done,
        Answer::RefusedBusy(None),
        Answer::RefusedUnsure,
        Answer::RefusedStale,
    ]);
    let order =
        (1..5u64, 1..4u64, kind).prop_map(|(epoch, generation, kind)| Order { epoch, generation, kind });
    prop::option::of((order, ago(), answer))
}

fn instance() -> impl Strategy<Value = Instance> {
    let signal = prop_oneof![5 => Just(Signal::Sidecar), 1 => Just(Signal::Clearml), 1 => Just(Signal::None)];
    let life = (ago(), ago(), ago(), prop::option::of(ago()));
    let marks = (prop::bool::weighted(0.1), prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    let tags = (0..6u32, queue(), prop::option::of(0..4u32), any::<bool>(), marks);
    (tags, state(), life, signal, last_order(), tasks::word()).prop_map(
        |(
            (resource, queue, intent, listed, (kept, accounted, finishing)),
            state,
            (launched_at, adopted_at, since, ready_at),
            signal,
            last_order,
            word,
        )| Instance {
            resource: ResourceName(format!("r{resource}")),
            queue,
            offering: offering("spot:a"),
            zone: listed.then(|| "zone-1".to_owned()),
            worker: "unnamed".into(),
            intent: intent.map(|number| IntentId(format!("2-{number}"))),
            kept,
            accounted,
            launched_at,
            adopted_at,
            ready_at,
            since,
            signal,
            finishing: finishing && matches!(state, State::Idle | State::Busy { .. }),
            last_order,
            state,
            word,
        },
    )
}

fn intent() -> impl Strategy<Value = Intent> {
    let answered = prop::option::of(prop::collection::btree_set(0..30u32, 0..4));
    (0..6u32, queue(), 0..4u32, ago(), prop::bool::ANY, answered).prop_map(
        |(resource, queue, count, created_at, later, answered)| Intent {
            resource: ResourceName(format!("r{resource}")),
            queue,
            offering: offering("spot:a"),
            count,
            token: "replaced".into(),
            created_at,
            retry_at: if later { Time(NOW.0 + 5000) } else { created_at },
            answered: answered.map(|ids| ids.into_iter().map(id).collect()),
        },
    )
}

fn boots() -> impl Strategy<Value = Boots> {
    (any::<bool>(), select(vec![0, 0, 0, 1, 2, 3, 4, 40]), ago()).prop_map(
        |(proven, failed, last_failed_at)| Boots {
            proven: proven && failed < 3,
            failed,
            last_failed_at,
            reason: "apt failed".to_owned(),
        },
    )
}

fn launches() -> impl Strategy<Value = Vec<(Time, u32)>> {
    vec((ago(), select(vec![1, 3, 100, 590, 1000])), 0..3).prop_map(|mut launches| {
        launches.sort_unstable();
        launches
    })
}

fn id(number: u32) -> InstanceId {
    InstanceId(format!("i-{number:02}"))
}

fn freshness() -> impl Strategy<Value = BTreeMap<Source, Freshness>> {
    let age = || {
        let stale = prop_oneof![3 => Just(None), 1 => ago().prop_map(Some)];
        (select(vec![0, 1, 500, 4_000, 5_000, 30_000]), stale)
            .prop_map(|(age, stale_since)| Freshness { read_began_at: Time(NOW.0 - age), stale_since })
    };
    let read = || prop::option::weighted(0.95, age());
    (read(), read(), prop::option::of(age()), read()).prop_map(|(queues, workers, tasks, cloud)| {
        [(Source::Queues, queues), (Source::Workers, workers), (Source::Tasks, tasks), (Source::Cloud, cloud)]
            .into_iter()
            .filter_map(|(source, age)| Some((source, age?)))
            .collect()
    })
}

/// Mostly, nobody has asked for anything.
fn operator() -> impl Strategy<Value = Operator> {
    let pause = (ago(), any::<bool>())
        .prop_map(|(since, told)| Pause { since, reason: told.then(|| "maintenance".to_owned()) });
    let drains = prop_oneof![
        2 => Just(BTreeMap::new()),
        1 => prop::collection::btree_map((0..30u32).prop_map(id), ago(), 0..12),
    ];
    (prop::option::weighted(0.1, pause), drains).prop_map(|(paused, drains)| Operator { paused, drains })
}

/// What happens to be known.
pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let run = (ago(), prop::bool::weighted(0.1), prop::bool::weighted(0.9), freshness());
    let queues = prop::collection::btree_map(queue(), vec(task(), 0..12), 0..4);
    let fleet = (prop::collection::btree_map(0..30u32, instance(), 0..20), vec(intent(), 0..4));
    let workers = vec((0..30u32, prop::bool::weighted(0.2), prop::option::of(task())), 0..12);
    let running = tasks::troubles();
    let rest = (
        prop::collection::btree_map(select(&OFFERINGS[..]), -10_000i64..10_000, 0..3),
        prop::collection::btree_map(0..10u32, tasks::loss(), 0..4),
        tasks::others(),
        prop::collection::btree_map(
            (0..6u32).prop_map(|number| ResourceName(format!("r{number}"))),
            boots(),
            0..6,
        ),
        launches(),
        operator(),
    );
    (run, queues, fleet, workers, running, rest).prop_map(
        |(
            (started_at, journal_is_new, lease_held, freshness),
            queues,
            (fleet, intents),
            workers,
            running,
            rest,
        )| {
            let mut instances: BTreeMap<InstanceId, Instance> = BTreeMap::new();
            for (number, mut instance) in fleet {
                instance.worker = worker(&instance, number);
                instances.insert(id(number), instance);
            }
            let known = instances.clone();
            let name = |number: u32, child: bool| {
                let own = known.get(&id(number)).map_or_else(|| ghost(number), |known| known.worker.clone());
                if child { WorkerId(format!("{own}:0")) } else { own }
            };
            let (unavailable, gone, (others, touched, server_ahead_ms), boots, launches, operator) = rest;
            let (mut running, unplaced, mut marked) = running;
            if let Some(number) = gone.keys().next() {
                for drawn in marked.iter_mut().filter(|drawn| drawn.tied) {
                    drawn.task.marks.instance = Some(id(*number));
                }
            }
            for drawn in running.iter_mut().filter(|drawn| drawn.tied) {
                let Some((number, _)) = drawn.last else { continue };
                drawn.task.marks.instance = Some(id(number));
                if let Some(instance) = instances.get_mut(&id(number)) {
                    instance.word.held.insert(drawn.task.task.clone());
                }
            }
            let named =
                |tasks: Vec<tasks::Drawn>| tasks.into_iter().map(|drawn| drawn.named(&name)).collect();
            Snapshot {
                now: NOW,
                started_at,
                journal_is_new,
                lease_held,
                epoch: 3,
                next_intent: 7,
                freshness,
                queues,
                workers: workers
                    .into_iter()
                    .map(|(number, child, task)| (name(number, child), Worker { task }))
                    .collect(),
                running: named(running),
                unplaced: named(unplaced),
                marked: named(marked),
                touched,
                server_ahead_ms,
                others,
                intents: number(intents),
                unavailable: unavailable
                    .into_iter()
                    .map(|(text, ahead)| {
                        let until = Time(NOW.0.saturating_add_signed(ahead));
                        (offering(text), (until, "InsufficientInstanceCapacity".to_owned()))
                    })
                    .collect(),
                proven_gone: gone.keys().map(|number| id(*number)).collect::<BTreeSet<_>>(),
                losses: gone.into_iter().map(|(number, loss)| (id(number), loss)).collect(),
                boots,
                launches,
                operator,
                instances,
            }
        },
    )
}

/// Tasks in all kinds of trouble, and what sidecars say of them.
mod tasks {
    use planner::{Cause, Marks, NOT_RESPONSIVE, REASON, STOPPING};

    use super::*;

    /// A task whose worker has no name yet.
    #[derive(Clone, Debug)]
    pub(super) struct Drawn {
        pub(super) task: TaskRef,
        pub(super) last: Option<(u32, bool)>,
        /// The machine of its last worker holds it, and is the one of its marks.
        pub(super) tied: bool,
    }

    impl Drawn {
        pub(super) fn named(self, name: &impl Fn(u32, bool) -> WorkerId) -> TaskRef {
            TaskRef { last_worker: self.last.map(|(number, child)| name(number, child)), ..self.task }
        }
    }

    fn cause() -> impl Strategy<Value = Cause> {
        select(vec![Cause::Spot, Cause::Gone, Cause::Stranded])
    }

    fn marks(changed: Time) -> impl Strategy<Value = Marks> {
        let stop = prop_oneof![2 => Just(None), 2 => Just(Some(changed)), 1 => ago().prop_map(Some)];
        let resetting = prop::option::weighted(0.2, 1..4u32);
        let where_from = (prop::option::weighted(0.9, cause()), prop::option::weighted(0.9, 0..10u32));
        (any::<bool>(), where_from, any::<bool>(), 0..5u32, stop, resetting).prop_map(
            |(tagged, (cause, instance), aborting, attempts, stopped_at, resetting)| Marks {
                tagged,
                cause,
                instance: instance.map(id),
                aborting,
                attempts,
                stopped_at,
                resetting,
            },
        )
    }

    fn drawn(status: impl Strategy<Value = TaskStatus>) -> impl Strategy<Value = Drawn> {
        let words = (select(vec!["", STOPPING, NOT_RESPONSIVE]), select(vec!["", REASON, "user abort"]));
        let times = (prop::option::weighted(0.9, ago()), prop::option::weighted(0.9, ago()), ago(), ago());
        let last = prop::option::weighted(0.9, (0..10u32, prop::bool::weighted(0.2)));
        let rest = (prop::option::weighted(0.9, queue()), select(vec![0, 60]), last);
        (task(), status, words, times, rest).prop_flat_map(|(task, status, words, times, rest)| {
            let (changed, update, unchanged_since, out) = times;
            let (queue, abort_timeout, last) = rest;
            (marks(changed.unwrap_or(NOW)), any::<bool>()).prop_map(move |(marks, tied)| Drawn {
                tied,
                task: TaskRef {
                    task: task.clone(),
                    status,
                    status_changed: changed,
                    last_update: update,
                    status_message: words.0.to_owned(),
                    status_reason: words.1.to_owned(),
                    queue: queue.clone(),
                    last_worker: None,
                    abort_timeout,
                    marks,
                    unchanged_since,
                    out_since: (status == TaskStatus::Queued).then_some(out),
                },
                last,
            })
        })
    }

    /// Those in progress, those that left their queue, and those with a tag; each task once.
    pub(super) fn troubles() -> impl Strategy<Value = (Vec<Drawn>, Vec<Drawn>, Vec<Drawn>)> {
        let marked =
            select(vec![TaskStatus::Created, TaskStatus::Queued, TaskStatus::Stopped, TaskStatus::Ended]);
        let lists = (
            vec(drawn(Just(TaskStatus::InProgress)), 0..6),
            vec(drawn(Just(TaskStatus::Queued)), 0..4),
            vec(drawn(marked), 0..4),
        );
        lists.prop_map(|(running, unplaced, mut marked)| {
            let mut seen = BTreeSet::new();
            let mut once = |list: Vec<Drawn>| -> Vec<Drawn> {
                list.into_iter().filter(|drawn| seen.insert(drawn.task.task.clone())).collect()
            };
            for drawn in &mut marked {
                drawn.task.marks.tagged = true;
            }
            (once(running), once(unplaced), once(marked))
        })
    }

    pub(super) fn loss() -> impl Strategy<Value = Loss> {
        (ago(), any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(first_seen, by_spot, was_ours)| Loss {
            first_seen,
            by_spot,
            was_ours,
        })
    }

    type Others = (BTreeMap<WorkerId, OtherWorker>, BTreeMap<TaskId, Touch>, Option<i64>);

    pub(super) fn others() -> impl Strategy<Value = Others> {
        let other = (prop::collection::btree_set(queue(), 0..2), prop::option::of(task()))
            .prop_map(|(queues, task)| OtherWorker { queues, task });
        let workers =
            prop::collection::btree_map(select(vec!["x:0", "y:0"]).prop_map(WorkerId::from), other, 0..2);
        let touch =
            (ago(), 0..20_000u64).prop_map(|(at, pause)| Touch { at, not_before: Time(at.0 + pause) });
        let ahead = prop::option::weighted(0.9, -600_000..600_000i64);
        (workers, prop::collection::btree_map(task(), touch, 0..4), ahead)
    }

    pub(super) fn word() -> impl Strategy<Value = Word> {
        let notice = (ago(), -400_000..120_000i64, any::<bool>()).prop_map(|(seen_at, ahead, killed)| {
            Notice { seen_at, ends_at: Time(NOW.0.saturating_add_signed(ahead)), killed }
        });
        let some = || prop::collection::btree_set(task(), 0..2);
        let told = prop_oneof![1 => Just(None), 2 => (0..20_000u64).prop_map(|age| Some(Time(NOW.0 - age)))];
        (some(), told, prop::option::weighted(0.7, some()), prop::option::weighted(0.35, notice))
            .prop_map(|(held, settled_at, at_work, notice)| Word { held, settled_at, at_work, notice })
    }
}

fn worker(instance: &Instance, number: u32) -> WorkerId {
    WorkerId::of("p", &instance.resource, &instance.offering.instance_type, &id(number))
}

fn ghost(number: u32) -> WorkerId {
    WorkerId(format!("p:r0:a:{}", id(number)))
}

fn number(intents: Vec<Intent>) -> BTreeMap<IntentId, Intent> {
    let numbered = intents.into_iter().enumerate().map(|(number, mut intent)| {
        intent.token = ClientToken(format!("token-{number}"));
        (IntentId(format!("2-{number}")), intent)
    });
    numbered.collect()
}
