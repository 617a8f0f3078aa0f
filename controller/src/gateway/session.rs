//! The one gRPC method: reads Hello, has it judged, and hands over to the stream.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use proto::v1::{self, from_sidecar::Body as Said};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::{ProstDecoder, ProstEncoder};
use tracing::warn;

use super::attach::Doorman;
use super::connections::{Connection, Connections};
use super::stream::{InUse, SessionStream};
use super::vault::Vault;

/// A sidecar's message, at most.
const MAX_MESSAGE: usize = 64 * 1024;
/// Messages are small, and a buffer of each direction is kept by every session: 1 KiB each, which grows if needed.
const BUFFER: usize = 1024;

/// A call of `Sidecar.Session`.
pub(super) struct SessionMethod<V> {
    pub(super) doorman: Arc<Doorman<V>>,
    pub(super) connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: SocketAddr,
}

impl<V: Vault> SessionMethod<V> {
    /// Answers the call. Bypasses the generated server for the sake of smaller buffers.
    pub(super) async fn run(self, request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        Grpc::new(SmallCodec)
            .apply_max_message_size_config(Some(MAX_MESSAGE), None)
            .streaming(self, request)
            .await
    }
}

impl<V: Vault> StreamingService<v1::FromSidecar> for SessionMethod<V> {
    type Response = v1::ToSidecar;
    type ResponseStream = SessionStream<V>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SessionStream<V>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<v1::FromSidecar>>) -> Self::Future {
        let doorman = Arc::clone(&self.doorman);
        let connections = Arc::clone(&self.connections);
        let connection = Arc::clone(&self.connection);
        let peer = self.peer;
        Box::pin(async move {
            let mut inbound = request.into_inner();
            let limits = &doorman.settings.limits;
            let first = timeout(limits.hello, inbound.message()).await;
            let first = first.map_err(|_| Status::deadline_exceeded("no hello"))??;
            let Some(v1::FromSidecar { body: Some(Said::Hello(hello)) }) = first else {
                return Err(Status::invalid_argument("the first message must be a hello"));
            };
            connection.extend(limits.unused + limits.admission);
            let instance = hello.instance_id.clone();
            let attached = doorman.attach(hello).await.map_err(|refusal| {
                warn!(%peer, ?instance, "session refused: {refusal}");
                refusal.status()
            })?;
            let in_use = InUse::of(connections, connection);
            Ok(Response::new(SessionStream::new(inbound, attached, Arc::clone(&doorman.vault), in_use)))
        })
    }
}

/// Prost with buffers of a size that fits 10,000 sessions.
struct SmallCodec;

impl Codec for SmallCodec {
    type Encode = v1::ToSidecar;
    type Decode = v1::FromSidecar;
    type Encoder = ProstEncoder<v1::ToSidecar>;
    type Decoder = ProstDecoder<v1::FromSidecar>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, MAX_MESSAGE)
}
