//! One session's stream. It reads reports and hands out orders in one poll, so that a session costs no
//! task, no timer and no buffer beyond its HTTP/2 stream's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use proto::v1::{self, from_sidecar::Body};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::attach::Attached;
use super::connections::{Connection, Connections};
use super::report::{self, Malformed};
use super::table::Seat;
use super::vault::{TokenRecord, Vault};

/// Messages taken in one poll before other tasks get their turn.
const AT_ONCE: u32 = 32;
const MAX_TAIL: usize = 8 * 1024;

/// The answer to an accepted Hello: Welcome, then orders until either side ends it.
pub(super) struct SessionStream<V> {
    inbound: Streaming<v1::FromSidecar>,
    orders: mpsc::Receiver<v1::ToSidecar>,
    welcome: Option<v1::ToSidecar>,
    issued: Option<TokenRecord>,
    vault: Arc<V>,
    seat: Seat,
    /// Dropped after the seat: the connection counts as in use until then.
    _use: InUse,
}

/// A connection that carries a session is not closed for being idle.
pub(super) struct InUse {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

/// How a stream goes on.
enum Next {
    On,
    End,
}

impl<V: Vault> SessionStream<V> {
    pub(super) fn new(
        inbound: Streaming<v1::FromSidecar>,
        attached: Attached,
        vault: Arc<V>,
        in_use: InUse,
    ) -> Self {
        let Attached { seat, orders, welcome, issued } = attached;
        Self { inbound, orders, welcome: Some(welcome), issued, vault, seat, _use: in_use }
    }

    fn take(&mut self, message: v1::FromSidecar) -> Result<(), Malformed> {
        match message.body {
            Some(Body::Report(report)) => {
                self.confirm();
                self.seat.report(report)
            }
            Some(Body::Answer(answer)) => self.seat.answer(&answer),
            Some(Body::BootLog(log)) => self.log(&log),
            Some(Body::Hello(_)) => Err(Malformed("a second hello")),
            None => Err(Malformed("an empty message")),
        }
    }

    /// Whoever reports has kept its token: from now on the launch secret is of no use.
    fn confirm(&mut self) {
        let Some(record) = self.issued.take() else { return };
        let vault = Arc::clone(&self.vault);
        let instance = self.seat.instance().clone();
        tokio::spawn(async move {
            let record = TokenRecord { used: true, ..record };
            if let Err(error) = vault.put_token(&instance, &record).await {
                warn!(%instance, "mark token as used: {error:#}");
            }
        });
    }

    fn log(&self, log: &v1::BootLog) -> Result<(), Malformed> {
        let instance = self.seat.instance();
        let phase = report::phase(&log.phase)?;
        if log.failed {
            let tail = tail(&log.log_tail);
            warn!(%instance, phase, tail, "boot phase failed");
            self.seat.boot_failed(format!("phase {phase} failed: {tail}"))
        } else {
            info!(%instance, phase, "boot phase");
            Ok(())
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Malformed>> {
        for _ in 0..AT_ONCE {
            match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                Some(Ok(message)) => self.take(message)?,
                Some(Err(status)) => {
                    debug!(instance = %self.seat.instance(), code = ?status.code(), "sidecar's stream broke");
                    return Poll::Ready(Ok(Next::End));
                }
                None => return Poll::Ready(Ok(Next::End)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(Next::On))
    }
}

impl<V: Vault> Stream for SessionStream<V> {
    type Item = Result<v1::ToSidecar, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(welcome) = this.welcome.take() {
            return Poll::Ready(Some(Ok(welcome)));
        }
        match this.read(cx) {
            Poll::Ready(Ok(Next::End)) => return Poll::Ready(None),
            Poll::Ready(Err(malformed)) => {
                warn!(instance = %this.seat.instance(), "session refused: {malformed}");
                return Poll::Ready(Some(Err(Status::invalid_argument(malformed.to_string()))));
            }
            Poll::Ready(Ok(Next::On)) | Poll::Pending => {}
        }
        Pin::new(&mut this.orders).poll_recv(cx).map(|order| order.map(Ok))
    }
}

/// The end of a log, without what could move a terminal's cursor.
fn tail(log: &str) -> String {
    let from = log.ceil_char_boundary(log.len().saturating_sub(MAX_TAIL));
    log[from..].chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

impl InUse {
    pub(super) fn of(connections: Arc<Connections>, connection: Arc<Connection>) -> Self {
        if connection.sessions.fetch_add(1, Ordering::Relaxed) == 0 {
            connections.settle(&connection);
        }
        Self { connections, connection }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.connection.sessions.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.connections.unsettle(&self.connection);
        }
    }
}
