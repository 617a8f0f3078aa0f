//! One session: dial, greet, be welcomed.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::v1::sidecar_client::SidecarClient;
use proto::v1::{FromSidecar, Hello, ToSidecar, Welcome, from_sidecar, to_sidecar};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Status, Streaming};

use super::pin::{self, Target};

/// The largest message that is taken: a boot script with all its files.
pub const MAX_MESSAGE: usize = 4 << 20;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const WELCOME_LIMIT: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(10);
/// Reports and answers that wait for the network.
const QUEUE: usize = 32;
const WINDOW: u32 = 64 << 10;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// TLS cannot be set up at all.
    #[error("cannot set up tls")]
    Setup(#[source] rustls::Error),
    /// No connection, or not to the holder of the pinned key.
    #[error("cannot connect to the controller")]
    Connect(#[source] std::io::Error),
    /// The connection is no HTTP/2.
    #[error("cannot speak http/2 with the controller")]
    Protocol(#[source] hyper::Error),
    /// The controller refused the session, or ended it.
    #[error("the controller ended the session: {}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// The controller closed the stream, or spoke before its Welcome.
    #[error("the controller did not welcome the session")]
    Unwelcome,
    /// One of the steps took too long.
    #[error("the controller did not {0} in time")]
    Late(&'static str),
}

/// Opens sessions with one controller.
#[derive(Clone)]
pub struct Dialer {
    target: Arc<Target>,
    tls: TlsConnector,
}

impl Dialer {
    /// For this controller.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(target: Target) -> Result<Self, LinkError> {
        let tls = TlsConnector::from(pin::tls(target.pin).map_err(LinkError::Setup)?);
        Ok(Self { target: Arc::new(target), tls })
    }

    /// Opens a session: the connection, the stream, the greeting and its answer, each with a limit of its own.
    ///
    /// # Errors
    /// Any of these failed, or took too long.
    pub async fn connect(&self, hello: Hello) -> Result<Session, LinkError> {
        let transport = timeout(CONNECT_LIMIT, self.transport())
            .await
            .map_err(|_| LinkError::Late("take the connection"))??;
        timeout(WELCOME_LIMIT, greet(transport, hello))
            .await
            .map_err(|_| LinkError::Late("welcome the session"))?
    }

    async fn transport(&self) -> Result<Transport, LinkError> {
        let Target { host, port, name, pin: _ } = &*self.target;
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(LinkError::Connect)?;
        tcp.set_nodelay(true).map_err(LinkError::Connect)?;
        let tls = self.tls.connect(name.clone(), tcp).await.map_err(LinkError::Connect)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_LIMIT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(LinkError::Protocol)?;
        // Ends with the session: with its last sender, or when the controller has gone. The stream tells why.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Transport(sender))
    }
}

async fn greet(transport: Transport, hello: Hello) -> Result<Session, LinkError> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let first = FromSidecar { body: Some(from_sidecar::Body::Hello(hello)) };
    if sender.try_send(first).is_err() {
        return Err(LinkError::Unwelcome);
    }
    // The authority is of no use: whoever holds the key is meant.
    let mut client = SidecarClient::with_origin(transport, http::Uri::from_static("https://controller"))
        .max_decoding_message_size(MAX_MESSAGE);
    let refused = |status: Status| LinkError::Refused(Box::new(status));
    let mut receiver = client.session(ReceiverStream::new(queue)).await.map_err(refused)?.into_inner();
    match receiver.message().await.map_err(refused)?.and_then(|message| message.body) {
        Some(to_sidecar::Body::Welcome(welcome)) => Ok(Session { welcome, sender, receiver }),
        Some(to_sidecar::Body::Order(_)) | None => Err(LinkError::Unwelcome),
    }
}

/// A session that stands. It ends with the drop of its sender or its receiver.
#[derive(Debug)]
pub struct Session {
    /// The controller's first message.
    pub welcome: Welcome,
    /// What goes to the controller. Full if the network does not keep up.
    pub sender: mpsc::Sender<FromSidecar>,
    /// What comes from it.
    pub receiver: Streaming<ToSidecar>,
}

/// One HTTP/2 connection as the service that a gRPC client wants.
struct Transport(http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Transport {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
