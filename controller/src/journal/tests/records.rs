//! Ledger and history: written, read back in another run, bounded.

use std::time::Duration;

use engine::history::{Event, EventKind};

use super::*;
use crate::journal::{EndedBy, HISTORY_KEPT, LEDGER_KEPT, PricePaid, Spent, Stretch};

fn at(hours: u64) -> Time {
    START.after(Duration::from_secs(hours * 3600))
}

fn stretch(id: &str, from: u64, end: Option<(u64, EndedBy)>, price: Option<f64>) -> Stretch {
    Stretch {
        instance: id.into(),
        from: at(from),
        end: end.map(|(hours, by)| (at(hours), by)),
        resource: "t4".into(),
        queue: "gpu".into(),
        instance_type: "g4dn.xlarge".into(),
        zone: Some("us-east-1b".to_owned()),
        market: Market::Spot,
        launched_at: at(from),
        price: price.map(|usd_per_hour| PricePaid {
            usd_per_hour,
            source: "spot price".to_owned(),
            date: "2026-01-31".to_owned(),
        }),
    }
}

#[tokio::test]
async fn the_ledger_goes_on_in_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let run = Store::open(directory.path(), START).await.unwrap();
    let ended = stretch("i-1", 0, Some((2, EndedBy::Ec2)), Some(0.5));
    let unpriced = stretch("i-2", 0, Some((3, EndedBy::Seen)), None);
    let open = stretch("i-3", 1, None, Some(0.25));
    let first = Stretch { end: None, ..ended.clone() };
    run.store_stretches(vec![first, unpriced.clone(), open.clone()]).await.unwrap();
    run.store_stretches(vec![ended.clone()]).await.unwrap();
    run.store_ledger_seen(at(4)).await.unwrap();
    run.close().await;

    let run = Store::open(directory.path(), at(5)).await.unwrap();
    let state = run.ledger(at(5)).await.unwrap();
    assert_eq!(state.open, std::slice::from_ref(&open));
    assert_eq!(state.ended, instances(&["i-1", "i-2"]));
    assert_eq!(state.seen, Some(at(4)));
    assert!((state.spent.usd - 1.0).abs() < 1e-9, "{:?}", state.spent);
    assert_eq!(state.spent.unpriced_ms, 3 * 3_600_000);
    assert_eq!(run.stretches(at(0)).await.unwrap(), [ended, unpriced.clone(), open.clone()]);
    assert_eq!(run.stretches(at(2)).await.unwrap(), [unpriced, open], "what ended before is left out");
}

#[tokio::test]
async fn what_leaves_the_ledger_stays_in_its_sum() {
    let directory = tempfile::tempdir().unwrap();
    let run = Store::open(directory.path(), START).await.unwrap();
    run.store_stretches(vec![
        stretch("i-1", 0, Some((2, EndedBy::Ec2)), Some(0.5)),
        stretch("i-2", 0, Some((5, EndedBy::Ec2)), None),
        stretch("i-3", 0, None, Some(0.25)),
    ])
    .await
    .unwrap();
    let now = at(3).after(LEDGER_KEPT);
    run.prune(now, &instances(&[])).await.unwrap();
    run.prune(now, &instances(&[])).await.unwrap();
    let left: Vec<_> = run.stretches(START).await.unwrap();
    assert_eq!(left.iter().map(|stretch| stretch.instance.as_str()).collect::<Vec<_>>(), ["i-2", "i-3"]);
    run.close().await;
    let run = Store::open(directory.path(), now).await.unwrap();
    assert_eq!(run.ledger(now).await.unwrap().spent, Spent { usd: 1.0, unpriced_ms: 5 * 3_600_000 });
}

#[tokio::test]
async fn the_history_survives_in_order_and_thirty_days_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let run = Store::open(directory.path(), START).await.unwrap();
    let event = |hours, kind, reason: &str| {
        Event::new(at(hours), kind, reason).of_instances(&["i-1".into()]).in_pool(&"t4".into(), &"gpu".into())
    };
    let told = [
        event(0, EventKind::Launched, "where 3 tasks wait"),
        event(1, EventKind::DrainRefused, "it holds a task").about(&"task".into()),
        // The host's clock was set back.
        event(1, EventKind::Terminated, "'; DROP TABLE history; --"),
    ];
    told.iter().for_each(|event| run.note(event.clone()));
    run.close().await;

    let run = Store::open(directory.path(), at(2)).await.unwrap();
    let later = event(2, EventKind::Gone, &"x".repeat(5000));
    run.note(later);
    run.store_runs(Vec::new()).await.unwrap();
    let history = run.history(START, 100).await.unwrap();
    assert_eq!(history.events[..3], told);
    assert_eq!(history.events[3].reason.len(), 1000, "a reason is bounded");
    assert_eq!(history.omitted, 0);
    let newest = run.history(at(1), 2).await.unwrap();
    assert_eq!((newest.events.len(), newest.omitted), (2, 1));
    assert_eq!(newest.events[1].kind, EventKind::Gone);

    run.prune(at(1).after(HISTORY_KEPT), &instances(&[])).await.unwrap();
    let kinds: Vec<_> =
        run.history(START, 100).await.unwrap().events.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::DrainRefused, EventKind::Terminated, EventKind::Gone]);
}

#[tokio::test]
async fn runs_are_remembered_until_the_lease_was_taken_over() {
    on_both(|place| async move {
        let run = place.run(START).await;
        assert!(run.runs().is_empty());
        run.store_runs(vec!["b".to_owned(), "a".to_owned()]).await.unwrap();
        drop(run);
        assert_eq!(place.run(START).await.runs(), ["b", "a"]);
    })
    .await;
}
