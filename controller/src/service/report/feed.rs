//! The console feed: a layer of the log that keeps its lines, as people read them, for a task's console.
//!
//! Every line of the log goes through it once, in order. It is bounded: if nobody takes the lines away, the
//! oldest are dropped and counted.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines and their bytes kept at most.
const LINES: usize = 10_000;
const BYTES: usize = 4 << 20;
/// The same as long as nobody has asked for them: many a run has no console.
const LINES_UNASKED: usize = 1000;
const BYTES_UNASKED: usize = 256 << 10;
/// One line at most, in bytes; a boot log's end is one of the longest.
const LINE: usize = 16 << 10;

/// The lines of the log, waiting to be taken to a console. Clones mean the same lines.
#[derive(Clone, Debug, Default)]
pub struct ConsoleFeed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    outlet: Outlet,
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
    newest_ms: u64,
    secrets: Vec<SecretString>,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outlet {
    /// Kept, in case somebody asks.
    #[default]
    Unasked,
    /// Kept until they are taken.
    Kept,
    /// To stdout at once.
    Stdout,
}

/// A line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970; no two lines have the same, as consoles are sorted by it.
    pub at_ms: u64,
    /// `info`, `warning`, ...
    pub level: &'static str,
    /// What it says; continued beneath if there is more than one line of it.
    pub text: String,
}

/// Some lines, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Older ones that were dropped for want of room.
    pub dropped: u64,
    /// The lines.
    pub lines: Vec<Line>,
}

impl ConsoleFeed {
    /// The layer that fills it.
    pub fn layer(&self) -> FeedLayer {
        FeedLayer { feed: self.clone() }
    }

    /// Takes the oldest lines away: so many, or so many bytes of them, but one at least if there is any.
    pub fn take(&self, lines: usize, bytes: usize) -> Taken {
        let mut kept = self.kept();
        let mut taken = Taken { dropped: std::mem::take(&mut kept.dropped), lines: Vec::new() };
        let mut size = 0;
        while taken.lines.len() < lines
            && let Some(line) = kept.lines.pop_front()
        {
            size += line.text.len();
            if size > bytes && !taken.lines.is_empty() {
                kept.lines.push_front(line);
                break;
            }
            kept.bytes -= line.text.len();
            taken.lines.push(line);
        }
        taken
    }

    /// Resolves when there are lines that came since the last time.
    pub async fn news(&self) {
        self.shared.news.notified().await;
    }

    /// From now on somebody takes lines away, and more of them are kept until then.
    pub fn open(&self) {
        self.kept().outlet = Outlet::Kept;
    }

    /// From now on lines go to stdout, once. Those kept so far went to stderr, which is collected as well.
    pub fn to_stdout(&self) {
        let mut kept = self.kept();
        let secrets = std::mem::take(&mut kept.secrets);
        *kept = Kept { outlet: Outlet::Stdout, secrets, ..Kept::default() };
    }

    /// Whatever is logged, these never stand in a line. What is short enough to stand there by chance is no
    /// secret.
    pub fn never_tell(&self, secrets: impl IntoIterator<Item = SecretString>) {
        const SHORTEST: usize = 6;
        let secrets = secrets.into_iter().filter(|secret| secret.expose_secret().len() >= SHORTEST);
        self.kept().secrets = secrets.collect();
    }

    fn push(&self, level: &'static str, mut text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut kept = self.kept();
        for secret in &kept.secrets {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), "***");
            }
        }
        if text.len() > LINE {
            text.truncate(text.floor_char_boundary(LINE));
            text.push_str("...");
        }
        let at_ms = u64::try_from(now).unwrap_or(u64::MAX).max(kept.newest_ms.saturating_add(1));
        let (lines, bytes) = match kept.outlet {
            Outlet::Unasked => (LINES_UNASKED, BYTES_UNASKED),
            Outlet::Kept => (LINES, BYTES),
            Outlet::Stdout => {
                // Under the lock, so that lines don't mingle. A closed stdout is nobody's to mend.
                let _ = writeln!(std::io::stdout(), "{} {text}", clock(at_ms));
                return;
            }
        };
        kept.newest_ms = at_ms;
        kept.bytes += text.len();
        kept.lines.push_back(Line { at_ms, level, text });
        while kept.lines.len() > lines || kept.bytes > bytes {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.text.len();
            kept.dropped += 1;
        }
        drop(kept);
        self.shared.news.notify_one();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole after each change, whoever panicked elsewhere.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills a [`ConsoleFeed`].
