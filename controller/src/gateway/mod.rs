//! The one port: sidecars' sessions over gRPC, and the download of the sidecar itself.
//!
//! TLS ends here, with a key that instances pin. [`Gateway::bind`] starts it; [`Gateway::sessions`] is
//! the loop's port. Secrets come from a [`Vault`], boot scripts from [`BootScripts`]; nothing here
//! knows ClearML or AWS.

mod artifacts;
mod attach;
mod connections;
mod identity;
mod kept;
mod report;
mod serve;
mod session;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod vault;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::ports::Clock;
use planner::{InstanceId, IntentId};
use proto::v1;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use artifacts::{Arch, Artifact, ArtifactError, Artifacts};
pub use identity::{Identity, IdentityError, SERVER_NAME};
pub use kept::KeepError;
pub use table::{Detail, GpuUse, SessionTable};
pub use vault::{MemoryVault, TokenRecord, Vault, VaultError};

/// Connections that the kernel keeps until they are accepted: a whole fleet may come back at once.
const BACKLOG: u32 = 4096;

/// How the gateway is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// This run's number, told to every sidecar.
    pub epoch: u64,
    /// How long an agent may be idle while this controller is silent, before its machine powers itself off.
    /// Told to a sidecar whenever it attaches.
    pub silent_idle_limit: watch::Receiver<Duration>,
    /// What one machine can bear.
    pub limits: Limits,
}

/// Bounds on what callers can make the gateway hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of any kind.
    pub connections: usize,
    /// Of these, without a session: a newer one displaces the oldest.
    pub pending: usize,
    /// Sessions.
    pub sessions: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a connection that asks for nothing.
    pub unused: Duration,
    /// For the first message of a session.
    pub hello: Duration,
    /// For the admission of an instance that attaches before its launch's reply was taken in.
    pub admission: Duration,
    /// For a session without a report: three heartbeats and some.
    pub silence: Duration,
    /// Between two looks at all of these.
    pub sweep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32_000,
            pending: 12_000,
            sessions: 20_000,
            handshake: Duration::from_secs(10),
            unused: Duration::from_secs(10),
            hello: Duration::from_secs(10),
            admission: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            sweep: Duration::from_secs(1),
        }
    }
}

/// Makes what an instance is to run. Asked at an attach, with its secrets already judged.
pub trait BootScripts: Send + Sync + 'static {
    /// The boot script of an instance of a launch. `None` if it can't be told yet: the sidecar asks again.
    fn script(&self, instance: &InstanceId, intent: &IntentId) -> Option<v1::BootScript>;
}

/// The gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is not to be had.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The key is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A gateway that serves. Dropping it ends it and all of its connections.
pub struct Gateway {
    table: Arc<SessionTable>,
    artifacts: Artifacts,
    address: SocketAddr,
    pin: String,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Listens, and serves in a task of its own on the current runtime.
    ///
    /// # Errors
    /// If the address is taken or the key is of no use.
    pub fn bind<V: Vault, C: Clock>(
        settings: Settings,
        identity: &Identity,
        vault: Arc<V>,
        scripts: Arc<dyn BootScripts>,
        artifacts: Artifacts,
        clock: C,
    ) -> Result<Self, GatewayError> {
        let tls = TlsAcceptor::from(identity.tls()?);
        let address = settings.listen;
        let listen = |source| GatewayError::Listen { address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(listen)?;
        socket.set_reuseaddr(true).map_err(listen)?;
        socket.bind(address).map_err(listen)?;
        let listener = socket.listen(BACKLOG).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let table = Arc::new(SessionTable::new(move || clock.now()));
        let connections = Arc::new(connections::Connections::new(settings.limits));
        let doorman = attach::Doorman { table: Arc::clone(&table), vault, scripts, settings };
        let shared =
            serve::Shared { tls, doorman: Arc::new(doorman), artifacts: artifacts.clone(), connections };
        let task = tokio::spawn(serve::serve(listener, Arc::new(shared)));
        Ok(Self { table, artifacts, address, pin: identity.pin().to_owned(), task })
    }

    /// The loop's port.
    pub fn sessions(&self) -> Arc<SessionTable> {
        Arc::clone(&self.table)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `sha256//BASE64` of its public key, as curl's `--pinnedpubkey` takes it.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// SHA-256 of the sidecar that it serves for an architecture, in hexadecimal.
    pub fn artifact_hash(&self, arch: Arch) -> Option<&str> {
        self.artifacts.hash(arch)
    }

    /// All hashes, as user data carries them.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Ends it: no more sessions, and the port is free when this resolves. Sidecars try to come back.
    pub async fn stop(mut self) {
        self.task.abort();
        // Only the abort itself can be the error.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}
