//! The API over HTTP: path, credentials and body in, the envelope out, and faults where they are planned.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::API_VERSION;
use super::auth;
use super::call::Call;
use super::document::{Doc, new_id};
use super::endpoints::{self, Endpoint, Version};
use super::error::ApiError;
use super::faults::Fault;
use super::handle::Handle;

const LARGEST_BODY: usize = 64 << 20;
/// For the head and half a body to leave before the connection is cut.
const FLUSH: Duration = Duration::from_millis(50);

pub(super) struct Api {
    pub(super) handle: Handle,
    /// As the stock server does, which serves one request per connection.
    pub(super) close_connections: bool,
}

/// What the path says.
struct Target {
    name: String,
    /// As the client wrote it.
    asked: String,
    endpoint: Option<(&'static Endpoint, Version)>,
}

impl Api {
    /// An error makes the connection end without an answer.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let target = target(parts.uri.path());
        let worker = worker(&parts.headers);
        let fault = self.handle.state().faults.take(&target.name);

        let outcome = match &fault {
            Some(Fault::Drop) => Err(0),
            Some(Fault::Html { code }) => Err(*code),
            Some(Fault::Refuse { code, subcode, message }) => {
                Ok(Err(ApiError::new(*code, *subcode, message.clone())))
            }
            Some(Fault::Delay(_) | Fault::HalfBody | Fault::DropReply) | None => {
                let body = to_bytes(Body::new(body), LARGEST_BODY).await.map_err(io::Error::other)?;
                Ok(self.run(&target, &parts.headers, parts.uri.query(), &body, peer))
            }
        };
        let status = match &outcome {
            Err(code) => *code,
            Ok(Ok(_)) => 200,
            Ok(Err(error)) => error.code,
        };
        let dropped = matches!(fault, Some(Fault::Drop | Fault::DropReply));
        self.handle.state().record.request(&target.name, if dropped { 0 } else { status }, worker);
        self.handle.changed();

        let text = match outcome {
            Ok(result) => envelope(&target, result).to_string(),
            Err(_) => "<html><body><h1>not the answer you look for</h1></body></html>".to_owned(),
        };
        let mut kind = "application/json";
        let mut body = None;
        match fault {
            Some(Fault::Drop | Fault::DropReply) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "dropped on purpose"));
            }
            Some(Fault::Html { .. }) => kind = "text/html",
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::HalfBody) => body = Some(half(&text)),
            Some(Fault::Refuse { .. }) | None => {}
        }
        let mut response = Response::new(body.unwrap_or_else(|| Body::from(text)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if self.close_connections {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    fn run(
        &self,
        target: &Target,
        headers: &HeaderMap,
        query: Option<&str>,
        body: &Bytes,
        peer: SocketAddr,
    ) -> Result<Value, ApiError> {
        let Some((endpoint, _)) = target.endpoint else {
            return Err(ApiError::no_endpoint(&target.name, &target.asked));
        };
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(ApiError::new(415, 0, "Unsupported content encoding"));
        }
        let (mut data, batch) = decode(headers, body)?;
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            data.insert(key.into_owned(), value.into_owned().into());
        }
        let mut state = self.handle.state();
        let user = if endpoint.needs_credentials {
            auth::caller(&state, headers.get(AUTHORIZATION))?
        } else {
            String::new()
        };
        let ip = peer.ip().to_string();
        let call = Call { endpoint: endpoint.name, user, worker: worker(headers), ip, data, batch };
        (endpoint.run)(&mut state, &call)
    }
}

/// `/v2.30/queues.get_all`, `/queues.get_all`, and either behind the web server's `/api`.
fn target(path: &str) -> Target {
    let path = path.strip_prefix("/api").unwrap_or(path).trim_matches('/');
    let newest = format!("{}.{}", API_VERSION.0, API_VERSION.1);
    let (asked, name) = match path.split_once('/') {
        Some((version, name)) if version.starts_with('v') => (version[1..].to_owned(), name),
        Some(_) | None => (newest, path),
    };
    let version = match asked.split_once('.') {
        Some((major, minor)) => major.parse().ok().zip(minor.parse().ok()),
        None => asked.parse().ok().map(|major| (major, 0)),
    };
    let endpoint = version.and_then(|version| endpoints::find(name, version));
    Target { name: name.to_owned(), asked, endpoint }
}

fn worker(headers: &HeaderMap) -> Option<String> {
    headers.get("x-clearml-worker")?.to_str().ok().map(str::to_owned)
}

/// Only json-lines is told by its content type; all else is taken for one JSON object.
fn decode(headers: &HeaderMap, body: &Bytes) -> Result<(Doc, Option<Vec<Doc>>), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json-lines") {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let batch = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        return Ok((Doc::new(), Some(batch.map_err(|_| ApiError::bad_request())?)));
    }
    if kind.starts_with("application/x-www-form-urlencoded") {
        let fields = form_urlencoded::parse(body);
        return Ok((
            fields.map(|(key, value)| (key.into_owned(), value.into_owned().into())).collect(),
            None,
        ));
    }
    if body.trim_ascii().is_empty() {
        return Ok((Doc::new(), None));
    }
    match serde_json::from_slice(body).map_err(|_| ApiError::bad_request())? {
        Value::Object(data) => Ok((data, None)),
        Value::Null => Ok((Doc::new(), None)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ApiError::new(500, 0, "Data should be a dict"))
        }
    }
}

fn envelope(target: &Target, result: Result<Value, ApiError>) -> Value {
    let id = new_id();
    let actual = target.endpoint.map(|(_, (major, minor))| format!("{major}.{minor}"));
    let (code, subcode, message, data) = match result {
        Ok(data) => (200, 0, "OK".to_owned(), data),
        Err(error) => (error.code, error.subcode, error.message, json!({})),
    };
    json!({
        "meta": {
            "id": id,
            "trx": id,
            "endpoint": { "name": target.name, "requested_version": target.asked, "actual_version": actual },
            "result_code": code,
            "result_subcode": subcode,
            "result_msg": message,
            "error_stack": null,
            "error_data": {},
        },
        "data": data,
    })
}

/// Ends the connection in the middle, once the first half was sent.
fn half(text: &str) -> Body {
    let first = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let end = async {
        tokio::time::sleep(FLUSH).await;
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut on purpose"))
    };
    Body::from_stream(stream::once(std::future::ready(Ok(first))).chain(stream::once(end)))
}
