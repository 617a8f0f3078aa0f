//! A ClearML API and file server on loopback: the real wire protocol over real sockets, everything in memory.
//!
//! It answers as the open-source server 2.3.0 (API 2.34) does, with its codes and odd ways: a pop leaves the
//! task `queued`, a worker outlives its machine, names need three characters. What the server never shows,
//! tests learn from the [`Handle`].

mod auth;
mod call;
mod document;
mod endpoints;
mod error;
mod events;
mod faults;
mod files;
mod handle;
mod http;
mod models;
mod projects;
mod query;
mod queues;
mod record;
mod state;
mod status;
mod table;
mod tasks;
mod users;
mod workers;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use error::ApiError;
pub use faults::Fault;
pub use handle::{Handle, QueueInfo, TaskInfo, TimedOut, WorkerInfo};
pub use record::{Pop, RequestRecord, StatusChange};
pub use status::Status;

use auth::Credential;
use endpoints::Version;
use state::State;

/// The API version that the server speaks when a call names none.
const API_VERSION: Version = (2, 34);
const SERVER_VERSION: &str = "2.3.0";
/// The id of the user whom the keys of [`Options`] belong to.
const FIRST_USER: &str = "sandbox";
/// A client that opens a connection and says nothing.
const HEADER_LIMIT: Duration = Duration::from_secs(30);

/// How a [`Server`] behaves. The default listens on free ports of 127.0.0.1.
#[derive(Clone)]
pub struct Options {
    pub api: SocketAddr,
    pub files: SocketAddr,
    pub access_key: String,
    pub secret_key: String,
    /// How long a worker is listed after its last report, if it does not say itself.
    pub worker_timeout: Duration,
    /// A running task that is silent for so long is stopped.
    pub watchdog_silence: Duration,
    /// How often the watchdog looks.
    pub watchdog_interval: Duration,
    /// One request per connection, as the stock server has it; else connections are kept alive.
    pub close_connections: bool,
}

impl Default for Options {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            api: any,
            files: any,
            access_key: "SANDBOXACCESSKEY0001".to_owned(),
            secret_key: "sandbox-secret-key-of-no-worth-0001".to_owned(),
            worker_timeout: Duration::from_secs(600),
            watchdog_silence: Duration::from_secs(7200),
            watchdog_interval: Duration::from_secs(900),
            close_connections: false,
        }
    }
}

/// A running server. It stops, with all its connections, when this is dropped.
pub struct Server {
    api: SocketAddr,
    files: SocketAddr,
    access_key: String,
    secret_key: String,
    handle: Handle,
    running: Vec<JoinHandle<Infallible>>,
}

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    /// An address that can't be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let api = TcpListener::bind(options.api).await?;
        let files = TcpListener::bind(options.files).await?;
        let credential = Credential::new(&options.access_key, &options.secret_key, FIRST_USER);
        let handle = Handle::new(State::new(credential, options.worker_timeout));

        let http =
            Arc::new(http::Api { handle: handle.clone(), close_connections: options.close_connections });
        let store = Arc::new(files::Files::new(handle.clone()));
        let (api_address, files_address) = (api.local_addr()?, files.local_addr()?);
        let running = vec![
            tokio::spawn(serve(api, move |request, peer| Arc::clone(&http).answer(request, peer))),
            tokio::spawn(serve(files, move |request, _| Arc::clone(&store).answer(request))),
            tokio::spawn(watch(handle.clone(), options.watchdog_silence, options.watchdog_interval)),
        ];
        Ok(Self {
            api: api_address,
            files: files_address,
            access_key: options.access_key,
            secret_key: options.secret_key,
            handle,
            running,
        })
    }

    /// For `CLEARML_API_HOST`, without a slash at the end.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// For `CLEARML_FILES_HOST`, without a slash at the end.
    pub fn files_url(&self) -> String {
        format!("http://{}", self.files)
    }

    /// For `CLEARML_WEB_HOST`. There is no web interface: clients only print links to it.
    pub fn web_url(&self) -> String {
        self.files_url()
    }

    /// For `CLEARML_API_ACCESS_KEY`.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// For `CLEARML_API_SECRET_KEY`.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The environment by which ClearML's SDK, its agent and the controller find this server.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("CLEARML_API_HOST", self.api_url()),
            ("CLEARML_WEB_HOST", self.web_url()),
            ("CLEARML_FILES_HOST", self.files_url()),
            ("CLEARML_API_ACCESS_KEY", self.access_key.clone()),
            ("CLEARML_API_SECRET_KEY", self.secret_key.clone()),
        ]
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops listening and ends all connections.
    pub async fn shutdown(mut self) {
        for task in std::mem::take(&mut self.running) {
            task.abort();
            // It ends by being cancelled, which is what was asked for.
            let _cancelled = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.running {
            task.abort();
        }
    }
}

async fn serve<F, A>(listener: TcpListener, answer: F) -> Infallible
where
    F: Fn(Request<Incoming>, SocketAddr) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    // Dropped with this task: the connections end with the server.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answer = answer.clone();
        connections.spawn(async move {
            // Small answers must not wait for the client's acknowledgement.
            let _unset = socket.set_nodelay(true);
            let service = service_fn(move |request| answer(request, peer));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended");
            }
        });
    }
}

async fn watch(handle: Handle, silence: Duration, interval: Duration) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        if tasks::life::stop_silent(&mut handle.state(), silence) > 0 {
            handle.changed();
        }
    }
}