#[derive(Debug)]
pub struct FeedLayer {
    feed: ConsoleFeed,
}

impl<S: Subscriber> Layer<S> for FeedLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let level = *event.metadata().level();
        self.feed.push(level_name(level), words.line(level));
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// An event's fields as text.
#[derive(Default)]
struct Words {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Words {
    /// The message, then the fields that it does not tell already, then what has lines of its own.
    fn line(self, level: Level) -> String {
        let mut line = match level {
            Level::ERROR => "ERROR: ".to_owned(),
            Level::WARN => "WARNING: ".to_owned(),
            Level::INFO | Level::DEBUG | Level::TRACE => String::new(),
        };
        line.push_str(&self.message);
        let told = |value: &str| value.is_empty() || value == "false" || self.message.contains(value);
        let (below, beside): (Vec<_>, Vec<_>) = self
            .fields
            .iter()
            .filter(|(_, value)| !told(value))
            .partition(|(_, value)| value.trim_end().contains('\n'));
        let beside: Vec<String> = beside
            .into_iter()
            .map(|(name, value)| match value.as_str() {
                "true" => name.replace('_', " "),
                value => format!("{} {value}", name.replace('_', " ")),
            })
            .collect();
        if !beside.is_empty() {
            let _ = write!(line, " ({})", beside.join(", "));
        }
        for (_, text) in below {
            for part in text.trim_end().lines() {
                let _ = write!(line, "\n    {part}");
            }
        }
        line
    }

    fn take(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

/// The time of day, UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::prelude::*;

    use super::*;

    fn fed(log: impl FnOnce()) -> Taken {
        let feed = ConsoleFeed::default();
        feed.open();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(feed.layer()), log);
        feed.take(usize::MAX, usize::MAX)
    }

    #[test]
    fn a_line_says_each_thing_once() {
        let taken = fed(|| {
            let instance = "i-1";
            info!(instance, queue = "gpu", replaced = false, rebooted = true, "{instance}: sidecar attached");
            warn!(tail = "one\ntwo\n", phase = %"agent", "boot phase failed");
        });
        let texts: Vec<&str> = taken.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "i-1: sidecar attached (queue gpu, rebooted)",
                "WARNING: boot phase failed (phase agent)\n    one\n    two"
            ]
        );
    }

    #[test]
    fn lines_keep_their_order_in_time() {
        let taken = fed(|| (0..500).for_each(|number| info!("line {number}")));
        assert!(taken.lines.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms));
        assert_eq!(taken.lines.last().unwrap().text, "line 499");
    }

    #[test]
    fn the_oldest_lines_make_room_and_are_counted() {
        let taken = fed(|| (0..LINES + 7).for_each(|number| info!("line {number}")));
        assert_eq!((taken.dropped, taken.lines.len()), (7, LINES));
        assert_eq!(taken.lines[0].text, "line 7");
    }

    #[test]
    fn what_nobody_asks_for_takes_little_room() {
        let feed = ConsoleFeed::default();
        (0..LINES).for_each(|number| feed.push("info", format!("line {number}")));
        assert_eq!(feed.take(usize::MAX, usize::MAX).lines.len(), LINES_UNASKED);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_never_empty() {
        let feed = ConsoleFeed::default();
        for text in ["a".repeat(100), "b".repeat(100), "c".repeat(100)] {
            feed.push("info", text);
        }
        assert_eq!(feed.take(10, 250).lines.len(), 2);
        assert_eq!(feed.take(10, 1).lines.len(), 1);
        assert_eq!(feed.take(10, 1), Taken::default());
    }

    #[test]
    fn a_secret_is_never_told() {
        let feed = ConsoleFeed::default();
        feed.never_tell(["hunter22".into(), "ab".into()]);
        feed.push("info", "+ export KEY=hunter22 ab".to_owned());
        assert_eq!(feed.take(1, 1).lines[0].text, "+ export KEY=*** ab");
        assert!(!format!("{feed:?}").contains("hunter22"));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let feed = ConsoleFeed::default();
        feed.push("info", "ü".repeat(LINE));
        assert!(feed.take(1, 1).lines[0].text.len() <= LINE + 3);
    }
}
