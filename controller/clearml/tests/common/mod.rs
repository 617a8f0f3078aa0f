//! A server on loopback that answers as a real one was captured to, or as badly as a test wants it to.

// Each test binary uses its own part of it.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clearml::{Address, Client, Credentials, Options, Timing};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub endpoint: String,
    pub authorization: String,
    pub content_type: String,
    pub body: String,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What a test's server answers.
pub enum Reply {
    /// In the server's envelope.
    Data(Value),
    /// Code, subcode, message, in the envelope.
    Fault(u16, u32, &'static str),
    /// Status, content type, body.
    Raw(u16, &'static str, String),
    /// Never.
    Silence,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// `handler` answers everything but `auth.login`, which succeeds.
    pub async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let logins = Mutex::new(0);
        Self::bare(move |seen| {
            if seen.endpoint == "auth.login" {
                let mut logins = logins.lock().unwrap();
                *logins += 1;
                return Reply::Data(json!({"token": token(*logins, 2_592_000)}));
            }
            handler(seen)
        })
        .await
    }

    /// `handler` answers everything.
    pub async fn bare(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { seen: Arc::default(), handler: Arc::new(handler) };
        let seen = shared.seen.clone();
        let app = Router::new().fallback(answer).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, task }
    }

    pub fn client(&self) -> Client {
        self.client_with(keys())
    }

    /// One that takes silence for a failure soon.
    pub fn impatient_client(&self, overall: Duration) -> Client {
        client_within(&format!("http://{}", self.address), keys(), Duration::from_millis(250), overall)
    }

    pub fn client_with(&self, credentials: Credentials) -> Client {
        client_at(&format!("http://{}", self.address), credentials)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often an endpoint was called.
    pub fn calls(&self, endpoint: &str) -> usize {
        self.seen().iter().filter(|seen| seen.endpoint == endpoint).count()
    }

    /// The last request to an endpoint.
    pub fn last(&self, endpoint: &str) -> Seen {
        self.seen().into_iter().rfind(|seen| seen.endpoint == endpoint).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A JWT as the real server makes it, of a certain life in seconds; the number makes it one of its own.
pub fn token(number: u32, life: u64) -> String {
    let claims = json!({"iat": 1_795_459_885, "exp": 1_795_459_885 + life, "session_id": number,
        "identity": {"company": "d1bd92a3", "user": "__real_user__", "user_name": "real_user"},
        "auth_type": "Bearer", "api_version": "2.34", "server_version": "2.3.0", "feature_set": "basic"});
    format!("e30.{}.signature{number}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub fn keys() -> Credentials {
    Credentials::Keys { access: "ACCESS".into(), secret: "SECRET".into() }
}

/// A client that repeats quickly, but whose limits no busy machine comes near to.
pub fn client_at(address: &str, credentials: Credentials) -> Client {
    client_within(address, credentials, Duration::from_secs(10), Duration::from_secs(30))
}

/// A client with limits of its own, for one attempt and overall.
pub fn client_within(
    address: &str,
    credentials: Credentials,
    attempt: Duration,
    overall: Duration,
) -> Client {
    let options = Options::new(Address::parse(address).unwrap(), credentials);
    let (pause, longest_pause) = (Duration::from_millis(5), Duration::from_millis(50));
    Client::new(Options { timing: Timing { attempt, overall, pause, longest_pause }, ..options }).unwrap()
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let headers = request.headers().clone();
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header("accept-encoding"), "identity");
    let (authorization, content_type) = (header("authorization"), header("content-type"));
    let endpoint = request.uri().path().trim_start_matches('/').to_owned();
    let method = request.method().to_string();
    let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let seen = Seen { method, endpoint, authorization, content_type, body };
    shared.seen.lock().unwrap().push(seen.clone());
    let reply = (shared.handler)(&seen);
    let (status, content_type, body) = match reply {
        Reply::Data(data) => (200, "application/json", envelope(&seen.endpoint, 200, 0, "OK", &data)),
        Reply::Fault(code, subcode, message) => {
            (code, "application/json", envelope(&seen.endpoint, code, subcode, message, &json!({})))
        }
        Reply::Raw(status, content_type, body) => (status, content_type, body),
        Reply::Silence => std::future::pending().await,
    };
    // As the stock server does, which is Flask.
    let builder = Response::builder().header("connection", "close");
    builder.status(status).header("content-type", content_type).body(Body::from(body)).unwrap()
}

pub fn envelope(endpoint: &str, code: u16, subcode: u32, message: &str, data: &Value) -> String {
    json!({"meta": {"id": "736abae7e96d4481acbf03801f48042d", "trx": "736abae7e96d4481acbf03801f48042d",
        "endpoint": {"name": endpoint, "requested_version": "2.34", "actual_version": "1.0"},
        "result_code": code, "result_subcode": subcode, "result_msg": message,
        "error_stack": null, "error_data": {}}, "data": data})
    .to_string()
}
