//! The ClearML half of the sandbox, over HTTP as its clients see it and through its back door.

#![allow(clippy::unwrap_used)]

mod faults;
mod life;
mod wire;

use reqwest::{Client, Response};
use sandbox::clearml::{Options, Server};
use serde_json::Value;

/// A server, and a client with its keys.
struct Fixture {
    server: Server,
    http: Client,
}

impl Fixture {
    async fn new() -> Self {
        // A second test of this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::start(Options::default()).await.unwrap();
        let http = Client::builder().no_proxy().build().unwrap();
        Self { server, http }
    }

    async fn send(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        let url = format!("{}/{path}", self.server.api_url());
        let request =
            self.http.post(url).basic_auth(self.server.access_key(), Some(self.server.secret_key()));
        request.json(body).send().await
    }

    /// The envelope's code, subcode and data; the HTTP status must agree.
    async fn call(&self, path: &str, body: Value) -> (u64, u64, Value) {
        envelope(self.send(path, &body).await.unwrap()).await
    }

    async fn data(&self, path: &str, body: Value) -> Value {
        let (code, subcode, data) = self.call(path, body).await;
        assert_eq!((code, subcode), (200, 0), "{path}");
        data
    }
}

async fn envelope(response: Response) -> (u64, u64, Value) {
    let status = u64::from(response.status().as_u16());
    let mut envelope: Value = response.json().await.unwrap();
    let meta = &envelope["meta"];
    assert_eq!(meta["result_code"].as_u64(), Some(status));
    (status, meta["result_subcode"].as_u64().unwrap(), envelope["data"].take())
}
