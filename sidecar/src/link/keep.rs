//! A session for good: whenever it ends, the next one, after a while.

use std::time::Duration;

use proto::v1::{FromSidecar, Hello, Order, Welcome, to_sidecar};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::session::{Dialer, LinkError};
use super::suite;
use crate::log;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A session that stood this long was a good one: the next one may be tried soon.
const PROVEN: Duration = Duration::from_secs(30);

/// What a session brings.
#[derive(Debug)]
pub enum Incoming {
    /// A session stands; messages for it go here. It ends when the sender is dropped.
    Attached {
        /// The controller's first message.
        welcome: Box<Welcome>,
        /// To the controller.
        sender: mpsc::Sender<FromSidecar>,
    },
    /// The controller says so.
    Order(Order),
    /// The session ended.
    Detached,
}

/// Makes the Hello of each session anew: the credential changes with the first.
pub trait Greeting: Send + 'static {
    /// The next session's first message.
    fn hello(&mut self) -> Hello;
}

impl<F: FnMut() -> Hello + Send + 'static> Greeting for F {
    fn hello(&mut self) -> Hello {
        self()
    }
}

/// Holds a session up until nobody listens to `incoming` any more.
pub async fn keep(dialer: Dialer, mut greeting: impl Greeting, incoming: mpsc::Sender<Incoming>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let refused = match dialer.connect(greeting.hello()).await {
            Ok(session) => {
                log::info(format_args!("attached to the controller"));
                let (welcome, sender) = (Box::new(session.welcome), session.sender);
                if incoming.send(Incoming::Attached { welcome, sender }).await.is_err() {
                    return;
                }
                let error = receive(session.receiver, &incoming).await;
                if incoming.send(Incoming::Detached).await.is_err() {
                    return;
                }
                error
            }
            Err(error) => Some(error),
        };
        if began.elapsed() > PROVEN {
            pause = FIRST_PAUSE;
        }
        if let Some(error) = &refused {
            log::warn(format_args!("{}", log::chain(error)));
            if is_final(error) {
                // Told off by name: asking sooner changes nothing.
                pause = LONGEST_PAUSE;
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Half of it at random, so that a restarted controller is not met by all at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + suite::fraction() / 2.0)
}

/// Any time below the limit.
pub(crate) fn evenly_below(limit: Duration) -> Duration {
    limit.mul_f64(suite::fraction())
}

async fn receive(
    mut receiver: tonic::Streaming<proto::v1::ToSidecar>,
    incoming: &mpsc::Sender<Incoming>,
) -> Option<LinkError> {
    loop {
        match receiver.message().await {
            Ok(Some(message)) => match message.body {
                Some(to_sidecar::Body::Order(order)) => incoming.send(Incoming::Order(order)).await.ok()?,
                // One is enough; and what a later version may say is not for us.
                Some(to_sidecar::Body::Welcome(_)) | None => {}
            },
            Ok(None) => return None,
            Err(status) => return Some(LinkError::Refused(Box::new(status))),
        }
    }
}

fn is_final(error: &LinkError) -> bool {
    match error {
        LinkError::Refused(status) => {
            matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition)
        }
        LinkError::Setup(_)
        | LinkError::Connect(_)
        | LinkError::Protocol(_)
        | LinkError::Unwelcome
        | LinkError::Late(_) => false,
    }
}
