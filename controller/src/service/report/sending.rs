//! The sender against a ClearML server on loopback that lets it down.

use std::time::Duration;

use sandbox::clearml::{Fault, Handle, Options, Server};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

use super::outbox::{Outbox, Plot, Point};
use super::sender::Sender;
use super::{ConsoleFeed, Logging};

const LIMIT: Duration = Duration::from_secs(60);

struct Fixture {
    server: Server,
    task: String,
    outbox: Outbox,
    end: watch::Sender<bool>,
    sending: JoinHandle<()>,
    _log: DefaultGuard,
}

impl Fixture {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::start(Options::default()).await.unwrap();
        let task = server.handle().create_task("AWS Auto-Scaler", 1.0, None).unwrap();
        let credentials = clearml::Credentials::Keys {
            access: server.access_key().to_owned().into(),
            secret: server.secret_key().to_owned().into(),
        };
        let mut options =
            clearml::Options::new(clearml::Address::parse(&server.api_url()).unwrap(), credentials);
        // The sender's own patience is tried here, not the client's.
        options.timing.overall = Duration::from_secs(2);
        let client = clearml::Client::new(options).unwrap();
        let (subscriber, logging) = Logging::build(EnvFilter::new("off"), false);
        let log = tracing::subscriber::set_default(subscriber);
        let feed: ConsoleFeed = logging.feed();
        feed.open();
        let outbox = Outbox::default();
        let (end, ending) = watch::channel(false);
        let sender = Sender {
            client,
            task: task.clone(),
            worker: "dynamic-autoscaler".to_owned(),
            feed,
            outbox: outbox.clone(),
            ending,
        };
        let sending = tokio::spawn(sender.run());
        Self { server, task, outbox, end, sending, _log: log }
    }

    fn handle(&self) -> Handle {
        self.server.handle()
    }

    /// The numbers of the lines that arrived, in their order.
    fn arrived(&self) -> Vec<u32> {
        let lines = self.handle().console(&self.task);
        lines.iter().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
    }

    fn call(&self, endpoint: &str) -> Value {
        self.handle().call(endpoint, json!({"task": self.task})).unwrap()
    }

    fn plots(&self) -> Vec<String> {
        let plots = self.call("events.get_task_plots")["plots"].as_array().unwrap().clone();
        plots.iter().map(|plot| plot["plot_str"].as_str().unwrap().to_owned()).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = self.handle().wait(LIMIT, |_| done(self)).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:?}", self.handle().console(&self.task)));
    }

    async fn end(&mut self) {
        self.end.send_replace(true);
        tokio::time::timeout(LIMIT, &mut self.sending).await.unwrap().unwrap();
    }
}

fn say(numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| tracing::info!("line {number}"));
}

#[tokio::test]
async fn lines_arrive_once_and_in_order_whatever_breaks_on_the_way() {
    let mut fixture = Fixture::new().await;
    fixture.handle().inject("events.add_batch", Fault::Drop, Some(1));
    fixture.handle().inject("events.add_batch", Fault::Html { code: 502 }, Some(1));
    fixture.handle().inject(
        "events.add_batch",
        Fault::Refuse { code: 500, subcode: 0, message: "no disk".to_owned() },
        Some(1),
    );
    say(0..700);
    fixture.until("the last line arrives", |fixture| fixture.arrived().last() == Some(&699)).await;
    say(700..710);
    fixture.end().await;
    assert_eq!(fixture.arrived(), (0..710).collect::<Vec<_>>());
    let console = fixture.handle().console(&fixture.task).concat();
    assert_eq!(console.matches("is tried again").count(), 1, "an outage is told once");
    assert_eq!(console.matches("works again").count(), 1);
}

#[tokio::test]
async fn a_lost_reply_loses_no_line() {
    let mut fixture = Fixture::new().await;
    fixture.handle().inject("events.add_batch", Fault::DropReply, Some(1));
    say(0..5);
    fixture.until("they arrive again", |fixture| fixture.arrived().len() >= 10).await;
    fixture.end().await;
    assert_eq!(fixture.arrived(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_an_outage_drops_is_counted_in_its_place() {
    let mut fixture = Fixture::new().await;
    fixture.handle().inject("events.add_batch", Fault::Html { code: 503 }, Some(2));
    say(0..1);
    fixture.until("the outage begins", |fixture| fixture.handle().count("events.add_batch") >= 1).await;
    say(1..30_001);
    fixture.end().await;
    let arrived = fixture.arrived();
    assert_eq!((arrived[0], *arrived.last().unwrap()), (0, 30_000));
    assert!(arrived.windows(2).all(|two| two[0] < two[1]), "in order");
    let console = fixture.handle().console(&fixture.task);
    let told: u32 = console
        .iter()
        .filter_map(|line| {
            line.strip_prefix("WARNING: ")?
                .split_once(" lines before the next one were lost")?
                .0
                .parse::<u32>()
                .ok()
        })
        .sum();
    // The lines that tell of the outage took places as well.
    let missing = 30_001 - u32::try_from(arrived.len()).unwrap();
    assert!(missing > 0 && told.abs_diff(missing) <= 2, "{told} told, {missing} missing");
}

#[tokio::test]
async fn what_the_server_refuses_is_dropped_and_does_not_stand_in_the_way() {
    let mut fixture = Fixture::new().await;
    fixture.handle().call("tasks.delete", json!({"task": fixture.task, "force": true})).unwrap();
    say(0..3);
    fixture.until("it is refused", |fixture| fixture.handle().count("events.add_batch") >= 1).await;
    fixture.end().await;
    assert!(fixture.handle().count("events.add_batch") < 10, "and not tried again and again");
}

#[tokio::test]
async fn points_and_plots_arrive_and_the_newest_plot_takes_its_place() {
    let mut fixture = Fixture::new().await;
    let point =
        |iter, value| Point { metric: "instances".into(), variant: "busy".into(), iter, value, at_ms: 1 };
    fixture.outbox.points([point(1, 1.0), point(2, f64::NAN), point(3, 2.0)]);
    for number in 0..2 {
        let json = format!("{{\"data\":[{number}]}}");
        fixture.outbox.plot(Plot { metric: "Fleet", json: json.clone(), at_ms: 1 });
        fixture.until("the plot is there", |fixture| fixture.plots() == [json.clone()]).await;
    }
    fixture.end().await;
    let curve = &fixture.call("events.scalar_metrics_iter_histogram")["instances"]["busy"];
    assert_eq!((&curve["x"], &curve["y"]), (&json!([1, 3]), &json!([1.0, 2.0])));
}
