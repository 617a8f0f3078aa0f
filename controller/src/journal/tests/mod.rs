//! The journal as a story of restarts, on disk and in memory alike.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use engine::ports::{Journal, Prepared};
use planner::{InstanceId, Intent, IntentId, Market, Offering, Placement, Time};
use secrecy::ExposeSecret as _;

use super::{KEPT, NEW_FOR, OpenError, Store, TokenRecord};

mod files;
mod records;

const START: Time = Time(1_700_000_000_000);

fn intent() -> Intent {
    Intent {
        resource: "gpu".into(),
        queue: "default".into(),
        offering: Offering {
            instance_type: "g4dn.xlarge".into(),
            placement: Placement::Zone("us-east-1b".to_owned()),
            market: Market::Spot,
        },
        count: 3,
        token: "token-1".into(),
        created_at: START,
        retry_at: START,
        answered: None,
    }
}

fn request() -> Prepared {
    Prepared { request: "{\"exact\":\"request\"}".to_owned(), secret: vec![7; 32] }
}

fn instances(ids: &[&str]) -> BTreeSet<InstanceId> {
    ids.iter().map(|id| InstanceId::from(*id)).collect()
}

fn token(byte: u8) -> TokenRecord {
    TokenRecord { sha256: [byte; 32], boot_id: "boot-1".to_owned(), used: byte > 1, created_at: START }
}

/// Runs a story against both kinds; `restart` ends one run of the controller and begins the next.
async fn on_both<F>(story: impl Fn(Place) -> F)
where
    F: Future<Output = ()>,
{
    story(Place::Memory(Store::in_memory(START))).await;
    story(Place::Disk(tempfile::tempdir().unwrap())).await;
}

enum Place {
    Memory(Store),
    Disk(tempfile::TempDir),
}

