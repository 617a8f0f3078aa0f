//! The calls of an agent to a ClearML server on plain HTTP, one connection each: a whole HTTP stack would be most of
//! such a small program.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(15);
const LARGEST_REPLY: u64 = 16 * 1024 * 1024;

/// A call that did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No answer: it may have been done.
    #[error("{endpoint}: no answer from the server")]
    Lost { endpoint: String, source: std::io::Error },
    /// The server said no.
    #[error("{endpoint}: refused with {code}/{subcode}: {message}")]
    Refused { endpoint: String, code: u64, subcode: u64, message: String },
    /// Not an address for this.
    #[error("the api server's address is not http://HOST:PORT")]
    Address,
}

/// A server and a user's keys.
#[derive(Debug)]
pub(super) struct Api {
    host: String,
    path: String,
    keys: String,
    token: Option<String>,
}

impl Api {
    pub(super) fn new(server: &str, access_key: &str, secret_key: &str) -> Result<Self, ApiError> {
        let rest = server.trim_end_matches('/').strip_prefix("http://").ok_or(ApiError::Address)?;
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) => (host, format!("/{path}")),
            None => (rest, String::new()),
        };
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let keys = STANDARD.encode(format!("{access_key}:{secret_key}"));
        Ok(Self { host, path, keys, token: None })
    }

    /// One call, with a fresh token if the old one is not taken any more.
    pub(super) async fn call(&mut self, endpoint: &str, body: &Value) -> Result<Value, ApiError> {
        self.send(endpoint, "application/json", &body.to_string()).await
    }

    /// A console line of a task.
    pub(super) async fn log(&mut self, task: &str, worker: &str, text: &str) -> Result<Value, ApiError> {
        let timestamp = jiff::Timestamp::now().as_millisecond();
        let event = json!({
            "type": "log", "task": task, "worker": worker, "level": "info", "timestamp": timestamp, "msg": text,
        });
        self.send("events.add_batch", "application/json-lines", &format!("{event}\n")).await
    }

    async fn send(&mut self, endpoint: &str, kind: &str, body: &str) -> Result<Value, ApiError> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.login().await?,
        };
        match self.exchange(endpoint, &format!("Bearer {token}"), kind, body).await {
            Err(ApiError::Refused { code: 401, .. }) => {
                let token = self.login().await?;
                self.exchange(endpoint, &format!("Bearer {token}"), kind, body).await
            }
            other => other,
        }
    }

    async fn login(&mut self) -> Result<String, ApiError> {
        let basic = format!("Basic {}", self.keys);
        let data = self.exchange("auth.login", &basic, "application/json", "{}").await?;
        let token = data["token"].as_str().unwrap_or_default().to_owned();
        self.token = Some(token.clone());
        Ok(token)
    }

    async fn exchange(&self, endpoint: &str, auth: &str, kind: &str, body: &str) -> Result<Value, ApiError> {
        let lost = |source| ApiError::Lost { endpoint: endpoint.to_owned(), source };
        let path = &self.path;
        // HTTP/1.0: the reply is whole and ends with the connection.
        let request = format!(
            "POST {path}/{endpoint} HTTP/1.0\r\nHost: {}\r\nAuthorization: {auth}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let reply = tokio::time::timeout(LIMIT, round_trip(&self.host, &request)).await;
        let reply = reply.map_err(|_| lost(std::io::ErrorKind::TimedOut.into()))?.map_err(lost)?;
        let text = String::from_utf8_lossy(&reply);
        let json = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
        let mut json = json.ok_or_else(|| lost(std::io::ErrorKind::InvalidData.into()))?;
        let meta = &json["meta"];
        let code = meta["result_code"].as_u64().unwrap_or_default();
        if code != 200 {
            return Err(ApiError::Refused {
                endpoint: endpoint.to_owned(),
                code,
                subcode: meta["result_subcode"].as_u64().unwrap_or_default(),
                message: meta["result_msg"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(json["data"].take())
    }
}

async fn round_trip(host: &str, request: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    stream.take(LARGEST_REPLY).read_to_end(&mut reply).await?;
    Ok(reply)
}
