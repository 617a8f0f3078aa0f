//! From a socket to a session or a download: TLS, then HTTP/2 or HTTP/1.1, then one of two paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as PlainBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ProtocolVersion;
use tonic::Status;
use tonic::body::Body;
use tracing::{debug, warn};

use super::artifacts::Artifacts;
use super::attach::Doorman;
use super::connections::{Connection, Connections, Slot};
use super::session::SessionMethod;
use super::vault::Vault;

const SESSION_PATH: &str = "/fleet.v1.Sidecar/Session";
const DOWNLOAD_PATH: &str = "/sidecar/";
/// Reports and orders are some hundred bytes: windows and buffers stay small, since there are 10,000 of them.
const WINDOW: u32 = 64 * 1024 - 1;
const SEND_BUFFER: usize = 64 * 1024;
const MAX_HEADERS: u32 = 8 * 1024;
const STREAMS: u32 = 8;
/// What every download gets, however slow its line.
const DOWNLOAD: Duration = Duration::from_secs(180);

/// What all connections share.
pub(super) struct Shared<V> {
    pub(super) tls: TlsAcceptor,
    pub(super) doorman: Arc<Doorman<V>>,
    pub(super) artifacts: Artifacts,
    pub(super) connections: Arc<Connections>,
}

/// What a request is judged by beside itself.
#[derive(Clone)]
struct Caller {
    peer: SocketAddr,
    tls13: bool,
    connection: Arc<Connection>,
}

/// Accepts until it is dropped; every connection ends with it.
pub(super) async fn serve<V: Vault>(listener: TcpListener, shared: Arc<Shared<V>>) {
    let mut tasks = JoinSet::new();
    let mut tick = interval(shared.doorman.settings.limits.sweep);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turned_away = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match shared.connections.admit() {
                    Some(slot) => {
                        tasks.spawn(connection(stream, peer, slot, Arc::clone(&shared)));
                    }
                    None => turned_away += 1,
                },
                Err(error) => {
                    warn!("accept sidecar: {error}");
                    // Out of descriptors, most likely: they come back as connections end.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = tasks.join_next() => {}
            _ = tick.tick() => {
                shared.connections.sweep();
                shared.doorman.table.sweep(shared.doorman.settings.limits.silence);
                if turned_away > 0 {
                    let open = shared.connections.total();
                    warn!(turned_away, open, "too many connections");
                    turned_away = 0;
                }
            }
        }
    }
}

async fn connection<V: Vault>(stream: TcpStream, peer: SocketAddr, slot: Slot, shared: Arc<Shared<V>>) {
    let connection = Arc::clone(&slot.connection);
    tokio::select! {
        () = connection.closed() => debug!(%peer, "connection closed: it did not get on"),
        () = speak(stream, peer, &connection, shared) => {}
    }
    drop(slot);
}

async fn speak<V: Vault>(
    stream: TcpStream,
    peer: SocketAddr,
    connection: &Arc<Connection>,
    shared: Arc<Shared<V>>,
) {
    // Heartbeats are small and single: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, "set TCP_NODELAY: {error}");
    }
    let stream = match shared.tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%peer, "TLS handshake: {error}");
            return;
        }
    };
    connection.extend(shared.doorman.settings.limits.unused);
    let tls = stream.get_ref().1;
    let tls13 = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let h2 = tls.alpn_protocol() == Some(b"h2");
    let caller = Caller { peer, tls13, connection: Arc::clone(connection) };
    let service = service_fn(move |request| {
        let (shared, caller) = (Arc::clone(&shared), caller.clone());
        async move { Ok::<_, Infallible>(dispatch(request, caller, shared).await) }
    });
    let io = TokioIo::new(stream);
    let ended = if h2 {
        http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(STREAMS)
            .auto_date_header(false)
            .serve_connection(io, service)
            .await
    } else {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(MAX_HEADERS as usize)
            .serve_connection(io, service)
            .await
    };
    if let Err(error) = ended {
        debug!(%peer, "connection ended: {error}");
    }
}

async fn dispatch<V: Vault>(
    request: Request<Incoming>,
    caller: Caller,
    shared: Arc<Shared<V>>,
) -> Response<Body> {
    if !caller.connection.may_ask() {
        return plain(StatusCode::TOO_MANY_REQUESTS);
    }
    let path = request.uri().path();
    if path == SESSION_PATH && request.version() == Version::HTTP_2 {
        if !caller.tls13 {
            warn!(peer = %caller.peer, "session refused: TLS 1.3 is needed");
            return Status::failed_precondition("a session needs TLS 1.3").into_http();
        }
        let method = SessionMethod {
            doorman: Arc::clone(&shared.doorman),
            connections: Arc::clone(&shared.connections),
            connection: caller.connection,
            peer: caller.peer,
        };
        return method.run(request).await;
    }
    match path.strip_prefix(DOWNLOAD_PATH).and_then(|arch| shared.artifacts.by_name(arch)) {
        Some(artifact) if request.method() == Method::GET || request.method() == Method::HEAD => {
            caller.connection.extend(DOWNLOAD);
            let mut response = Response::new(Body::new(PlainBody::from(artifact.bytes.clone())));
            let kind = header::HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Some(_) => plain(StatusCode::METHOD_NOT_ALLOWED),
        None => plain(StatusCode::NOT_FOUND),
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
