//! Connections and their deadlines. No timer per connection: one sweep for all.
//!
//! A connection must get on: shake hands, then ask for something, or be closed. Those without a session
//! have room of their own, in which the newest displaces the oldest: whoever opens connections and says
//! nothing only displaces others of its kind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Limits;

/// A client needs two or three requests; one that sends hundreds is none of ours.
const MAX_REQUESTS: u32 = 64;

/// All connections.
pub(super) struct Connections {
    began: Instant,
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    serials: u64,
    total: usize,
    /// Those that carry no session, oldest first.
    pending: BTreeMap<u64, Arc<Connection>>,
}

/// One connection.
pub(super) struct Connection {
    serial: u64,
    began: Instant,
    /// Milliseconds since `began` at which it is closed, unless it carries a session then.
    deadline: AtomicU64,
    linger: Duration,
    requests: AtomicU32,
    pub(super) sessions: AtomicU32,
    close: Notify,
}

/// Counts a connection until it is dropped.
pub(super) struct Slot {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { began: Instant::now(), limits, open: Mutex::default() }
    }

    /// Room for a new connection. `None` if there is none.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Slot> {
        let mut open = self.lock();
        if open.pending.len() >= self.limits.pending
            && let Some((_, oldest)) = open.pending.pop_first()
        {
            oldest.close.notify_one();
        }
        if open.total >= self.limits.connections {
            return None;
        }
        open.total += 1;
        open.serials += 1;
        let connection = Arc::new(Connection {
            serial: open.serials,
            began: self.began,
            deadline: AtomicU64::new(0),
            linger: self.limits.unused,
            requests: AtomicU32::new(0),
            sessions: AtomicU32::new(0),
            close: Notify::new(),
        });
        connection.extend(self.limits.handshake);
        open.pending.insert(connection.serial, Arc::clone(&connection));
        drop(open);
        Some(Slot { connections: Arc::clone(self), connection })
    }

    /// It carries a session now.
    pub(super) fn settle(&self, connection: &Connection) {
        self.lock().pending.remove(&connection.serial);
    }

    /// It carries none any more.
    pub(super) fn unsettle(&self, connection: &Arc<Connection>) {
        connection.extend(connection.linger);
        self.lock().pending.insert(connection.serial, Arc::clone(connection));
    }

    /// Closes what is past its deadline.
    pub(super) fn sweep(&self) {
        let now = millis(self.began.elapsed());
        self.lock().pending.retain(|_, connection| {
            let overdue = connection.deadline.load(Ordering::Relaxed) <= now;
            if overdue {
                connection.close.notify_one();
            }
            !overdue
        });
    }

    /// Connections of any kind.
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Resolves when it is to be closed.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Gives it this long from now on.
    pub(super) fn extend(&self, time: Duration) {
        self.deadline.store(millis(self.began.elapsed() + time), Ordering::Relaxed);
    }

    /// Counts a request; whether it may have one more.
    pub(super) fn may_ask(&self) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed) < MAX_REQUESTS
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.total -= 1;
        open.pending.remove(&self.connection.serial);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { connections: 3, pending: 2, ..Limits::default() }
    }

    #[test]
    fn a_silent_connection_is_displaced_by_a_newer_one() {
        let connections = Arc::new(Connections::new(limits()));
        let first = connections.admit().unwrap();
        let _second = connections.admit().unwrap();
        let _third = connections.admit().unwrap();
        assert!(!connections.lock().pending.contains_key(&first.connection.serial));
        assert_eq!(connections.total(), 3);
        assert!(connections.admit().is_none(), "the displaced one still has to go");
        drop(first);
        assert!(connections.admit().is_some());
    }

    #[test]
    fn a_connection_with_a_session_is_neither_displaced_nor_swept() {
        let connections = Arc::new(Connections::new(limits()));
        let session = connections.admit().unwrap();
        connections.settle(&session.connection);
        session.connection.extend(Duration::ZERO);
        let late = connections.admit().unwrap();
        late.connection.extend(Duration::ZERO);
        connections.sweep();
        assert!(connections.lock().pending.is_empty());
        connections.unsettle(&session.connection);
        assert_eq!(connections.lock().pending.len(), 1);
    }

    #[test]
    fn a_connection_may_ask_a_limited_number_of_times() {
        let connections = Arc::new(Connections::new(limits()));
        let slot = connections.admit().unwrap();
        assert_eq!((0..100).filter(|_| slot.connection.may_ask()).count(), MAX_REQUESTS as usize);
    }
}
