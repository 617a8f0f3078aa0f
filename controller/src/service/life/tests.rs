//! Against a ClearML server on loopback, over real sockets.

use sandbox::clearml::{Fault, Options, Server, Status};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use super::*;
use crate::service::report::ConsoleFeed;

const LIMIT: Duration = Duration::from_secs(60);
const PACE: Pace = Pace { look: Duration::from_millis(20), ping: Duration::from_millis(50) };

struct Fixture {
    server: Server,
    task: ServiceTask,
    logging: Logging,
    feed: ConsoleFeed,
    _log: tracing::subscriber::DefaultGuard,
}

impl Fixture {
    /// A task in progress, which a live worker runs.
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::start(Options::default()).await.unwrap();
        let handle = server.handle();
        let queue = handle.create_queue("services").unwrap();
        let id = handle.create_task("AWS Auto-Scaler", 1.0, None).unwrap();
        handle.call("tasks.started", json!({"task": id})).unwrap();
        let report = json!({"worker": "services:0", "timestamp": 1, "task": id, "queues": [queue]});
        handle.call("workers.status_report", report).unwrap();
        let credentials = clearml::Credentials::Keys {
            access: server.access_key().to_owned().into(),
            secret: server.secret_key().to_owned().into(),
        };
        let address = clearml::Address::parse(&server.api_url()).unwrap();
        let client = clearml::Client::new(clearml::Options::new(address, credentials)).unwrap();
        let task = ServiceTask { id, client, page: String::new(), started_by: StartedBy::Operator };
        let (subscriber, logging) = Logging::build(EnvFilter::new("off"), false);
        let feed = logging.feed();
        feed.open();
        let _log = tracing::subscriber::set_default(subscriber);
        Self { server, task, logging, feed, _log }
    }

    fn begin(&self) -> Life {
        Life::begin_at(PACE, &self.task, ShutdownAction::Nothing, &self.logging)
    }

    fn doc(&self) -> Value {
        let reply = self.server.handle().call("tasks.get_by_id", json!({"task": self.task.id})).unwrap();
        reply["task"].clone()
    }

    fn property(&self, name: &str) -> Value {
        self.doc()["hyperparams"]["properties"][name]["value"].clone()
    }

    fn set_property(&self, name: &str, value: &str) {
        let item = json!({"section": "properties", "name": name, "value": value});
        let edit = json!({"task": self.task.id, "hyperparams": [item]});
        self.server.handle().call("tasks.edit_hyper_params", edit).unwrap();
    }

    /// Waits until something is so.
    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waiting = self.server.handle().wait(LIMIT, |_| done(self)).await;
        waiting.unwrap_or_else(|_| panic!("{what}: {}", self.doc()));
    }

    /// All of the console's lines so far that have this in them.
    fn lines(&self, part: &str) -> usize {
        let lines = self.feed.take(usize::MAX, usize::MAX).lines;
        lines.iter().filter(|line| line.text.contains(part)).count()
    }
}

#[tokio::test]
async fn an_abort_ends_it_and_leaves_the_task_stopped() {
    let fixture = Fixture::new().await;
    let mut life = fixture.begin();
    fixture
        .until("it says that it ends by itself", |fixture| {
            fixture.doc()["runtime"]["_abort_callback_timeout"] == "180"
        })
        .await;
    fixture.server.handle().call("tasks.stop", json!({"task": fixture.task.id})).unwrap();
    let action = tokio::time::timeout(LIMIT, life.aborted()).await.unwrap();
    assert_eq!(action, ShutdownAction::Nothing);
    life.end("aborted, its instances are left to themselves").await;
    let task = fixture.server.handle().task(&fixture.task.id).unwrap();
    assert_eq!(task.status, Status::Stopped);
    assert_eq!(task.status_reason, "aborted, its instances are left to themselves");
    assert_eq!(fixture.doc()["runtime"]["_abort_callback_completed"], "1");
    assert!(
        fixture.server.handle().count("tasks.ping") > 0 || fixture.server.handle().count("tasks.get_all") > 0
    );
}

#[tokio::test]
async fn a_server_without_the_newer_call_is_given_its_notes_back() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    handle
        .call("tasks.edit", json!({"task": fixture.task.id, "runtime": {"theirs": "kept"}, "force": true}))
        .unwrap();
    let unknown = Fault::Refuse { code: 404, subcode: 0, message: "no such endpoint".to_owned() };
    handle.inject("tasks.edit_runtime", unknown, None);
    let _life = fixture.begin();
    fixture
        .until("its notes stand beside others'", |fixture| {
            let runtime = &fixture.doc()["runtime"];
            runtime["_abort_callback_timeout"] == "180" && runtime["theirs"] == "kept"
        })
        .await;
}

#[tokio::test]
async fn properties_are_made_once_and_changed_while_it_runs() {
    let fixture = Fixture::new().await;
    fixture.set_property("log_level", "warning");
    let life = fixture.begin();
    fixture.until("the missing one is made", |fixture| fixture.property("shutdown_action") == "none").await;
    assert_eq!(fixture.property("log_level"), "warning", "a user's own stays");

    fixture.set_property("shutdown_action", "All");
    let mut action = life.action.clone();
    tokio::time::timeout(LIMIT, action.wait_for(|now| *now == ShutdownAction::All)).await.unwrap().unwrap();

    fixture.set_property("shutdown_action", "everything");
    let looks = fixture.server.handle().count("tasks.get_all");
    fixture
        .until("it is looked at", |fixture| fixture.server.handle().count("tasks.get_all") > looks + 3)
        .await;
    assert_eq!(life.shutdown_action(), ShutdownAction::All, "nonsense changes nothing");
    assert_eq!(fixture.lines("\"everything\" is not understood"), 1, "and is told once");
}

#[tokio::test]
async fn pings_keep_the_watchdog_away() {
    let fixture = Fixture::new().await;
    let _life = fixture.begin();
    fixture
        .until("it pings again and again", |fixture| fixture.server.handle().count("tasks.ping") > 3)
        .await;
}

#[tokio::test]
async fn an_outage_is_told_once_and_ends_nothing() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    let mut life = fixture.begin();
    fixture.until("it begins", |fixture| fixture.property("log_level") == "info").await;
    handle.inject("*", Fault::Html { code: 404 }, Some(20));
    let looks = handle.count("tasks.get_all");
    fixture.until("it comes back", |_| handle.count("tasks.get_all") > looks + 30).await;
    handle.call("tasks.stop", json!({"task": fixture.task.id})).unwrap();
    tokio::time::timeout(LIMIT, life.aborted()).await.unwrap();
    let lines = fixture.feed.take(usize::MAX, usize::MAX).lines;
    let told = |part: &str| lines.iter().filter(|line| line.text.contains(part)).count();
    assert_eq!((told("is tried again"), told("works again")), (1, 1), "{lines:?}");
}

#[tokio::test]
async fn a_task_that_the_watchdog_stopped_is_in_progress_again() {
    let fixture = Fixture::new().await;
    let handle = fixture.server.handle();
    let _life = fixture.begin();
    let forced = json!({
        "task": fixture.task.id,
        "status_message": "Forced stop (non-responsive)",
        "status_reason": "Forced stop (non-responsive)",
    });
    handle.call("tasks.stopped", forced).unwrap();
    fixture
        .until("it goes on", |fixture| {
            fixture.server.handle().task(&fixture.task.id).unwrap().status == Status::InProgress
        })
        .await;
}
