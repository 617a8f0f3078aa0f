//! A controller that the test plays itself: TLS, one stream per session, no opinion.

use std::net::SocketAddr;
use std::pin::Pin as Boxed;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use proto::v1::sidecar_server::{Sidecar, SidecarServer};
use proto::v1::{FromSidecar, Hello, ToSidecar, from_sidecar};
use rustls::pki_types::PrivatePkcs8KeyDer;
use sidecar::link::{Pin, Target};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A session as the controller sees it. Dropping it ends it.
pub(crate) struct Session {
    pub(crate) hello: Hello,
    pub(crate) incoming: Streaming<FromSidecar>,
    pub(crate) outgoing: mpsc::Sender<Result<ToSidecar, Status>>,
}

impl Session {
    pub(crate) async fn say(&self, body: proto::v1::to_sidecar::Body) {
        self.outgoing.send(Ok(ToSidecar { body: Some(body) })).await.unwrap();
    }

    pub(crate) async fn refuse(self, status: Status) {
        self.outgoing.send(Err(status)).await.unwrap();
    }

    /// The first message that the filter makes something of.
    pub(crate) async fn until<T>(&mut self, mut filter: impl FnMut(from_sidecar::Body) -> Option<T>) -> T {
        let found = async {
            loop {
                let message = self.incoming.message().await.unwrap().expect("the session ended");
                if let Some(found) = message.body.and_then(&mut filter) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.expect("it never came")
    }
}

/// A listening controller.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) pin: String,
    key: Arc<rcgen::KeyPair>,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::listen(
            "127.0.0.1:0".parse().unwrap(),
            Arc::new(rcgen::KeyPair::generate().unwrap()),
            &[&rustls::version::TLS13],
        )
        .await
    }

    /// One that speaks nothing but TLS 1.2.
    pub(crate) async fn start_old() -> Self {
        Self::listen(
            "127.0.0.1:0".parse().unwrap(),
            Arc::new(rcgen::KeyPair::generate().unwrap()),
            &[&rustls::version::TLS12],
        )
        .await
    }

    /// Ends all sessions, and listens at the same address with the same key.
    pub(crate) async fn restart(self) -> Self {
        self.server.abort();
        Self::listen(self.address, Arc::clone(&self.key), &[&rustls::version::TLS13]).await
    }

    async fn listen(
        address: SocketAddr,
        key: Arc<rcgen::KeyPair>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&*key).unwrap();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private.into())
                .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let digest = ring::digest::digest(
            &ring::digest::SHA256,
            &rcgen::PublicKeyData::subject_public_key_info(&*key),
        );
        let pin = format!("{:?}", Pin::new(digest.as_ref().try_into().unwrap()));
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let (sender, sessions) = mpsc::channel(16);
        let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), sender));
        Self { address, pin, key, sessions, server }
    }

    pub(crate) fn target(&self) -> Target {
        Target::parse(&format!("https://{}", self.address), Pin::parse(&self.pin).unwrap()).unwrap()
    }

    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(LIMIT, self.sessions.recv()).await.expect("nobody came").unwrap()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Its old connections may still hold the port for a moment.
async fn bind(address: SocketAddr) -> TcpListener {
    let attempts = async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, attempts).await.unwrap()
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, sender: mpsc::Sender<Session>) {
    // Ends with the task: aborting it ends every connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), SidecarServer::new(Service { sender: sender.clone() }));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .await;
        });
    }
}

struct Service {
    sender: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl Sidecar for Service {
    type SessionStream = Boxed<Box<dyn Stream<Item = Result<ToSidecar, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromSidecar>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(FromSidecar { body: Some(from_sidecar::Body::Hello(hello)) }) = incoming.message().await?
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (outgoing, messages) = mpsc::channel(16);
        let session = Session { hello, incoming, outgoing };
        self.sender.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        let messages: Self::SessionStream = Box::pin(ReceiverStream::new(messages).map(|message| message));
        Ok(Response::new(messages))
    }
}
