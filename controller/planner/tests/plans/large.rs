//! What stories are too short for.

use planner::{Action, Hold, TaskId, check, plan};

use crate::text::parse;

#[test]
fn what_ec2s_bucket_does_not_hold_follows_later_and_not_from_the_next_pool() {
    let world = "pool gpu first max=2000 spot:a\npool gpu second max=2000 spot:b\nqueue gpu";
    let (mut policy, mut snapshot) = parse(world);
    policy.launches_per_minute = 5000;
    let tasks = (0..1500).map(|number| TaskId(format!("t{number}"))).collect();
    snapshot.queues.insert("gpu".into(), tasks);
    let made = plan(&policy, &snapshot);
    assert_eq!(check(&policy, &snapshot, &made), Ok(()));
    let [Action::Launch { resource, count, .. }] = made.actions.as_slice() else {
        panic!("{:?}", made.actions)
    };
    assert_eq!((resource.as_str(), *count), ("first", 1000));
    let until = snapshot.now.after(std::time::Duration::from_millis(1));
    assert_eq!(made.holds, [Hold::Paced { count: 500, until }]);
}

#[test]
fn tokens_differ_by_fleet_by_launch_and_by_offering() {
    let token = |world: &str, fleet: &str| {
        let (mut policy, snapshot) = parse(world);
        policy.fleet = fleet.into();
        match plan(&policy, &snapshot).actions.as_slice() {
            [Action::Launch { token, .. }] => token.clone(),
            other => panic!("{other:?}"),
        }
    };
    let world = "pool gpu g4 max=2 spot:a\nqueue gpu t1\n";
    let tokens = [
        token(world, "one"),
        token(world, "two"),
        token(&format!("{world}run epoch=4"), "one"),
        token(&format!("{world}run next=2"), "one"),
        token(&world.replace("spot:a", "on-demand:a"), "one"),
        token(&world.replace("spot:a", "spot:a@zone-1"), "one"),
    ];
    let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), tokens.len());
    assert_eq!(token(world, "one"), tokens[0]);
    assert!(tokens.iter().all(|token| token.as_str().len() == 64));
}
