//! The client: a connection pool, a login, and the rules by which calls are repeated.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::address::{Address, AddressError};
use crate::auth::{Auth, Credentials, ServerInfo};
use crate::error::Error;
use crate::time::Timestamp;
use crate::tls::{Trust, client_config};
use crate::wire::{Body, Failed, Request, Wire};

/// How a client is to work.
#[derive(Clone, Debug)]
pub struct Options {
    /// The API server.
    pub address: Address,
    /// What it logs in with.
    pub credentials: Credentials,
    /// Whose certificates it accepts.
    pub trust: Trust,
    /// Its patience.
    pub timing: Timing,
}

impl Options {
    /// The machine's root certificates and the usual patience.
    pub fn new(address: Address, credentials: Credentials) -> Self {
        Self { address, credentials, trust: Trust::default(), timing: Timing::default() }
    }
}

/// A client's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For one attempt, connecting and reading included.
    pub attempt: Duration,
    /// For a call with its login, its repetitions and their pauses.
    pub overall: Duration,
    /// The shortest pause between two attempts; doubles each time, and up to as much again is added by chance.
    pub pause: Duration,
    /// Where pauses stop to grow.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(10),
            overall: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// A client could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BuildError {
    /// Of the root certificates, most likely.
    #[error("clearml: cannot set up TLS: {0}")]
    Tls(String),
    /// Of the HTTP library.
    #[error("clearml: cannot set up HTTP: {0}")]
    Http(String),
}

impl BuildError {
    pub(crate) fn tls(error: impl std::fmt::Display) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<AddressError> for BuildError {
    fn from(error: AddressError) -> Self {
        Self::Http(format!("the server's address {error}"))
    }
}

/// Whether an attempt may be repeated after the server may have seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or twice is the same as once.
    Always,
    /// Only if it surely never arrived.
    Unseen,
}

/// ClearML's API server. Cheap to clone; clones share the login and the connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wire: Wire,
    auth: Auth,
    timing: Timing,
    trust: Trust,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// If the machine has no root certificates and the address is `https`.
    pub fn new(options: Options) -> Result<Self, BuildError> {
        let Options { address, credentials, trust, timing } = options;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&trust, address.is_https())?)
            .redirect(Policy::none())
            .connect_timeout(timing.attempt / 2)
            .pool_idle_timeout(Duration::from_secs(20))
            .user_agent(concat!("clearml-autoscaler/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| BuildError::Http(error.to_string()))?;
        let wire = Wire { http, address, attempt_limit: timing.attempt, told: Mutex::default() };
        Ok(Self { inner: Arc::new(Inner { wire, auth: Auth::new(credentials), timing, trust }) })
    }

    /// The server's address.
    pub fn address(&self) -> &Address {
        &self.inner.wire.address
    }

    /// What the server's clock shows now, by the date of its last answer: good to half a second and the time
    /// that an answer takes. `None` before the first, or if it gives no date.
    pub fn server_time(&self) -> Option<Timestamp> {
        self.inner.wire.server_time()
    }

    /// Logs in, if that has not been done, and tells what the token says about the server.
    ///
    /// # Errors
    /// `Unauthorized` if the credentials are not accepted.
    pub async fn login(&self) -> Result<ServerInfo, Error> {
        self.patiently("auth.login", Repeat::Always, || async {
            self.inner.auth.ticket(&self.inner.wire, None).await.map(|_| ())
        })
        .await?;
        Ok(self.inner.auth.info().await.unwrap_or_default())
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// What a neighbour of the API server is asked with, and the number of the login that it stems from;
    /// another one than that which was just `rejected`.
    pub(crate) async fn bearer(&self, rejected: Option<u64>) -> Result<(HeaderValue, u64), Error> {
        let Inner { wire, auth, .. } = &*self.inner;
        let ticket = self.patiently("auth.login", Repeat::Always, || auth.ticket(wire, rejected)).await?;
        Ok((ticket.bearer, ticket.number))
    }

    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        endpoint: &'static str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let payload = serde_json::to_vec(body).map_err(|error| Error::Malformed {
            endpoint,
            reason: format!("the request cannot be written as JSON: {error}"),
        })?;
        self.send(Request { endpoint, kind: Body::Json, payload: &payload }, repeat).await
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        request: Request<'_>,
        repeat: Repeat,
    ) -> Result<T, Error> {
        self.patiently(request.endpoint, repeat, || self.attempt(request)).await
    }

    /// One attempt, and one more with a fresh login if the token was not accepted: whatever the call, a
    /// server that refuses the token has done nothing.
    async fn attempt<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Failed> {
        let Inner { wire, auth, .. } = &*self.inner;
        let ticket = auth.ticket(wire, None).await?;
        match wire.send(request, ticket.bearer).await {
            Err(Failed { error: Error::Unauthorized { .. }, .. }) => {
                let fresh = auth.ticket(wire, Some(ticket.number)).await?;
                wire.send(request, fresh.bearer).await
            }
            outcome => outcome,
        }
    }

    async fn patiently<T, F>(
        &self,
        endpoint: &'static str,
        repeat: Repeat,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let timing = self.inner.timing;
        let deadline = Instant::now() + timing.overall;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(timing.pause)
            .with_max_delay(timing.longest_pause)
            .with_jitter()
            .without_max_times()
            .build();
        let mut last = None;
        loop {
            let Ok(outcome) = timeout_at(deadline, attempt()).await else {
                let reason = format!("no answer from {} within {:?}", self.address(), timing.overall);
                return Err(last.unwrap_or(Error::Unavailable { endpoint, reason }));
            };
            let failed = match outcome {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let repeatable = failed.error.is_transient() && (failed.unsent || repeat == Repeat::Always);
            let pause = pauses.next().unwrap_or(timing.longest_pause);
            if !repeatable || Instant::now() + pause >= deadline {
                return Err(failed.error);
            }
            debug!(error = %failed.error, pause_ms = pause.as_millis(), "will be repeated");
            last = Some(failed.error);
            sleep(pause).await;
        }
    }
}
