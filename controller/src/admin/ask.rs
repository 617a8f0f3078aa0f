//! The other side of the door: asking a running controller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::history::History;
use engine::status::Status;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{
    DrainAnswer, DrainRequest, InUse, LaunchesAnswer, PauseRequest, Refused, Reloaded, UndrainAnswer,
    UndrainRequest,
};
use crate::http;
use crate::service::ledger::Costs;

/// An answer that takes longer is no answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A year's stretches take a while to be read and added up.
const RECORD_PATIENCE: Duration = Duration::from_secs(30);
/// A reload asks ClearML, which is given 30 s for each call.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a disk may take.
const WISH_PATIENCE: Duration = Duration::from_secs(35);

/// Why there is no answer, or none of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("no controller answers on {}", .path.display())]
    NoController {
        /// The socket.
        path: PathBuf,
        /// What came in the way.
        source: reqwest::Error,
    },
    /// The configuration must be corrected.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// It may work later.
    #[error("{}", .0.join("\n"))]
    Unavailable(Vec<String>),
    /// Something else answered, or an older controller.
    #[error("the controller on {} did not understand", .path.display())]
    Misunderstood {
        /// The socket.
        path: PathBuf,
        /// What came in the way.
        source: reqwest::Error,
    },
}

/// The status of the controller that answers on `path`.
///
/// # Errors
/// If none does, or not in time.
pub async fn ask(path: &Path) -> Result<Status, AskError> {
    let answer = send(path, PATIENCE, |client| client.get("http://controller/status")).await?;
    read(path, answer).await
}

/// What the controller that answers on `path` uses, secrets as digests by `digest_key`, letters and digits.
///
/// # Errors
/// As [`ask`].
pub async fn in_use(path: &Path, digest_key: &str) -> Result<InUse, AskError> {
    let url = format!("http://controller/configuration?digest_key={digest_key}");
    let answer = send(path, PATIENCE, |client| client.get(url)).await?;
    read(path, answer).await
}

/// Has the controller that answers on `path` read its configuration again.
///
/// # Errors
/// As [`ask`], and if the configuration was refused.
pub async fn reload(path: &Path) -> Result<Reloaded, AskError> {
    let answer = send(path, RELOAD_PATIENCE, |client| client.post("http://controller/reload")).await?;
    granted(path, answer).await
}

/// Has the controller that answers on `path` drain instances.
///
/// # Errors
/// As [`ask`], and if it refused.
pub async fn drain(path: &Path, request: &DrainRequest) -> Result<DrainAnswer, AskError> {
    wish(path, "drain", request).await
}

/// Has it take drains back.
///
/// # Errors
/// As [`drain`].
pub async fn undrain(path: &Path, instances: Vec<String>) -> Result<UndrainAnswer, AskError> {
    wish(path, "undrain", &UndrainRequest { instances }).await
}

/// Has it launch nothing.
///
/// # Errors
/// As [`drain`].
pub async fn pause(path: &Path, reason: Option<String>) -> Result<LaunchesAnswer, AskError> {
    wish(path, "pause", &PauseRequest { reason }).await
}

/// Has it launch again.
///
/// # Errors
/// As [`drain`].
pub async fn resume(path: &Path) -> Result<LaunchesAnswer, AskError> {
    wish(path, "resume", &()).await
}

async fn wish<T: DeserializeOwned>(path: &Path, name: &str, body: &impl Serialize) -> Result<T, AskError> {
    let url = format!("http://controller/{name}");
    // The journal may take its time: what was asked for stands if it says so, and not before.
    let answer = send(path, WISH_PATIENCE, |client| client.post(url).json(body)).await?;
    granted(path, answer).await
}

async fn granted<T: DeserializeOwned>(path: &Path, answer: Response) -> Result<T, AskError> {
    match answer.status() {
        StatusCode::UNPROCESSABLE_ENTITY => {
            let Refused { faults } = json(path, answer).await?;
            Err(AskError::Refused(faults))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INTERNAL_SERVER_ERROR => {
            let Refused { faults } = json(path, answer).await?;
            Err(AskError::Unavailable(faults))
        }
        _ => read(path, answer).await,
    }
}

/// The newest events of this past, in the journal of the controller that answers on `path`.
///
/// # Errors
/// As [`ask`].
pub async fn history(path: &Path, past: Duration) -> Result<History, AskError> {
    records(path, "history", past).await
}

/// What the fleet of the controller that answers on `path` cost in this past.
///
/// # Errors
/// As [`ask`].
pub async fn costs(path: &Path, past: Duration) -> Result<Costs, AskError> {
    records(path, "costs", past).await
}

async fn records<T: DeserializeOwned>(path: &Path, what: &str, past: Duration) -> Result<T, AskError> {
    let url = format!("http://controller/{what}?past_ms={}", past.as_millis());
    let answer = send(path, RECORD_PATIENCE, |client| client.get(url)).await?;
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        let Refused { faults } = json(path, answer).await?;
        return Err(AskError::Unavailable(faults));
    }
    read(path, answer).await
}

async fn send(
    path: &Path,
    patience: Duration,
    request: impl FnOnce(reqwest::Client) -> RequestBuilder,
) -> Result<Response, AskError> {
    // The URL says nothing that the path does not, but the digests' key.
    let nobody = |source: reqwest::Error| AskError::NoController {
        path: path.to_owned(),
        source: source.without_url(),
    };
    let client = http::client(patience).unix_socket(path).build().map_err(nobody)?;
    request(client).send().await.map_err(nobody)
}

async fn read<T: DeserializeOwned>(path: &Path, answer: Response) -> Result<T, AskError> {
    let sound = answer.error_for_status().map_err(|source| misunderstood(path, source))?;
    json(path, sound).await
}

async fn json<T: DeserializeOwned>(path: &Path, answer: Response) -> Result<T, AskError> {
    answer.json().await.map_err(|source| misunderstood(path, source))
}

fn misunderstood(path: &Path, source: reqwest::Error) -> AskError {
    AskError::Misunderstood { path: path.to_owned(), source: source.without_url() }
}
