//! The operator's door: HTTP over a Unix socket in the state directory. Who may open the socket may ask, may
//! drain and pause, and may have the configuration read again; what is written in it never comes from here.

mod ask;
mod records;
mod wire;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::Published;
use engine::status::Status;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

pub use ask::{AskError, ask, costs, drain, history, in_use, pause, reload, resume, undrain};
pub use records::Records;
pub use wire::{
    Awaiting, DrainAnswer, DrainRequest, Drained, InUse, LaunchesAnswer, PauseRequest, Refused, Reloaded,
    UndrainAnswer, UndrainRequest, Undrained,
};

use self::wire::DigestKey;
use crate::service::{ReloadError, Reloader, WishError, Wishes};

/// The socket's name in the state directory.
pub const SOCKET: &str = "admin.sock";

/// The open door. Dropping it closes it and removes the socket.
#[derive(Debug)]
pub struct Admin {
    path: PathBuf,
    serving: tokio::task::JoinHandle<()>,
}

/// What is behind the door.
#[derive(Clone)]
struct Behind {
    published: watch::Receiver<Arc<Published>>,
    reloader: Arc<Reloader>,
    records: Records,
    wishes: Arc<Wishes>,
}

impl Admin {
    /// Listens on `path`, for the owner alone.
    ///
    /// # Errors
    /// If the socket can't be made, or if another process answers on it.
    pub async fn listen(
        path: PathBuf,
        published: watch::Receiver<Arc<Published>>,
        reloader: Arc<Reloader>,
        records: Records,
        wishes: Arc<Wishes>,
    ) -> anyhow::Result<Self> {
        if UnixStream::connect(&path).await.is_ok() {
            anyhow::bail!("another controller answers on {}", path.display());
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove the old socket {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listen on the socket {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("protect the socket {}", path.display()))?;
        let routes = Router::new()
            .route("/status", get(status))
            .route("/configuration", get(configuration))
            .route("/reload", post(reload_configuration))
            .route("/history", get(records::history))
            .route("/costs", get(records::costs))
            .route("/drain", post(drain_instances))
            .route("/undrain", post(undrain_instances))
            .route("/pause", post(pause_launches))
            .route("/resume", post(resume_launches))
            .with_state(Behind { published, reloader, records, wishes });
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!("the admin socket failed: {error}");
            }
        });
        Ok(Self { path, serving })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.serving.abort();
        // Nothing answers there any more; a leftover would only mislead.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn status(State(behind): State<Behind>) -> Json<Status> {
    Json(Status::of(&behind.published.borrow()))
}

async fn configuration(State(behind): State<Behind>, Query(key): Query<DigestKey>) -> Json<InUse> {
    Json(behind.reloader.in_use(key.digest_key.as_bytes()))
}

/// In a task of its own: an operator who does not wait for the answer leaves nothing half done.
async fn reload_configuration(State(behind): State<Behind>) -> Response {
    let reloading = tokio::spawn(async move { behind.reloader.reload().await });
    match reloading.await {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(ReloadError::Faults(faults))) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, faults.iter().map(ToString::to_string).collect())
        }
        Ok(Err(ReloadError::ClearMl(error))) if !error.is_transient() => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, vec![error.to_string()])
        }
        Ok(Err(ReloadError::ClearMl(error))) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, vec![error.to_string()])
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, vec![error.to_string()]),
    }
}

async fn drain_instances(State(behind): State<Behind>, Json(request): Json<DrainRequest>) -> Response {
    granted(async move { behind.wishes.drain(request).await }).await
}

async fn undrain_instances(State(behind): State<Behind>, Json(request): Json<UndrainRequest>) -> Response {
    granted(async move { behind.wishes.undrain(request.instances).await }).await
}

async fn pause_launches(State(behind): State<Behind>, Json(request): Json<PauseRequest>) -> Response {
    granted(async move { behind.wishes.pause(request.reason).await }).await
}

async fn resume_launches(State(behind): State<Behind>) -> Response {
    granted(async move { behind.wishes.resume().await }).await
}

/// In a task of its own, as a reload: what is written down is told to the loop, whoever waits for it.
async fn granted<T>(wish: impl Future<Output = Result<T, WishError>> + Send + 'static) -> Response
where
    T: serde::Serialize + Send + 'static,
{
    match tokio::spawn(wish).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(WishError::Wrong(faults))) => refused(StatusCode::UNPROCESSABLE_ENTITY, faults),
        Ok(Err(error @ WishError::Journal(_))) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, vec![error.to_string()])
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, vec![error.to_string()]),
    }
}

fn refused(status: StatusCode, faults: Vec<String>) -> Response {
    (status, Json(Refused { faults })).into_response()
}
