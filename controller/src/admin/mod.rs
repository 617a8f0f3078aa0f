//! The operator's door: HTTP over a Unix socket in the state directory. Who may open the socket may ask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use engine::Published;
use engine::status::Status;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::http;

/// The socket's name in the state directory.
pub const SOCKET: &str = "admin.sock";
/// An answer that takes longer is no answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The open door. Dropping it closes it and removes the socket.
#[derive(Debug)]
pub struct Admin {
    path: PathBuf,
    serving: tokio::task::JoinHandle<()>,
}

impl Admin {
    /// Listens on `path`, for the owner alone.
    ///
    /// # Errors
    /// If the socket can't be made, or if another process answers on it.
    pub async fn listen(path: PathBuf, published: watch::Receiver<Arc<Published>>) -> anyhow::Result<Self> {
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
        let routes = Router::new().route("/status", get(status)).with_state(published);
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

async fn status(State(published): State<watch::Receiver<Arc<Published>>>) -> Json<Status> {
    Json(Status::of(&published.borrow()))
}

/// Asks the controller that answers on `path`.
///
/// # Errors
/// If none does, or not in time.
pub async fn ask(path: &Path) -> anyhow::Result<Status> {
    let client = http::client(PATIENCE).unix_socket(path).build()?;
    let answer = client.get("http://controller/status").send().await?.error_for_status()?;
    Ok(answer.json().await?)
}
