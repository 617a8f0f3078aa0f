//! The file server: a multipart form field's *name* is the path to store its content under.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart};
use axum::http::header::{AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::auth;
use super::handle::Handle;

/// More than that in all is refused.
const CAPACITY: usize = 512 << 20;

pub(super) struct Files {
    pub(super) handle: Handle,
    stored: Mutex<BTreeMap<String, Bytes>>,
}

impl Files {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, stored: Mutex::default() }
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let path = path(request.uri().path());
        if path.is_empty() && request.method() == Method::GET {
            return Ok(reply(StatusCode::OK, "the sandbox's file server"));
        }
        if !self.knows(request.headers()) {
            return Ok(reply(StatusCode::UNAUTHORIZED, "a token is needed"));
        }
        match *request.method() {
            Method::POST => Ok(self.store(request.map(Body::new)).await),
            Method::GET | Method::HEAD => Ok(self.fetch(&path, request.method() == Method::HEAD)),
            Method::DELETE => match self.stored().remove(&path) {
                Some(_) => Ok(reply(StatusCode::OK, path)),
                None => Ok(reply(StatusCode::NOT_FOUND, "no such file")),
            },
            _ => Ok(reply(StatusCode::METHOD_NOT_ALLOWED, "no such method")),
        }
    }

    fn stored(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only tokens are good here, keys are not.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer "));
        token.is_some_and(|token| auth::bearer(&self.handle.state(), token.trim()).is_ok())
    }

    async fn store(&self, mut request: Request<Body>) -> Response<Body> {
        // Without it the limit is 2 MB.
        DefaultBodyLimit::max(CAPACITY).apply(&mut request);
        let Ok(mut form) = Multipart::from_request(request, &()).await else {
            return reply(StatusCode::BAD_REQUEST, "no multipart form");
        };
        let mut names = Vec::new();
        loop {
            let field = match form.next_field().await {
                Ok(Some(field)) => field,
                Ok(None) => break,
                Err(_) => return reply(StatusCode::BAD_REQUEST, "a broken form"),
            };
            // Without a file name it is no file.
            let (Some(name), true) = (name(&field), field.file_name().is_some()) else { continue };
            let Ok(content) = field.bytes().await else {
                return reply(StatusCode::BAD_REQUEST, "a broken form");
            };
            let mut stored = self.stored();
            if stored.values().map(Bytes::len).sum::<usize>() + content.len() > CAPACITY {
                return reply(StatusCode::INSUFFICIENT_STORAGE, "the sandbox's file server is full");
            }
            stored.insert(name.clone(), content);
            names.push(name);
        }
        if names.is_empty() {
            return reply(StatusCode::BAD_REQUEST, "no file in the form");
        }
        let mut response = reply(StatusCode::OK, serde_json::json!(names).to_string());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn fetch(&self, path: &str, head: bool) -> Response<Body> {
        let Some(content) = self.stored().get(path).cloned() else {
            return reply(StatusCode::NOT_FOUND, "no such file");
        };
        let length = HeaderValue::from(content.len());
        let mut response = Response::new(if head { Body::empty() } else { Body::from(content) });
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}

/// The field's name, plain or in the extended form `name*=utf-8''...`, which some clients use for a slash.
fn name(field: &Field<'_>) -> Option<String> {
    if let Some(name) = field.name() {
        return Some(path(name));
    }
    let disposition = field.headers().get(CONTENT_DISPOSITION)?.to_str().ok()?;
    let value = disposition.split(';').find_map(|part| part.trim().strip_prefix("name*="))?;
    Some(path(value.splitn(3, '\'').nth(2)?))
}

/// Without the slashes around it, the web server's `/files`, and percent signs.
fn path(raw: &str) -> String {
    let raw = raw.strip_prefix("/files/").unwrap_or(raw).trim_matches('/');
    // As in a form, but for what has a meaning there and none in a path.
    let escaped = raw.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).map(|(path, _)| path.into_owned()).collect()
}

fn reply(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_the_client_meant() {
        assert_eq!(path("/files/project/a%20b+c=d&e.txt"), "project/a b+c=d&e.txt");
        assert_eq!(path("/"), "");
    }
}
