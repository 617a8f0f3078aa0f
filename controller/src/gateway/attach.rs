//! Who may have a session: every Hello is judged here, and its token issued.
//!
//! A launch secret is shared by the instances of one call and can be read by whatever runs on them, so
//! it opens exactly one door: the first attach of an admitted instance of that very launch. It opens it
//! again only within the same boot, and only until the token has been used, since a Welcome can be lost.

use std::sync::Arc;
use std::time::Duration;

use planner::{InstanceId, IntentId};
use proto::v1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tonic::Status;

use super::table::{Seat, SessionTable};
use super::vault::{TokenRecord, Vault, VaultError};
use super::{BootScripts, Settings};

/// The only version of the protocol so far.
pub(super) const PROTOCOL_VERSION: u32 = 1;

/// Judges who calls.
pub(super) struct Doorman<V> {
    pub(super) table: Arc<SessionTable>,
    pub(super) vault: Arc<V>,
    pub(super) scripts: Arc<dyn BootScripts>,
    pub(super) settings: Settings,
}

/// What comes of a Hello that was accepted.
pub(super) struct Attached {
    pub(super) seat: Seat,
    pub(super) orders: mpsc::Receiver<v1::ToSidecar>,
    pub(super) welcome: v1::ToSidecar,
    /// The record of the token in this Welcome, to be marked as used once it has surely arrived.
    pub(super) issued: Option<TokenRecord>,
}

/// Why a Hello is refused. Its text goes to the caller and to the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("protocol version {0}, this controller speaks {PROTOCOL_VERSION}")]
    Version(u32),
    #[error("malformed hello: {0}")]
    Malformed(&'static str),
    #[error("wrong launch secret")]
    WrongSecret,
    #[error("wrong instance token")]
    WrongToken,
    #[error("a token was issued for this instance before: the launch secret is of no use any more")]
    TokenIssued,
    #[error("not an instance of this fleet")]
    NotOurs,
    #[error("not an instance of this launch")]
    OtherLaunch,
    #[error("another attach of this instance is under way")]
    UnderWay,
    #[error("too many sessions")]
    Full,
    #[error("no boot script for this instance yet")]
    NoScript,
    #[error("secrets can't be read or written at the moment")]
    Vault(#[from] VaultError),
}

impl Refusal {
    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Version(_) => Status::failed_precondition(text),
            Self::Malformed(_) => Status::invalid_argument(text),
            Self::WrongSecret | Self::WrongToken | Self::TokenIssued => Status::unauthenticated(text),
            Self::NotOurs | Self::OtherLaunch => Status::permission_denied(text),
            Self::Full => Status::resource_exhausted(text),
            Self::UnderWay | Self::NoScript | Self::Vault(_) => Status::unavailable(text),
        }
    }
}

/// By what right an accepted caller is here.
enum Right {
    /// It has a token that is known.
    Token,
    /// It gets this one.
    Issue(TokenRecord, Vec<u8>),
}

impl<V: Vault> Doorman<V> {
    /// Judges a Hello; on acceptance any older stream of the instance has ended.
    pub(super) async fn attach(&self, hello: v1::Hello) -> Result<Attached, Refusal> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Refusal::Version(hello.protocol_version));
        }
        let instance = InstanceId(plain(&hello.instance_id, "instance id")?);
        let intent = IntentId(plain(&hello.intent_id, "intent id")?);
        plain(&hello.boot_id, "boot id")?;
        if hello.sidecar_version.len() > 64 || hello.sidecar_version.chars().any(char::is_control) {
            return Err(Refusal::Malformed("sidecar version"));
        }
        let _turn = self.table.turn(&instance).ok_or(Refusal::UnderWay)?;
        let right = self.right(&hello, &instance, &intent).await?;
        let script = if hello.wants_boot_script {
            Some(self.scripts.script(&instance, &intent).ok_or(Refusal::NoScript)?)
        } else {
            None
        };
        let (token, issued) = match right {
            Right::Token => (Vec::new(), None),
            Right::Issue(record, token) => {
                self.vault.put_token(&instance, &record).await?;
                (token, Some(record))
            }
        };
        let (seat, orders) = self.table.seat(hello, self.settings.limits.sessions).ok_or(Refusal::Full)?;
        let welcome = v1::Welcome {
            instance_token: token,
            boot_script: script,
            silent_idle_limit_ms: millis(*self.settings.silent_idle_limit.borrow()),
            epoch: self.settings.epoch,
        };
        let welcome = v1::ToSidecar { body: Some(v1::to_sidecar::Body::Welcome(welcome)) };
        Ok(Attached { seat, orders, welcome, issued })
    }

    /// The credential first, and only then whether the instance is known: who has no secret learns nothing.
    async fn right(
        &self,
        hello: &v1::Hello,
        instance: &InstanceId,
        intent: &IntentId,
    ) -> Result<Right, Refusal> {
        let wait = self.settings.limits.admission;
        match &hello.credential {
            None => Err(Refusal::Malformed("no credential")),
            Some(v1::hello::Credential::InstanceToken(token)) => {
                let known = self.vault.token(instance).await?;
                let record = known.filter(|record| same(&hash(token), &record.hash));
                let record = record.ok_or(Refusal::WrongToken)?;
                self.table.admitted(instance, wait).await.ok_or(Refusal::NotOurs)?;
                if !record.used {
                    self.vault.put_token(instance, &TokenRecord { used: true, ..record }).await?;
                }
                Ok(Right::Token)
            }
            Some(v1::hello::Credential::LaunchSecret(secret)) => {
                let known = self.vault.launch_secret(intent).await?;
                known.filter(|known| !known.is_empty() && same(secret, known)).ok_or(Refusal::WrongSecret)?;
                let launch = self.table.admitted(instance, wait).await.ok_or(Refusal::NotOurs)?;
                if launch.as_ref() != Some(intent) {
                    return Err(Refusal::OtherLaunch);
                }
                let earlier = self.vault.token(instance).await?;
                let spent = earlier.is_some_and(|record| record.used || record.boot_id != hello.boot_id);
                if spent || self.table.has_reported(instance) {
                    return Err(Refusal::TokenIssued);
                }
                let token: [u8; 32] = rand::random();
                let boot_id = hello.boot_id.clone();
                Ok(Right::Issue(TokenRecord { hash: hash(&token), boot_id, used: false }, token.to_vec()))
            }
        }
    }
}

/// An id as machines make them: it goes into tables and logs.
fn plain(text: &str, what: &'static str) -> Result<String, Refusal> {
    let well = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if well { Ok(text.to_owned()) } else { Err(Refusal::Malformed(what)) }
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
