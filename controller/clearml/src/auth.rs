//! Logging in, and renewing the token in time: one login at a time, however many calls wait for it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::Error;
use crate::wire::{Body, Failed, Request, Wire};

const LOGIN: &str = "auth.login";
/// A token is renewed when less than this is left of it, or half of its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(12 * 3600);
/// Taken for a token that does not say how long it lives.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
/// No token is trusted for longer.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);
/// Between two attempts to renew a token that is still good.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What a client logs in with.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// An access key and its secret, created in the web server's settings.
    Keys {
        /// The public half; not shown all the same.
        access: SecretString,
        /// The secret half.
        secret: SecretString,
    },
    /// A token that somebody else logged in for.
    Token(SecretString),
}

/// What the server's token tells about the server and about whose token it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// `2.3.0`.
    pub server_version: Option<String>,
    /// `2.34`.
    pub api_version: Option<String>,
    /// `basic` is the open-source server.
    pub feature_set: Option<String>,
    /// The company's id: one per server, or one per customer of a hosted one.
    pub company: Option<String>,
    /// The user's id. Workers can be unregistered by their own user only.
    pub user: Option<String>,
}

/// The state of the login.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    session: Mutex<Option<Session>>,
}

/// What a request is authorized with; the number tells which login it stems from.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) bearer: HeaderValue,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Session {
    ticket: Ticket,
    info: ServerInfo,
    renew_at: Instant,
    expires_at: Instant,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, session: Mutex::new(None) }
    }

    /// A ticket that is good by its own account and is not the one that was just `rejected`.
    pub(crate) async fn ticket(&self, wire: &Wire, rejected: Option<u64>) -> Result<Ticket, Failed> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_mut().filter(|session| rejected != Some(session.ticket.number)) {
            if Instant::now() >= session.renew_at {
                match self.login(wire, Some(session)).await {
                    Ok(renewed) => *session = renewed,
                    Err(failed) if Instant::now() >= session.expires_at => return Err(failed),
                    Err(failed) => {
                        warn!(error = %failed.error, "the ClearML token could not be renewed yet");
                        session.renew_at = Instant::now() + RENEWAL_PAUSE;
                    }
                }
            }
            return Ok(session.ticket.clone());
        }
        let number = session.as_ref().map_or(0, |session| session.ticket.number);
        let mut fresh = self.login(wire, None).await?;
        fresh.ticket.number = number + 1;
        Ok(session.insert(fresh).ticket.clone())
    }

    /// About the server, as of the last login.
    pub(crate) async fn info(&self) -> Option<ServerInfo> {
        self.session.lock().await.as_ref().map(|session| session.info.clone())
    }

    async fn login(&self, wire: &Wire, current: Option<&Session>) -> Result<Session, Failed> {
        let request = Request { endpoint: LOGIN, kind: Body::Json, payload: b"{}" };
        let authorization = match (&self.credentials, current) {
            (Credentials::Keys { access, secret }, _) => {
                let pair = format!("{}:{}", access.expose_secret(), secret.expose_secret());
                header("Basic", &STANDARD.encode(pair))?
            }
            // The token that was given may be long expired when the one that came of it is not.
            (Credentials::Token(_), Some(session)) => session.ticket.bearer.clone(),
            (Credentials::Token(token), None) => header("Bearer", token.expose_secret())?,
        };
        let Login { token } = wire.send(request, authorization).await.map_err(repeatable)?;
        let claims = Claims::of(&token);
        let life = claims.life();
        let now = Instant::now();
        let number = current.map_or(0, |session| session.ticket.number) + 1;
        debug!(life_s = life.as_secs(), "logged in to ClearML");
        Ok(Session {
            ticket: Ticket { bearer: header("Bearer", &token)?, number },
            renew_at: now + (life - MARGIN.min(life / 2)),
            expires_at: now + life,
            info: claims.info(),
        })
    }
}

/// A login changes nothing: what waits for it was never sent, and it may be repeated as well.
fn repeatable(failed: Failed) -> Failed {
    Failed { unsent: true, ..failed }
}

fn header(scheme: &str, value: &str) -> Result<HeaderValue, Failed> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).map_err(|_| Failed {
        error: Error::Malformed { endpoint: LOGIN, reason: "the token holds a control character".to_owned() },
        unsent: true,
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// The middle of a JWT. The signature is the server's own business.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    iat: Option<u64>,
    exp: Option<u64>,
    server_version: Option<String>,
    api_version: Option<String>,
    feature_set: Option<String>,
    #[serde(default)]
    identity: Identity,
}

#[derive(Debug, Default, Deserialize)]
struct Identity {
    company: Option<String>,
    user: Option<String>,
}

impl Claims {
    /// An opaque token is as good as one that says nothing.
    fn of(token: &str) -> Self {
        let middle = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        middle.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// By the server's clock alone where possible, so that this machine's may be wrong.
    fn life(&self) -> Duration {
        let local = || SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|now| now.as_secs());
        let life = match (self.exp, self.iat.or_else(local)) {
            (Some(exp), Some(from)) => Duration::from_secs(exp.saturating_sub(from)),
            (None, _) | (_, None) => DEFAULT_LIFE,
        };
        life.min(LONGEST_LIFE)
    }

    fn info(self) -> ServerInfo {
        ServerInfo {
            server_version: self.server_version,
            api_version: self.api_version,
            feature_set: self.feature_set,
            company: self.identity.company,
            user: self.identity.user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_a_real_token_are_read() {
        let claims = r#"{"env":"<unknown>","iat":1795459885,"identity":{"company":"d1bd","user_name":"real_user","role":"user","user":"__real_user__","company_name":"clearml"},"auth_type":"Bearer","exp":1795463485,"api_version":"2.34","server_version":"2.3.0","server_build":"","feature_set":"basic"}"#;
        let claims = Claims::of(&format!("head.{}.tail", URL_SAFE_NO_PAD.encode(claims)));
        assert_eq!(claims.life(), Duration::from_secs(3600));
        assert_eq!(claims.info().feature_set.as_deref(), Some("basic"));
    }

    #[test]
    fn an_opaque_token_is_no_fault() {
        assert_eq!(Claims::of("opaque").life(), DEFAULT_LIFE);
        assert_eq!(Claims::of("a.b!.c").info(), ServerInfo::default());
    }
}
