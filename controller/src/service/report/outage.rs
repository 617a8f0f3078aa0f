//! An outage, told once when it begins and once when it is over: hours of it are not thousands of lines.

use std::fmt::Display;

use tokio::time::Instant;

/// What is being tried again and again.
#[derive(Debug)]
pub(crate) struct Outage {
    what: &'static str,
    began: Option<Instant>,
    failures: u32,
}

impl Outage {
    /// `what` is a phrase that goes before "failed" and "works again".
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, began: None, failures: 0 }
    }

    /// One more failure.
    pub(crate) fn failed(&mut self, error: &dyn Display) {
        let what = self.what;
        self.failures = self.failures.saturating_add(1);
        if self.began.is_none() {
            self.began = Some(Instant::now());
            tracing::warn!("{what} failed and is tried again until it works: {error}");
        } else {
            tracing::debug!("{what} failed again: {error}");
        }
    }

    /// It went well.
    pub(crate) fn over(&mut self) {
        let Some(began) = self.began.take() else { return };
        let failures = std::mem::take(&mut self.failures);
        let (what, seconds) = (self.what, began.elapsed().as_secs());
        tracing::info!("{what} works again, after {failures} failures in {seconds} s");
    }
}
