//! The ledger: what the fleet costs, kept over restarts.
//!
//! A pure book ([`book`]) turns what the loop publishes into stretches of instances' lives at one price; they are
//! written to the journal as they begin and end. An open one needs no writing: it goes on while nobody looks, and
//! EC2's list says when it ended.

mod book;
mod costs;
mod hourly;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Published;
use engine::ports::JournalError;
use planner::Time;
use tokio::sync::watch;

pub(crate) use book::Book;
pub use costs::{CostLine, Costs};
#[cfg(test)]
pub(crate) use hourly::NoPrices;
pub use hourly::{Hourly, RegionalPrices};

use crate::journal::{Store, Stretch};

/// Between two looks at least.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// Without news, looked at again after this: prices change by themselves.
const TICK: Duration = Duration::from_secs(30);
/// How often it is written down that the fleet was looked at.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// The ledger of a run. Clones are the same one.
#[derive(Clone)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    store: Arc<Store>,
    prices: Arc<dyn Hourly>,
}

impl Ledger {
    /// Goes on where the journal's last run ended.
    ///
    /// # Errors
    /// The journal can't be read.
    pub(super) async fn resume(
        store: Arc<Store>,
        prices: Arc<dyn Hourly>,
        now: Time,
    ) -> Result<Self, JournalError> {
        let book = Book::resume(store.ledger(now).await?);
        Ok(Self { book: Arc::new(Mutex::new(book)), store, prices })
    }

    /// The book as it is now.
    pub(super) fn book(&self) -> Book {
        self.lock().clone()
    }

    /// Follows the loop for ever.
    pub(super) async fn keep(self, mut published: watch::Receiver<Arc<Published>>) {
        let mut writing = Writing::default();
        loop {
            let latest = published.borrow_and_update().clone();
            self.look(&latest, &mut writing, SEEN_EVERY).await;
            tokio::time::sleep(LOOK_GAP).await;
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// A last look, when the loop has ended.
    pub(super) async fn finish(&self, published: &Published) {
        self.look(published, &mut Writing::default(), Duration::ZERO).await;
    }

    async fn look(&self, published: &Published, writing: &mut Writing, seen_every: Duration) {
        writing.unwritten.extend(self.lock().observe(published, &*self.prices));
        let now = published.snapshot.now;
        let is_due = writing.seen_at.is_none_or(|at| now.since(at) >= seen_every);
        let write = async {
            if !writing.unwritten.is_empty() {
                self.store.store_stretches(writing.unwritten.clone()).await?;
                writing.unwritten.clear();
            }
            if is_due {
                writing.seen_at = Some(now);
                self.store.store_ledger_seen(now).await?;
            }
            Ok::<(), JournalError>(())
        };
        if let Err(error) = write.await {
            tracing::warn!("the ledger waits to be written: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Whole after each change, whoever panicked elsewhere.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is still to be written, and what was.
#[derive(Default)]
struct Writing {
    unwritten: Vec<Stretch>,
    seen_at: Option<Time>,
}
