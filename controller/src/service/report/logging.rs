//! The log's two ends: the terminal, filtered as the operator says at the start, and the console feed,
//! filtered by a level that can be changed while the program runs.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::feed::ConsoleFeed;

/// Our own crates: `debug` and `trace` are theirs alone, or the libraries' lines would drown them.
const OWN: [&str; 6] = ["controller", "engine", "planner", "clearml", "ec2", "sandbox"];

/// How much the console tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleLevel {
    /// Everything.
    Trace,
    /// What a developer may want to know.
    Debug,
    /// Every decision.
    #[default]
    Info,
    /// What someone should look at.
    Warning,
    /// What failed.
    Error,
}

impl ConsoleLevel {
    /// As it is written in `log_level`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn filter(self) -> EnvFilter {
        let (own, others) = match self {
            Self::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
            Self::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
            Self::Info => (LevelFilter::INFO, LevelFilter::INFO),
            Self::Warning => (LevelFilter::WARN, LevelFilter::WARN),
            Self::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        };
        let directives: Vec<String> = OWN.iter().map(|name| format!("{name}={own}")).collect();
        EnvFilter::new(format!("{others},{}", directives.join(",")))
    }
}

impl FromStr for ConsoleLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warning" | "warn" => Ok(Self::Warning),
            "error" | "critical" => Ok(Self::Error),
            _ => Err("it is one of trace, debug, info, warning, error".to_owned()),
        }
    }
}

type Reload = Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// The process's log. Clones mean the same one.
#[derive(Clone)]
pub struct Logging {
    feed: ConsoleFeed,
    console: Reload,
    terminal: Reload,
}

impl Logging {
    /// Starts the process's log: to stderr by this filter, JSON lines if wanted, and into the console feed.
    pub fn install(filter: EnvFilter, json: bool) -> Self {
        let (subscriber, logging) = Self::build(filter, json);
        subscriber.init();
        logging
    }

    /// The same, for whoever installs it himself.
    pub fn build(filter: EnvFilter, json: bool) -> (impl Subscriber + Send + Sync + 'static, Self) {
        let feed = ConsoleFeed::default();
        let (console_filter, console) = reload::Layer::new(ConsoleLevel::default().filter());
        let (terminal_filter, terminal) = reload::Layer::new(filter);
        let format = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        let format: Box<dyn Layer<Registry> + Send + Sync> =
            if json { format.json().boxed() } else { format.boxed() };
        let subscriber = tracing_subscriber::registry()
            .with(format.with_filter(terminal_filter))
            .with(feed.layer().with_filter(console_filter));
        let logging = Self {
            feed,
            console: Arc::new(move |filter| console.reload(filter)),
            terminal: Arc::new(move |filter| terminal.reload(filter)),
        };
        (subscriber, logging)
    }

    /// The lines for a console.
    pub fn feed(&self) -> ConsoleFeed {
        self.feed.clone()
    }

    /// How much the console tells from now on.
    pub fn set_console(&self, level: ConsoleLevel) {
        if let Err(error) = (self.console)(level.filter()) {
            tracing::warn!("the console's level stays as it is: {error}");
        }
    }

    /// From now on the console is stdout, which an agent collects, with stderr: each line goes there once.
    pub fn speak_to_agent(&self) {
        self.feed.to_stdout();
        if let Err(error) = (self.terminal)(EnvFilter::new("off")) {
            tracing::warn!("lines may come twice: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_people_and_python_write_them() {
        for level in [
            ConsoleLevel::Trace,
            ConsoleLevel::Debug,
            ConsoleLevel::Info,
            ConsoleLevel::Warning,
            ConsoleLevel::Error,
        ] {
            assert_eq!(level.name().to_uppercase().parse(), Ok(level));
        }
        assert_eq!(" WARN ".parse(), Ok(ConsoleLevel::Warning));
        assert!("loud".parse::<ConsoleLevel>().is_err());
    }

    #[test]
    fn a_console_that_tells_more_tells_more_of_this_program_alone() {
        let feed = ConsoleFeed::default();
        let (filter, handle) = reload::Layer::new(ConsoleLevel::Info.filter());
        let subscriber = tracing_subscriber::registry().with(feed.layer().with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "engine::run", "not yet");
            handle.reload(ConsoleLevel::Debug.filter()).unwrap();
            tracing::debug!(target: "engine::run", "now");
            tracing::debug!(target: "hyper", "never");
            handle.reload(ConsoleLevel::Error.filter()).unwrap();
            tracing::warn!(target: "engine::run", "no more");
        });
        let texts: Vec<String> = feed.take(10, 1000).lines.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["now"]);
    }
}
