//! Every step with a task stands on each of its facts: take one away, and neither is it planned nor does
//! `check` let it pass. And over any snapshot: no task that somebody may run is touched.

use std::cell::RefCell;
use std::collections::BTreeMap;

use planner::{Action, Plan, Snapshot, TaskStatus, TaskStep, check, plan};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::generate;
use crate::show::show;
use crate::text::{NOW, parse};

/// A world in which a step is right, the step as it is shown, and changes of the world that make it wrong.
struct Case {
    world: &'static str,
    step: &'static str,
    wrong: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 7] = [
    Case {
        world: "
            pool gpu g4 max=2 on-demand:a
            read tasks=-4s queues=-1s workers=-2s
            queue gpu
            instance i-1 g4 gpu idle since=-2m settled=-1s
            left t1 gpu out=-70s changed=-5m
        ",
        step: "task t1: enqueue in gpu: Limbo",
        wrong: &[
            ("out=-70s", "out=-50s"),
            ("tasks=-4s", "tasks=-20s"),
            ("tasks=-4s", "tasks=-4s/stale-1s"),
            ("queues=-1s", "queues=-9s"),
            ("queues=-1s", "queues=-1s/stale-1s"),
            ("workers=-2s", "workers=-20s"),
            ("settled=-1s", "settled=-75s"),
            ("settled=-1s", "settled=never"),
            ("idle since=-2m settled=-1s", "lost since=-2m"),
            ("idle since=-2m settled=-1s", "busy:t1 since=-2m settled=-1s"),
            ("idle since=-2m settled=-1s", "busy since=-2m settled=-75s"),
            ("idle since=-2m settled=-1s", "booting:script intent=2-1 launched=-10m"),
            ("queue gpu\n", "queue gpu\nother theirs:0 gpu\n"),
            ("queue gpu\n", "queue gpu\nother theirs:0 away task=t1\n"),
            ("queue gpu\n", "queue gpu\nworker i-1 task=t1\n"),
            ("queue gpu\n", ""),
            ("queue gpu\n", "queue gpu\nrun lease=lost\n"),
            ("queue gpu\n", "queue gpu\npolicy shutdown=none\n"),
            ("queue gpu\n", "queue gpu\npolicy sidecar=off\n"),
            ("queue gpu\n", "queue gpu\ntouched t1 at=-1s\n"),
            ("pool gpu", "pool other"),
        ],
    },
    Case {
        world: "
            pool gpu g4 max=2 on-demand:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            gone i-1 since=-40s
            running t1 i-1 queue=gpu changed=-20m same=-20m
        ",
        step: "task t1: stop: clearml-autoscaler: instance i-1 is gone",
        wrong: &[
            ("gone i-1 since=-40s", "instance i-1 g4 gpu gone"),
            ("gone i-1 since=-40s", "instance i-1 g4 gpu lost since=-3h"),
            ("since=-40s", "since=-20s"),
            (
                "since=-40s\n            running t1 i-1",
                "stranger since=-40s\n            running t1 i-1 update=-1m",
            ),
            ("changed=-20m same=-20m", "changed=-39s same=-39s"),
            ("same=-20m", "same=-20s"),
            ("tasks=-1s", "tasks=-1s/stale-1s"),
            ("workers=-2s", "workers=-2s/stale-1s"),
            ("workers=-2s", "workers=-50s"),
            ("queue gpu\n", "queue gpu\nserver unknown\n"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu busy:t1 since=-1m\n"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu lost held=t1\n"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu idle since=-1m\nworker i-2 task=t1\n"),
            ("queue gpu\n", "queue gpu\nother theirs:0 away task=t1\n"),
            ("queue gpu\n", "queue gpu\nrun lease=lost\n"),
            ("running t1 i-1", "running t1 i-2"),
            ("running t1 i-1", "marked t1 stopped gpu worker=i-1"),
        ],
    },
    Case {
        world: "
            policy requeue=all
            pool gpu g4 max=2 on-demand:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            instance i-1 g4 gpu idle since=-70s work=none
            running t1 i-1 queue=gpu changed=-2m cause=stranded of=i-1
        ",
        step: "task t1: stop: clearml-autoscaler: instance i-1 lives and does not run it",
        wrong: &[
            ("work=none", "work=t1"),
            ("work=none", ""),
            ("work=none", "work=none settled=-15s"),
            ("since=-70s", "since=-50s"),
            ("changed=-2m", "changed=-65s"),
            ("changed=-2m", "changed=-2m same=-50s"),
            ("idle since=-70s", "busy:t1 since=-70s"),
            ("idle since=-70s", "busy since=-70s"),
            ("idle since=-70s", "lost since=-70s"),
            ("idle since=-70s", "idle held=t1 since=-70s"),
            ("idle since=-70s", "idle signal=clearml since=-70s"),
            ("queue gpu\n", "queue gpu\nserver unknown\n"),
        ],
    },
    Case {
        world: "
            pool gpu g4 max=2 spot:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            instance i-1 g4 gpu busy:t1 since=-1h notice=+20s killed=yes work=none
            running t1 i-1 queue=gpu changed=-1h cause=spot of=i-1
        ",
        step: "task t1: stop: clearml-autoscaler: AWS took the spot instance i-1 back",
        wrong: &[
            ("notice=+20s killed=yes", ""),
            ("notice=+20s killed=yes", "notice=+20s"),
            ("work=none", "work=t1"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu busy:t1 since=-1m\n"),
        ],
    },
    Case {
        world: "
            pool gpu g4 max=2 spot:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            gone i-1 spot since=-5s
            marked t1 stopped gpu cause=spot of=i-1 changed=-10s attempts=2 \"Forced stop (non-responsive)|clearml-autoscaler: x\"
        ",
        step: "task t1: claim attempt 3",
        wrong: &[
            ("attempts=2", "attempts=3"),
            ("clearml-autoscaler: x", "by hand"),
            ("Forced stop (non-responsive)", "Stopped by Real User"),
            ("gone i-1 spot since=-5s", "instance i-1 g4 gpu busy notice=+20s"),
            ("cause=spot", "cause=gone"),
            ("queue gpu\n", "queue gpu\npolicy requeue=none\n"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu busy:t1 since=-1m\n"),
            ("queue gpu\n", "queue gpu\nother theirs:0 away task=t1\n"),
        ],
    },
    Case {
        world: "
            pool gpu g4 max=2 spot:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            gone i-1 spot since=-5s
            marked t1 stopped gpu cause=spot of=i-1 changed=-10s counted=-10s attempts=3 \"|user abort\"
        ",
        step: "task t1: enqueue in gpu: Interrupted(Spot)",
        wrong: &[
            ("counted=-10s", "counted=-1m"),
            ("counted=-10s", ""),
            ("gone i-1 spot since=-5s", "instance i-1 g4 gpu busy notice=+20s"),
            ("queue gpu\n", ""),
            ("queue gpu\n", "queue gpu\npolicy requeue=none\n"),
            ("queue gpu\n", "queue gpu\ninstance i-2 g4 gpu busy:t1 since=-1m\n"),
        ],
    },
    Case {
        world: "
            pool gpu g4 max=2 spot:a
            read tasks=-1s queues=-1s workers=-2s
            queue gpu
            instance i-1 g4 gpu busy:t1 since=-1h notice=+90s
            running t1 i-1 queue=gpu changed=-1h abort=60 cause=spot of=i-1 aborting=yes
        ",
        step: "task t1: abort",
        wrong: &[
            ("notice=+90s", ""),
            ("aborting=yes", ""),
            ("aborting=yes", "aborting=yes \"stopping|clearml-autoscaler: x\""),
            ("cause=spot of=i-1", "cause=spot of=i-0"),
        ],
    },
];

#[test]
fn a_step_stands_on_each_of_its_facts() {
    for Case { world, step, wrong } in CASES {
        let (policy, snapshot) = parse(world);
        let right = plan(&policy, &snapshot);
        let text = show(&right, NOW);
        assert!(text.lines().any(|line| line == step), "{step}\n{text}");
        assert_eq!(check(&policy, &snapshot, &right), Ok(()), "{step}");
        let is_step = |action: &&Action| matches!(action, Action::Task { task, .. } if task.as_str() == "t1");
        let action = right.actions.iter().find(is_step).unwrap();
        for (fact, instead) in wrong {
            assert!(world.contains(fact), "{step}: no {fact}");
            let (policy, snapshot) = parse(&world.replace(fact, instead));
            let made = plan(&policy, &snapshot);
            let shown = show(&made, NOW);
            assert!(!shown.lines().any(|line| line == step), "{step} with {instead:?} for {fact:?}\n{shown}");
            assert_eq!(check(&policy, &snapshot, &made), Ok(()), "{step} with {instead:?} for {fact:?}");
            let wrong = Plan { actions: vec![seen_anew(&snapshot, action)], ..Plan::default() };
            let passed = check(&policy, &snapshot, &wrong);
            assert!(passed.is_err(), "{step} passes with {instead:?} for {fact:?}");
        }
    }
}

/// The step on the task as this snapshot has it: nothing but the fact that was changed is wrong with it.
fn seen_anew(snapshot: &Snapshot, action: &Action) -> Action {
    let mut action = action.clone();
    if let Action::Task { task: id, seen, step } = &mut action {
        let lists = [&snapshot.running, &snapshot.unplaced, &snapshot.marked];
        let mut tasks = lists.into_iter().flatten();
        if let Some(task) = tasks.find(|task| task.task == *id) {
            *seen = task.seen();
            if let TaskStep::Claim { stopped_at, attempt, .. } = step {
                (*stopped_at, *attempt) = (task.status_changed, task.marks.attempts + 1);
            }
        }
    }
    action
}

#[test]
fn no_more_steps_than_one_pass_takes_and_the_rest_follows() {
    let mut world =
        "pool gpu g4 max=2 on-demand:a\nread tasks=-1s\nqueue gpu\ngone i-1 since=-40s\n".to_owned();
    for number in 0..30 {
        world += &format!("running t{number} i-1 queue=gpu changed=-20m\n");
    }
    let (policy, snapshot) = parse(&world);
    let made = plan(&policy, &snapshot);
    assert_eq!(made.actions.len(), 20);
    assert!(show(&made, NOW).contains("hold 10 tasks more to be taken care of with the next pass"));
    assert_eq!(check(&policy, &snapshot, &made), Ok(()));
}

/// Tasks that a session holds on a machine that is not the one they lost.
fn held_elsewhere(snapshot: &Snapshot, action: &Action) -> bool {
    let Action::Task { task, step, .. } = action else { return false };
    let own = match step {
        TaskStep::Stop { instance, .. } | TaskStep::Note { instance, .. } => Some(instance),
        TaskStep::Abort
        | TaskStep::Claim { .. }
        | TaskStep::Reset
        | TaskStep::Enqueue { .. }
        | TaskStep::Release { .. } => None,
    };
    snapshot.instances.iter().any(|(id, instance)| {
        let marked = snapshot.marked.iter().find(|known| known.task == *task);
        let noted = marked.and_then(|known| known.marks.instance.as_ref());
        let gone = snapshot.proven_gone.contains(id);
        instance.holds(task) && !gone && Some(id) != own && Some(id) != noted
    })
}

proptest! {
    #[test]
    fn no_task_that_another_session_holds_is_stopped_or_put_back(
        policy in generate::policy(), snapshot in generate::snapshot()
    ) {
        for action in plan(&policy, &snapshot).actions {
            let grave = matches!(
                &action,
                Action::Task { step: TaskStep::Stop { .. } | TaskStep::Claim { .. }, .. }
            );
            let limbo = matches!(
                &action,
                Action::Task { seen, step: TaskStep::Enqueue { .. }, .. } if seen.status == TaskStatus::Queued
            );
            prop_assert!(!(grave || limbo) || !held_elsewhere(&snapshot, &action), "{:?}", action);
        }
    }
}

/// The properties say something only if the snapshots lead to steps of every kind.
#[test]
fn any_snapshot_leads_to_every_kind_of_step_now_and_then() {
    let counts: RefCell<BTreeMap<&str, u32>> = RefCell::default();
    let batch = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    for _ in 0..50 {
        let made = TestRunner::new(batch.clone()).run(
            &(generate::policy(), generate::snapshot()),
            |(policy, snapshot)| {
                for action in plan(&policy, &snapshot).actions {
                    if let Action::Task { step, .. } = action {
                        *counts.borrow_mut().entry(kind(&step)).or_default() += 1;
                    }
                }
                Ok(())
            },
        );
        made.unwrap();
        if counts.borrow().len() == 7 {
            return;
        }
    }
    panic!("{counts:?}");
}

fn kind(step: &TaskStep) -> &'static str {
    match step {
        TaskStep::Note { .. } => "note",
        TaskStep::Abort => "abort",
        TaskStep::Stop { .. } => "stop",
        TaskStep::Claim { .. } => "claim",
        TaskStep::Reset => "reset",
        TaskStep::Enqueue { .. } => "enqueue",
        TaskStep::Release { .. } => "release",
    }
}