impl Place {
    async fn run(&self, now: Time) -> Store {
        match self {
            Self::Memory(store) => store.reopened(now),
            Self::Disk(directory) => Store::open(&directory.path().join("state"), now).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_crash_between_launch_and_answer_leaves_the_exact_request() {
    on_both(|place| async move {
        let run = place.run(START).await;
        run.begin(&"one".into(), &intent(), &request()).await.unwrap();
        drop(run);

        let run = place.run(START).await;
        let open = run.open().await.unwrap();
        assert_eq!(open[&IntentId::from("one")], (intent(), request()));
    })
    .await;
}

#[tokio::test]
async fn an_intent_is_postponed_answered_and_closed() {
    on_both(|place| async move {
        let id = IntentId::from("one");
        let run = place.run(START).await;
        run.begin(&id, &intent(), &request()).await.unwrap();
        run.postpone(&id, Time(START.0 + 5_000)).await.unwrap();
        run.answer(&id, &instances(&["i-1", "i-2"])).await.unwrap();
        drop(run);

        let run = place.run(START).await;
        let (known, _) = run.open().await.unwrap().remove(&id).unwrap();
        assert_eq!(known.retry_at, Time(START.0 + 5_000));
        assert_eq!(known.answered, Some(instances(&["i-1", "i-2"])));
        Journal::close(&run, &id).await.unwrap();
        assert!(run.open().await.unwrap().is_empty());
        drop(run);

        let run = place.run(START).await;
        assert!(run.open().await.unwrap().is_empty());
        assert_eq!(run.launch_secret(&id).unwrap().expose_secret(), [7; 32]);
        assert!(run.begin(&id, &intent(), &request()).await.is_err(), "an id is used once");
        assert!(run.answer(&id, &instances(&["i-3"])).await.is_err(), "it is closed");
        Journal::close(&run, &id).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn epochs_and_intent_numbers_rise_with_every_run() {
    on_both(|place| async move {
        let run = place.run(START).await;
        assert_eq!(run.next_epoch(START).await.unwrap(), START.0 / 1000);
        assert_eq!(run.next_intent().await.unwrap(), 1);
        drop(run);

        // The clock of the host was set back.
        let run = place.run(Time(1_000)).await;
        assert_eq!(run.next_epoch(Time(1_000)).await.unwrap(), START.0 / 1000 + 1);
        assert_eq!(run.next_intent().await.unwrap(), 1_000_001);
    })
    .await;
}

#[tokio::test]
async fn a_journal_is_new_until_unknown_launches_have_come_to_light() {
    on_both(|place| async move {
        assert!(place.run(START).await.was_new());
        assert!(place.run(Time(START.0 + 59_000)).await.was_new());
        assert!(!place.run(START.after(NEW_FOR)).await.was_new());
    })
    .await;
}

#[tokio::test]
async fn key_tokens_and_ready_marks_survive() {
    on_both(|place| async move {
        let run = place.run(START).await;
        assert!(run.identity().is_none());
        run.store_identity(b"PRIVATE KEY").await.unwrap();
        run.store_token(&"i-1".into(), &token(1)).await.unwrap();
        run.store_token(&"i-1".into(), &token(2)).await.unwrap();
        run.mark_ready(&"i-1".into(), START).await.unwrap();
        run.mark_ready(&"i-1".into(), Time(START.0 + 1)).await.unwrap();
        drop(run);

        let run = place.run(START).await;
        assert_eq!(run.identity().unwrap(), b"PRIVATE KEY");
        assert_eq!(run.token(&"i-1".into()), Some(token(2)));
        assert_eq!(run.ready_marks()[&InstanceId::from("i-1")], START);
        assert_eq!(run.token(&"i-2".into()), None);
    })
    .await;
}

#[tokio::test]
async fn what_is_over_is_forgotten_after_a_week_and_nothing_else() {
    on_both(|place| async move {
        let run = place.run(START).await;
        for id in ["closed", "open"] {
            run.begin(&id.into(), &intent(), &request()).await.unwrap();
        }
        Journal::close(&run, &"closed".into()).await.unwrap();
        for id in ["i-gone", "i-live"] {
            run.store_token(&id.into(), &token(1)).await.unwrap();
            run.mark_ready(&id.into(), START).await.unwrap();
        }
        let live = instances(&["i-live"]);
        run.prune(START.after(KEPT), &live).await.unwrap();
        assert!(run.launch_secret(&"closed".into()).is_some());
        run.prune(Time(START.after(KEPT).0 + 1), &live).await.unwrap();
        drop(run);

        let run = place.run(START).await;
        assert!(run.launch_secret(&"closed".into()).is_none());
        assert!(run.launch_secret(&"open".into()).is_some());
        assert!(run.token(&"i-gone".into()).is_none());
        assert!(run.token(&"i-live".into()).is_some());
        assert_eq!(run.ready_marks().into_keys().collect::<BTreeSet<_>>(), live);
    })
    .await;
}

#[tokio::test]
async fn a_journal_belongs_to_one_fleet() {
    on_both(|place| async move {
        let run = place.run(START).await;
        run.claim_fleet(&"fleet-a".into()).await.unwrap();
        drop(run);
        let run = place.run(START).await;
        run.claim_fleet(&"fleet-a".into()).await.unwrap();
        let error = run.claim_fleet(&"fleet-b".into()).await.unwrap_err().to_string();
        assert!(error.contains("fleet-a") && error.contains("fleet-b"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn one_bad_write_among_many_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), START).await.unwrap();
    store.begin(&"one".into(), &intent(), &request()).await.unwrap();
    let again = IntentId::from("one");
    let (note, exact, first) = (intent(), request(), InstanceId::from("i-1"));
    let record = token(1);
    let (duplicate, ready, stored) = tokio::join!(
        store.begin(&again, &note, &exact),
        store.mark_ready(&first, START),
        store.store_token(&first, &record),
    );
    assert!(duplicate.is_err());
    assert!(ready.is_ok() && stored.is_ok());
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_file_and_memory_alike() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), START).await.unwrap();
    for number in 0..20_u8 {
        let instance = InstanceId(format!("i-{number}"));
        let record = token(number);
        tokio::select! {
            biased;
            _ = store.store_token(&instance, &record) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    // One that is waited for ends behind all that were handed over before it.
    store.store_token(&"i-last".into(), &token(99)).await.unwrap();
    let in_memory: Vec<_> =
        (0..20).map(|number| store.token(&InstanceId(format!("i-{number}"))).is_some()).collect();
    store.close().await;
    let store = Store::open(directory.path(), START).await.unwrap();
    let on_disk: Vec<_> =
        (0..20).map(|number| store.token(&InstanceId(format!("i-{number}"))).is_some()).collect();
    assert_eq!(in_memory, on_disk);
}

#[tokio::test]
async fn a_second_controller_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path(), START).await.unwrap();
    let error = Store::open(directory.path(), START).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let expected = format!(
        "state directory {} is in use by another controller (process {})",
        directory.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    first.close().await;
    Store::open(directory.path(), START).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("new/state");
    let store = Store::open(&state, START).await.unwrap();
    store.store_token(&"i-1".into(), &token(1)).await.unwrap();
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    store.close().await;
    // A file that was left readable is closed again.
    let file = state.join("journal.sqlite");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(&state, START).await.unwrap();
    assert_eq!(mode(&file), 0o600);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let store = Store::in_memory(START);
    store.begin(&"one".into(), &intent(), &request()).await.unwrap();
    store.store_identity(b"PRIVATE KEY").await.unwrap();
    let shown = format!("{store:?}");
    assert!(!shown.contains("PRIVATE KEY") && !shown.contains("exact"), "{shown}");
}

#[tokio::test]
async fn the_gateway_finds_what_the_loop_wrote() {
    use crate::gateway::{TokenRecord as Issued, Vault};
    on_both(|place| async move {
        let run = place.run(START).await;
        run.begin(&"one".into(), &intent(), &request()).await.unwrap();
        let issued = Issued { hash: [3; 32], boot_id: "boot-1".to_owned(), used: false };
        run.put_token(&"i-1".into(), &issued).await.unwrap();
        drop(run);

        let run = place.run(START).await;
        assert_eq!(Vault::launch_secret(&run, &"one".into()).await.unwrap(), Some(vec![7; 32]));
        assert_eq!(Vault::launch_secret(&run, &"two".into()).await.unwrap(), None);
        assert_eq!(Vault::token(&run, &"i-1".into()).await.unwrap(), Some(issued));
    })
    .await;
}
