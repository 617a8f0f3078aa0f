//! What can go wrong on the way, and what is done about it.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clearml::{Address, BuildError, Client, Error, Options, StatusNote, Trust};
use common::{Reply, Server, client_at, client_within, envelope, keys, token};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(800);

/// Fails with this as often as told, then answers.
fn after(
    failures: usize,
    failure: impl Fn() -> Reply + Send + Sync,
) -> impl Fn(&common::Seen) -> Reply + Send + Sync {
    let calls = AtomicUsize::new(0);
    move |_| match calls.fetch_add(1, Ordering::Relaxed) < failures {
        true => failure(),
        false => Reply::Data(json!({"queues": [{"id": "q1"}], "queued": 1, "updated": 1})),
    }
}

#[tokio::test]
async fn a_read_is_repeated_until_the_server_has_recovered() {
    let html = || Reply::Raw(502, "text/html", "<html>Bad Gateway</html>".to_owned());
    for failure in [
        html,
        || Reply::Fault(500, 0, "out of order"),
        || Reply::Silence,
        || Reply::Raw(429, "", String::new()),
    ] {
        let server = Server::start(after(2, failure)).await;
        assert_eq!(server.impatient_client(LONG).queues().await.unwrap()[0].id, "q1");
        assert_eq!(server.calls("queues.get_all"), 3);
    }
}

#[tokio::test]
async fn what_must_not_happen_twice_is_not_sent_twice() {
    for failure in [
        || Reply::Fault(500, 0, "out of order"),
        || Reply::Silence,
        || Reply::Raw(502, "text/html", String::new()),
    ] {
        let server = Server::start(after(9, failure)).await;
        let client = server.impatient_client(LONG);
        client.login().await.unwrap();
        let note = StatusNote::default();
        let errors = [
            client.enqueue_task("t", "q", &note).await.unwrap_err(),
            client.next_task("q").await.unwrap_err(),
            client.create_queue("name").await.unwrap_err(),
        ];
        assert!(errors.iter().all(Error::is_transient), "{errors:?}");
        assert_eq!(server.seen().len(), 4, "with the login");
    }
}

#[tokio::test]
async fn what_surely_never_arrived_may_be_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client_at(&format!("http://{address}"), keys());
    let call = tokio::spawn(async move { client.enqueue_task("t", "q", &StatusNote::default()).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    serve(listener, |path| match path {
        "/auth.login" => envelope("auth.login", 200, 0, "OK", &json!({"token": token(1, 3600)})),
        _ => envelope("tasks.enqueue", 200, 0, "OK", &json!({"queued": 1})),
    });
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn patience_has_an_end_and_tells_what_it_waited_for() {
    let server = Server::start(|_| Reply::Fault(503, 0, "in maintenance")).await;
    let error = server.impatient_client(SHORT).queues().await.unwrap_err();
    assert_eq!(error.to_string(), "clearml queues.get_all: failed (503/0): in maintenance");
    let server = Server::start(|_| Reply::Silence).await;
    let error = server.impatient_client(SHORT).queues().await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("clearml queues.get_all: no answer from http://{}", server.address)),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_names_endpoint_code_and_subcode_and_is_final() {
    let server = Server::start(|_| Reply::Fault(400, 101, "Invalid task id: ids=(nope)")).await;
    let error = server.client().task("nope").await.unwrap_err();
    assert!(error.is_refusal(clearml::subcode::NO_SUCH_TASK));
    assert_eq!(error.to_string(), "clearml tasks.get_by_id: refused (400/101): Invalid task id: ids=(nope)");
    assert_eq!(server.calls("tasks.get_by_id"), 1);
}

#[tokio::test]
async fn an_address_of_something_else_is_recognized() {
    for (reply, told) in [
        (
            ("200", "text/html", "<html>ClearML</html>"),
            "is the address that of the API server, and not of the web server?",
        ),
        (
            ("404", "text/html", "<html>nothing here</html>"),
            "answered 404 Not Found with 25 bytes of text/html",
        ),
        (("302", "text/html", ""), "a redirect to https://elsewhere/: correct the server's address"),
        (("200", "application/json", "{\"meta\": {\"result_code\": 200"), "not with ClearML's JSON"),
        (("200", "application/json", "[]"), "not with ClearML's JSON"),
        (
            ("200", "application/json", "{\"meta\":{\"result_code\":200},\"data\":{\"token\":5}}"),
            "a field is missing",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client_at(&format!("http://{}", listener.local_addr().unwrap()), keys());
        let (status, kind, body) = reply;
        raw(listener, move |_| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nlocation: https://elsewhere/\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        });
        let error = client.login().await.unwrap_err();
        assert!(matches!(error, Error::Malformed { endpoint: "auth.login", .. }), "{error:?}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn half_a_body_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let client = client_within(&address, keys(), LONG, SHORT);
    raw(listener, |_| {
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"meta\": {"
            .to_owned()
    });
    let error = client.login().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("was cut off"), "{error}");
}

#[tokio::test]
async fn compression_that_was_not_asked_for_is_told_apart_from_nonsense() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_at(&format!("http://{}", listener.local_addr().unwrap()), keys());
    raw(listener, |_| "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx".to_owned());
    let error = client.login().await.unwrap_err().to_string();
    assert!(error.contains("content-encoding \"gzip\""), "{error}");
}

#[tokio::test]
async fn a_path_prefix_and_a_connection_kept_alive_work() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_at(&format!("http://{}/api/", listener.local_addr().unwrap()), keys());
    serve(listener, |path| match path {
        "/api/auth.login" => envelope("auth.login", 200, 0, "OK", &json!({"token": token(1, 3600)})),
        "/api/queues.get_all" => envelope("queues.get_all", 200, 0, "OK", &json!({"queues": null})),
        _ => envelope("", 404, 0, "no such endpoint", &json!({})),
    });
    for _ in 0..3 {
        assert_eq!(client.queues().await.unwrap(), []);
    }
}

#[tokio::test]
async fn https_is_checked_against_the_roots_that_are_trusted() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let body = envelope("auth.login", 200, 0, "OK", &json!({"token": token(1, 3600)}));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let address = Address::parse(&format!("https://localhost:{port}")).unwrap();
    let options = Options::new(address, keys());
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (trust, accepted) in [
        (Trust::Roots(certified.cert.pem().into_bytes()), true),
        (Trust::Anybody, true),
        (Trust::Roots(other.cert.pem().into_bytes()), false),
    ] {
        let mut options = Options { trust, ..options.clone() };
        if !accepted {
            options.timing.overall = SHORT;
        }
        let client = Client::new(options).unwrap();
        let outcome = client.login().await;
        assert_eq!(outcome.is_ok(), accepted, "{outcome:?}");
    }
    let trust = Trust::Roots(b"no certificates here".to_vec());
    let error = Client::new(Options { trust, ..options }).unwrap_err();
    assert!(matches!(error, BuildError::Tls(_)), "{error}");
}

/// Answers each connection once, and closes it.
fn raw(listener: TcpListener, answer: impl Fn(&str) -> String + Send + 'static) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(path) = request(&mut stream).await else { continue };
            let _ = stream.write_all(answer(&path).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
}

/// Answers every request of the first connection; there is no second.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> String + Send + 'static) {
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(path) = request(&mut stream).await {
            let body = answer(&path);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all((head + &body).as_bytes()).await.is_err() {
                return;
            }
        }
    });
}

/// A small request's path, once it came whole.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return head.split(' ').nth(1).map(str::to_owned);
        }
    }
}
