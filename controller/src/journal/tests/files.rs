//! Files of other programs, of other times, and broken ones.

use sqlx::{ConnectOptions, Connection};

use super::*;

/// Written by the first version of this program.
const SCHEMA_1: &str = include_str!("../fixtures/schema_1.sql");

async fn run_sql(directory: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(directory.join("journal.sqlite"))
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("journal.sqlite")
}

/// Opening must fail, say why, and leave every byte where it was.
async fn refused(directory: &Path) -> String {
    let before = fs::read(file(directory)).unwrap();
    let error = Store::open(directory, START).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(file(directory)).unwrap(), before, "it was written to");
    error.to_string()
}

#[tokio::test]
async fn an_older_file_is_upgraded_and_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    run_sql(directory.path(), SCHEMA_1).await;
    run_sql(directory.path(), "PRAGMA application_id = 1668112755").await;
    for _ in 0..2 {
        let store = Store::open(directory.path(), START).await.unwrap();
        assert!(store.identity().is_some());
        let open = store.open().await.unwrap();
        let (known, request) = &open[&IntentId::from("1795528855-2")];
        assert_eq!((known.count, request.request.as_str()), (3, "{\"exact\":\"request\"}"));
        assert!(store.launch_secret(&"1795528855-1".into()).is_some());
        let old = InstanceId::from("i-c8cbaae4b14500a57");
        assert!(store.token(&old).unwrap().used);
        assert_eq!(store.ready_marks()[&old], Time(1_795_528_863_307));
        store.claim_fleet(&"b7945530226392ef310ab9ae20046b70".into()).await.unwrap();
        // What is new is empty, and can be used.
        assert!(store.history(Time(0), 10).await.unwrap().events.is_empty());
        assert!(store.stretches(Time(0)).await.unwrap().is_empty());
        assert!(store.runs().is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = b"this was never a database, however long one looks at it".repeat(100);
    fs::write(file(directory.path()), garbage).unwrap();
    assert!(refused(directory.path()).await.contains("move it away"));
}

/// A journal with some pages in it.
async fn filled(directory: &Path) -> Vec<u8> {
    let store = Store::open(directory, START).await.unwrap();
    for number in 0..200 {
        store.begin(&IntentId(format!("intent-{number}")), &intent(), &request()).await.unwrap();
    }
    store.close().await;
    fs::read(file(directory)).unwrap()
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let whole = filled(directory.path()).await;
    fs::write(file(directory.path()), &whole[..whole.len() / 2]).unwrap();
    refused(directory.path()).await;
}

#[tokio::test]
async fn a_torn_page_is_refused() {
    const PAGE: usize = 4096;
    let directory = tempfile::tempdir().unwrap();
    let whole = filled(directory.path()).await;
    assert!(whole.len() > 20 * PAGE);
    let mut refusals = 0;
    // Half of a page is of another time: zeros, or another page's bytes.
    for page in 1..whole.len() / PAGE {
        for torn in [vec![0; PAGE / 2], whole[PAGE..PAGE + PAGE / 2].to_vec()] {
            let mut bytes = whole.clone();
            bytes[page * PAGE..page * PAGE + PAGE / 2].copy_from_slice(&torn);
            if bytes == whole {
                continue;
            }
            fs::write(file(directory.path()), &bytes).unwrap();
            refused(directory.path()).await;
            refusals += 1;
        }
    }
    assert!(refusals > 20, "{refusals}");
    fs::write(file(directory.path()), &whole).unwrap();
    Store::open(directory.path(), START).await.unwrap();
}

#[tokio::test]
async fn a_log_that_was_cut_off_loses_its_last_commits_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), START).await.unwrap();
    for number in 0..50 {
        store.begin(&IntentId(format!("intent-{number:02}")), &intent(), &request()).await.unwrap();
    }
    // As a crash leaves it: the log has not been merged into the file.
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    let log = copy.path().join("journal.sqlite-wal");
    let whole = fs::read(&log).unwrap();
    let mut fewer = Vec::new();
    for part in [4, 3, 2] {
        let kept = tempfile::tempdir().unwrap();
        fs::copy(file(copy.path()), file(kept.path())).unwrap();
        fs::write(kept.path().join("journal.sqlite-wal"), &whole[..whole.len() * part / 4 - 100]).unwrap();
        let store = Store::open(kept.path(), START).await.unwrap();
        let open: Vec<IntentId> = store.open().await.unwrap().into_keys().collect();
        let expected: Vec<IntentId> =
            (0..open.len()).map(|number| IntentId(format!("intent-{number:02}"))).collect();
        assert_eq!(open, expected, "commits in their order, none torn");
        fewer.push(open.len());
    }
    assert!(fewer.is_sorted_by(|more, less| more > less) && fewer[0] >= 48, "{fewer:?}");
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    run_sql(directory.path(), "CREATE TABLE notes (text TEXT)").await;
    let error = Store::open(directory.path(), START).await.unwrap_err();
    assert!(error.to_string().contains("it is another program's database"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    Store::open(directory.path(), START).await.unwrap().close().await;
    run_sql(
        directory.path(),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .await;
    let before = fs::read(file(directory.path())).unwrap();
    let error = Store::open(directory.path(), START).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { schema: 9999, .. }), "{error}");
    assert_eq!(fs::read(file(directory.path())).unwrap(), before);
}
