//! Over real sockets: the generated client, real TLS, and a clock that the tests turn.

mod hostile;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::ports::{Admission, Clock, Session, Sessions};
use hyper_util::rt::TokioIo;
use planner::{InstanceId, IntentId, Time};
use proto::v1::{self, from_sidecar, hello::Credential, to_sidecar};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"the launch call's secret";
const INTENT: &str = "in-7";
const ME: &str = "i-0001";

#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

struct OneScript;

impl BootScripts for OneScript {
    fn script(&self, instance: &InstanceId, intent: &IntentId) -> Option<v1::BootScript> {
        let script = format!("echo {instance} {intent}");
        // More than the windows of HTTP/2 hold at once.
        let large = v1::File { name: "large".into(), content: vec![b'x'; 1 << 20], mode: 0o600 };
        Some(v1::BootScript { script, files: vec![large], worker_ids: vec![format!("p:r:t:{instance}")] })
    }
}

struct World {
    gateway: Gateway,
    vault: Arc<MemoryVault>,
    identity: Identity,
    clock: TestClock,
    limits: Limits,
}

impl World {
    /// A gateway that knows one launch of two instances.
    fn new() -> Self {
        Self::with(Limits { admission: Duration::from_millis(100), ..quick() })
    }

    fn with(limits: Limits) -> Self {
        let vault = Arc::new(MemoryVault::default());
        vault.put_launch_secret(INTENT.into(), SECRET.to_vec());
        vault.put_launch_secret("in-8".into(), b"another launch's".to_vec());
        let identity = Identity::generate().unwrap();
        let clock = TestClock(Arc::new(AtomicU64::new(1_000_000)));
        let gateway = start(&identity, &vault, &clock, limits);
        let world = Self { gateway, vault, identity, clock, limits };
        world.admit(&[(ME, INTENT), ("i-0002", INTENT), ("i-0003", "in-8")]);
        world
    }

    /// The controller ends and starts again, with what it has kept.
    async fn restart(self) -> Self {
        let Self { gateway, vault, identity, clock, limits } = self;
        gateway.stop().await;
        let gateway = start(&identity, &vault, &clock, limits);
        let world = Self { gateway, vault, identity, clock, limits };
        world.admit(&[(ME, INTENT)]);
        world
    }

    fn admit(&self, known: &[(&str, &str)]) {
        let instances =
            known.iter().map(|(id, intent)| (InstanceId::from(*id), Some(IntentId::from(*intent)))).collect();
        self.gateway.sessions().admit(Admission { instances });
    }

    fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    async fn call(&self, hello: v1::Hello) -> Result<Peer, Status> {
        call(self.address(), &TLS13, hello).await
    }

    fn session(&self, id: &str) -> Option<Session> {
        self.gateway.sessions().sessions().remove(&InstanceId::from(id))
    }

    /// Waits for news until the session is as it should be.
    async fn until(&self, id: &str, wanted: impl Fn(&Session) -> bool) -> Session {
        let sessions = self.gateway.sessions();
        let wait = async {
            loop {
                if let Some(session) = self.session(id).filter(|session| wanted(session)) {
                    return session;
                }
                sessions.changed().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the session never came to be as it should")
    }
}

fn quick() -> Limits {
    Limits { sweep: Duration::from_millis(20), ..Limits::default() }
}

fn start(identity: &Identity, vault: &Arc<MemoryVault>, clock: &TestClock, limits: Limits) -> Gateway {
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        epoch: 5,
        silent_idle_limit: watch::channel(Duration::from_secs(900)).1,
        limits,
    };
    let mut artifacts = Artifacts::default();
    artifacts.insert(Arch::X86_64, vec![7_u8; 300_000]);
    let vault = Arc::clone(vault);
    Gateway::bind(settings, identity, vault, Arc::new(OneScript), artifacts, clock.clone()).unwrap()
}

/// A sidecar's end of a session.
struct Peer {
    to: mpsc::Sender<v1::FromSidecar>,
    from: Streaming<v1::ToSidecar>,
    welcome: v1::Welcome,
}

impl Peer {
    async fn say(&self, body: from_sidecar::Body) {
        self.to.send(v1::FromSidecar { body: Some(body) }).await.unwrap();
    }

    async fn report(&self, report: v1::Report) {
        self.say(from_sidecar::Body::Report(report)).await;
    }

    async fn hear(&mut self) -> Result<Option<to_sidecar::Body>, Status> {
        let message = timeout(PATIENCE, self.from.message()).await.expect("nothing came")?;
        Ok(message.and_then(|message| message.body))
    }
}

async fn call(
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
    hello: v1::Hello,
) -> Result<Peer, Status> {
    say_first(address, version, from_sidecar::Body::Hello(hello)).await
}

async fn say_first(
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
    first: from_sidecar::Body,
) -> Result<Peer, Status> {
    let (to, receiver) = mpsc::channel(64);
    to.send(v1::FromSidecar { body: Some(first) }).await.unwrap();
    let mut client = client(address, version).await;
    let mut from = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    match from.message().await?.and_then(|message| message.body) {
        Some(to_sidecar::Body::Welcome(welcome)) => Ok(Peer { to, from, welcome }),
        other => panic!("no welcome but {other:?}"),
    }
}

async fn client(
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
) -> v1::sidecar_client::SidecarClient<tonic::transport::Channel> {
    let connector =
        tower::service_fn(
            move |_| async move { Ok::<_, io::Error>(TokioIo::new(dial(address, version).await?)) },
        );
    let endpoint = Endpoint::from_static("http://controller");
    let channel = timeout(PATIENCE, endpoint.connect_with_connector(connector)).await.unwrap().unwrap();
    v1::sidecar_client::SidecarClient::new(channel)
}

async fn dial(
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Who the server is does not matter here: the pin is the client's business.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn hello(credential: Credential) -> v1::Hello {
    v1::Hello {
        protocol_version: 1,
        sidecar_version: "0.1.0".into(),
        instance_id: ME.into(),
        boot_id: "boot-1".into(),
        credential: Some(credential),
        intent_id: INTENT.into(),
        wants_boot_script: false,
    }
}

fn first() -> v1::Hello {
    v1::Hello { wants_boot_script: true, ..hello(Credential::LaunchSecret(SECRET.to_vec())) }
}

fn with_token(token: &[u8]) -> v1::Hello {
    hello(Credential::InstanceToken(token.to_vec()))
}

fn idle(for_ms: u64) -> v1::Report {
    agent(v1::GateState::Idle, for_ms, "")
}

fn busy(task: &str) -> v1::Report {
    agent(v1::GateState::Busy, 0, task)
}

fn agent(gate: v1::GateState, for_ms: u64, task: &str) -> v1::Report {
    v1::Report {
        boot_phase: "ready".into(),
        agents: vec![v1::Agent {
            gate: gate.into(),
            task_id: task.into(),
            for_ms,
            alive: true,
            ..Default::default()
        }],
        standing: v1::Standing::Open.into(),
        ..Default::default()
    }
}
