//! Whatever else may come in at an open port: refused, and nothing else is disturbed.

use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::*;

/// A session that stands, and is to stand when the test is over.
async fn bystander(world: &World) -> Peer {
    let peer = world.call(first()).await.unwrap();
    peer.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;
    peer
}

async fn stands(world: &World, bystander: &Peer) {
    bystander.report(busy("proof")).await;
    world.until(ME, |session| session.connected && session.gate != engine::ports::Gate::Idle).await;
}

async fn refused(world: &World, hello: v1::Hello) -> Code {
    world.call(hello).await.map(|_| ()).unwrap_err().code()
}

#[tokio::test]
async fn whoever_is_not_who_it_says_is_refused() {
    let world = World::new();
    let bystander = bystander(&world).await;
    let second = v1::Hello { instance_id: "i-0002".into(), ..first() };
    let secret = |secret: &[u8]| Some(Credential::LaunchSecret(secret.to_vec()));
    let token = |token: &[u8]| Some(Credential::InstanceToken(token.to_vec()));
    let cases = [
        ("wrong secret", v1::Hello { credential: secret(b"guess"), ..second.clone() }, Code::Unauthenticated),
        ("empty secret", v1::Hello { credential: secret(b""), ..second.clone() }, Code::Unauthenticated),
        ("unknown launch", v1::Hello { intent_id: "in-9".into(), ..second.clone() }, Code::Unauthenticated),
        ("foreign instance", v1::Hello { instance_id: "i-0bad".into(), ..first() }, Code::PermissionDenied),
        ("other launch", v1::Hello { instance_id: "i-0003".into(), ..first() }, Code::PermissionDenied),
        (
            "another's token",
            v1::Hello { credential: token(&bystander.welcome.instance_token), ..second.clone() },
            Code::Unauthenticated,
        ),
        ("no token yet", v1::Hello { credential: token(&[0; 32]), ..second.clone() }, Code::Unauthenticated),
        ("launch secret once more", first(), Code::Unauthenticated),
        (
            "launch secret from another boot",
            v1::Hello { boot_id: "boot-2".into(), ..first() },
            Code::Unauthenticated,
        ),
        ("other version", v1::Hello { protocol_version: 2, ..second.clone() }, Code::FailedPrecondition),
        ("no credential", v1::Hello { credential: None, ..second.clone() }, Code::InvalidArgument),
        ("odd id", v1::Hello { instance_id: "i-\n[fake log]".into(), ..first() }, Code::InvalidArgument),
        ("no boot id", v1::Hello { boot_id: String::new(), ..second.clone() }, Code::InvalidArgument),
    ];
    for (what, hello, code) in cases {
        assert_eq!(refused(&world, hello).await, code, "{what}");
    }
    world.call(second).await.unwrap();
    stands(&world, &bystander).await;
}

#[tokio::test]
async fn a_session_over_tls_1_2_is_refused_and_a_download_is_not() {
    let world = World::new();
    let refused = call(world.address(), &TLS12, first()).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "a session needs TLS 1.3"));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidecar");
    let download = |path: &str, pin: &str, more: &[&str]| {
        let url = format!("https://{}{path}", world.address());
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--fail",
            "--insecure",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--pinnedpubkey",
            pin,
        ]);
        curl.args(more).arg("-o").arg(&file).arg(url);
        async move { tokio::task::spawn_blocking(move || curl.status().unwrap().success()).await.unwrap() }
    };
    let pin = world.gateway.pin().to_owned();
    for more in [["--tls-max", "1.2", "--http1.1"], ["--tlsv1.3", "--http2", "--compressed"]] {
        assert!(download("/sidecar/x86_64", &pin, &more).await, "{more:?}");
        assert_eq!(std::fs::read(&file).unwrap(), vec![7_u8; 300_000]);
    }
    let other = Identity::generate().unwrap();
    assert!(!download("/sidecar/x86_64", other.pin(), &[]).await, "another key");
    for path in ["/", "/sidecar/", "/sidecar/aarch64", "/sidecar/../x86_64", "/fleet.v1.Sidecar/Session"] {
        assert!(!download(path, &pin, &["--http1.1", "--path-as-is"]).await, "{path}");
    }
}

#[tokio::test]
async fn an_oversized_or_senseless_message_ends_its_own_session_alone() {
    let world = World::new();
    let bystander = bystander(&world).await;
    let second = v1::Hello { instance_id: "i-0002".into(), ..first() };

    let mut large = world.call(second.clone()).await.unwrap();
    large.report(v1::Report { boot_phase: "x".repeat(70_000), ..idle(0) }).await;
    assert!(matches!(large.hear().await, Ok(None) | Err(_)));

    let mut twice = world.call(second.clone()).await.unwrap();
    twice.say(from_sidecar::Body::Hello(second.clone())).await;
    assert_eq!(twice.hear().await.unwrap_err().code(), Code::InvalidArgument);

    let mut senseless = world.call(second).await.unwrap();
    senseless.report(v1::Report { standing: 77, ..idle(0) }).await;
    assert_eq!(senseless.hear().await.unwrap_err().code(), Code::InvalidArgument);
    stands(&world, &bystander).await;
}

#[tokio::test]
async fn who_does_not_begin_with_a_hello_has_no_session() {
    let world = World::with(Limits { hello: Duration::from_millis(50), ..quick() });
    let report = from_sidecar::Body::Report(idle(0));
    let early = say_first(world.address(), &TLS13, report).await.map(|_| ()).unwrap_err();
    assert_eq!(early.code(), Code::InvalidArgument);

    let (_to, receiver) = mpsc::channel::<v1::FromSidecar>(1);
    let mut client = client(world.address(), &TLS13).await;
    let silent = client.session(ReceiverStream::new(receiver)).await.map(|_| ()).unwrap_err();
    assert_eq!(silent.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn garbage_and_half_open_connections_starve_nobody() {
    let world = World::with(Limits { pending: 8, handshake: Duration::from_millis(300), ..quick() });
    let bystander = bystander(&world).await;
    let mut open = Vec::new();
    for kind in 0..60 {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        match kind % 4 {
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
            2 => stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap(),
            _ => stream.write_all(&[0xff; 2_000]).await.unwrap(),
        }
        open.push(stream);
    }
    world.call(v1::Hello { instance_id: "i-0002".into(), ..first() }).await.unwrap();
    for mut stream in open {
        let mut rest = Vec::new();
        // Closed or reset, either is well: what counts is that it ends.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it was left open");
    }
    stands(&world, &bystander).await;
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed() {
    let world = World::with(Limits { unused: Duration::from_millis(100), ..quick() });
    let mut stream = dial(world.address(), &TLS13).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it was left open");
}

#[tokio::test]
async fn there_are_no_more_sessions_than_the_limit() {
    let world = World::with(Limits { sessions: 1, ..quick() });
    let peer = bystander(&world).await;
    let second = v1::Hello { instance_id: "i-0002".into(), ..first() };
    assert_eq!(refused(&world, second.clone()).await, Code::ResourceExhausted);
    let token = peer.welcome.instance_token.clone();
    let _again = world.call(with_token(&token)).await.expect("a reconnect takes no further place");
}
