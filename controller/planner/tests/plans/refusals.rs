//! `check` refuses what the planner must never plan: each of these plans is made by hand.

use planner::{Action, ClientToken, Order, OrderKind, Plan, Policy, Snapshot, TerminateReason, Time, check};

use crate::text::{NOW, offering, parse};

const WORLD: &str = "
pool gpu g4 max=2 spot:g4dn.xlarge on-demand:g4dn.xlarge
read tasks=-1s
queue gpu t1
instance i-idle g4 gpu idle since=-5m
instance i-busy g4 gpu busy:t9 since=-5m
instance i-gone g4 gpu gone
instance i-boot g5 other booting:script launched=-1m
intent 2-1 g4 count=1 created=-1m retry=+5s
worker i-idle
worker i-gone
";

fn refused(world: &str, actions: Vec<Action>, words: &str) {
    let (policy, snapshot) = parse(world);
    let plan = Plan { actions, ..Plan::default() };
    refused_plan(&policy, &snapshot, &plan, words);
}

fn refused_plan(policy: &Policy, snapshot: &Snapshot, plan: &Plan, words: &str) {
    let violation = check(policy, snapshot, plan).expect_err("the plan passed").to_string();
    assert!(violation.contains(words), "{violation}");
}

fn terminate(id: &str, reason: TerminateReason) -> Action {
    Action::Terminate { instances: vec![id.into()], reason }
}

fn launch(intent: &str, count: u32, token: &str) -> Action {
    Action::Launch {
        intent: intent.into(),
        resource: "g4".into(),
        queue: "gpu".into(),
        offering: offering("spot:g4dn.xlarge"),
        count,
        token: ClientToken::from(token),
    }
}

fn send(id: &str, kind: OrderKind) -> Action {
    Action::Send { instance: id.into(), order: Order { epoch: 3, generation: 2, kind } }
}

#[test]
fn an_instance_that_was_not_retired_is_not_ended() {
    for id in ["i-idle", "i-busy"] {
        for reason in [TerminateReason::Retired, TerminateReason::NeverReady, TerminateReason::Lost] {
            refused(WORLD, vec![terminate(id, reason)], "ended as");
        }
        for shutdown in ["", "policy shutdown=none\n", "policy shutdown=idle\n"] {
            let world = format!("{shutdown}{WORLD}");
            refused(&world, vec![terminate(id, TerminateReason::Shutdown)], "nobody said so");
        }
    }
}

#[test]
fn a_fleet_that_is_left_as_it_is_or_ended_whole_is_told_nothing() {
    for action in ["none", "all"] {
        let world = format!("policy shutdown={action}\n{WORLD}");
        refused(&world, vec![send("i-idle", OrderKind::Drain)], "at shutdown");
    }
}

#[test]
fn an_instance_within_its_limit_is_not_ended() {
    refused(WORLD, vec![terminate("i-boot", TerminateReason::NeverReady)], "before its time");
}

#[test]
fn a_retired_instance_is_not_ended_by_an_old_look() {
    let world = "pool gpu g4 max=2 spot:a\nread tasks=-1m\ninstance i-1 g4 gpu retired since=-30s";
    refused(world, vec![terminate("i-1", TerminateReason::Retired)], "without a fresh look");
}

#[test]
fn a_task_of_a_child_of_its_worker_keeps_an_instance() {
    let world = "pool gpu g4 max=2 spot:a\nread tasks=-1s\ninstance i-1 g4 gpu retired since=-30s\n";
    let listed = format!("{world}worker i-1:gpu1 task=t1");
    let running = format!("{world}running t1 i-1:gpu1");
    for world in [listed, running] {
        refused(&world, vec![terminate("i-1", TerminateReason::Retired)], "task in sight");
    }
}

#[test]
fn limbo_keeps_a_lost_instance() {
    let world = "pool gpu g4 max=2 spot:a\nread tasks=-1s\nleft t1 gpu out=-2m\ninstance i-1 g4 gpu lost since=-1h\nworker i-1";
    refused(world, vec![terminate("i-1", TerminateReason::Lost)], "ended as");
}

#[test]
fn an_instance_that_nobody_knows_is_neither_ended_nor_told() {
    refused(WORLD, vec![terminate("i-9", TerminateReason::Retired)], "not on record");
    refused(WORLD, vec![send("i-9", OrderKind::Drain)], "not on record");
}

#[test]
fn no_instance_is_told_two_things() {
    let twice = vec![send("i-idle", OrderKind::Drain), send("i-idle", OrderKind::Drain)];
    refused(WORLD, twice, "told two things");
}

#[test]
fn an_idle_instance_within_its_limit_is_not_drained() {
    refused(WORLD, vec![send("i-idle", OrderKind::Drain)], "before their limit");
}

#[test]
fn an_idle_instance_that_a_task_waits_for_is_not_drained() {
    let world = WORLD.replace("idle since=-5m", "idle since=-1h");
    refused(&world, vec![send("i-idle", OrderKind::Drain)], "1 tasks wait and 0 of 1");
}

#[test]
fn an_order_fits_the_instance() {
    refused(WORLD, vec![send("i-busy", OrderKind::Drain)], "told to drain");
    refused(WORLD, vec![send("i-idle", OrderKind::Retire)], "told to retire");
    refused(WORLD, vec![send("i-idle", OrderKind::Undrain)], "told to undrain");
    refused(WORLD, vec![send("i-boot", OrderKind::Drain)], "no session");
}

#[test]
fn orders_count_upwards() {
    let world =
        WORLD.replace("idle since=-5m", "idle since=-1h order=undrain/3.2/-1m/done").replace("gpu t1", "gpu");
    refused(&world, vec![send("i-idle", OrderKind::Drain)], "refuse as old");
}

#[test]
fn stale_queues_drain_nothing() {
    let world = WORLD.replace("idle since=-5m", "idle since=-1h").replace("gpu t1", "gpu")
        + "read queues=-1m/stale-50s";
    refused(&world, vec![send("i-idle", OrderKind::Drain)], "stale queues");
}

#[test]
fn a_queue_that_nobody_can_see_drains_nothing() {
    let world = WORLD.replace("idle since=-5m", "idle since=-1h").replace("queue gpu t1", "");
    refused(&world, vec![send("i-idle", OrderKind::Drain)], "nobody knows what waits");
}

#[test]
fn a_gate_that_just_closed_is_not_closed_for_good() {
    let world = "pool gpu g4 max=2 spot:a\nqueue gpu\ninstance i-1 g4 gpu drained since=-500ms";
    refused(world, vec![send("i-1", OrderKind::Retire)], "without a look at its queue");
}

#[test]
fn a_launch_needs_the_lease_the_journal_and_fresh_data() {
    let world = "pool gpu g4 max=2 spot:g4dn.xlarge\nqueue gpu t1\n";
    for (more, words) in [
        ("run lease=lost", "lease"),
        ("run started=-59999ms journal=new", "journal"),
        ("read cloud=-1m/stale-1s", "stale EC2"),
        ("read queues=-1m/stale-1s", "stale queues"),
        ("read workers=never", "before every source"),
    ] {
        refused(&format!("{world}{more}"), vec![launch("3-1", 1, "token")], words);
    }
}

#[test]
fn launches_in_flight_count_against_the_maximum() {
    refused(WORLD, vec![launch("3-1", 1, "token")], "4 instances of g4, 2 at most");
}

#[test]
fn more_is_not_launched_than_waits() {
    let world = "pool gpu g4 max=9 spot:g4dn.xlarge\nqueue gpu t1\n";
    refused(world, vec![launch("3-1", 2, "token")], "2 launches for 1 tasks");
}

#[test]
fn a_launch_is_repeated_as_it_was_or_not_at_all() {
    refused(WORLD, vec![launch("2-1", 1, "token-of-2-1")], "too early");
    let world = WORLD.replace("retry=+5s", "retry=-1s");
    refused(&world, vec![launch("2-1", 2, "token-of-2-1")], "otherwise than it was written");
    refused(&world, vec![launch("2-1", 1, "another")], "otherwise than it was written");
    let answered = world.replace("retry=-1s", "retry=-1s answered=i-9");
    refused(&answered, vec![launch("2-1", 1, "token-of-2-1")], "after its answer");
}

#[test]
fn no_two_launches_share_a_token_or_a_name() {
    let world = "pool gpu g4 max=9 spot:g4dn.xlarge\nqueue gpu t1 t2\n";
    refused(world, vec![launch("3-1", 1, "one"), launch("3-2", 1, "one")], "share a token");
    refused(world, vec![launch("3-1", 1, "one"), launch("3-1", 1, "one")], "made twice");
    refused(world, vec![launch("2-7", 1, "one")], "not numbered by this run");
    refused(world, vec![launch("3-1", 1, "ümlaut")], "a token that EC2 refuses");
}

#[test]
fn what_ec2_refused_lately_is_not_asked_for() {
    let world =
        "pool gpu g4 max=9 spot:g4dn.xlarge\nqueue gpu t1\nunavailable spot:g4dn.xlarge until=+1ms \"none\"";
    refused(world, vec![launch("3-1", 1, "one")], "refused lately");
}

#[test]
fn a_note_is_not_closed_while_something_may_come_of_it() {
    refused(WORLD, vec![Action::Settle { intent: "2-1".into() }], "may still bring");
    let requested =
        WORLD.replace("retry=+5s", "retry=+5s answered=i-new") + "instance i-new g4 gpu requested";
    refused(&requested, vec![Action::Settle { intent: "2-1".into() }], "may still bring");
    refused(WORLD, vec![Action::Settle { intent: "9-9".into() }], "not on record");
}

#[test]
fn the_entry_of_a_machine_that_runs_is_not_removed() {
    let (_, snapshot) = parse(WORLD);
    let worker = snapshot.instances[&planner::InstanceId::from("i-idle")].worker.clone();
    refused(WORLD, vec![Action::Unregister { worker }], "nothing proves its machine gone");
}

#[test]
fn a_plan_wakes_later_never_earlier() {
    let (policy, snapshot) = parse(WORLD);
    let plan = Plan { wake_at: Some(Time(NOW.0)), ..Plan::default() };
    refused_plan(&policy, &snapshot, &plan, "wakes in the past");
}
