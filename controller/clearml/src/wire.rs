//! One request and its answer: the envelope, its limits, and what each way to fail means.

use std::error::Error as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::fmt::rfc2822;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::address::Address;
use crate::error::Error;
use crate::time::Timestamp;

/// The largest answer that is read: some two hundred thousand waiting tasks.
const BODY_LIMIT: usize = 64 << 20;
/// The server's own words are cut off here.
const MESSAGE_LIMIT: usize = 400;

/// How a body is labelled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    Json,
    JsonLines,
}

/// One request, not yet authorized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) endpoint: &'static str,
    pub(crate) kind: Body,
    pub(crate) payload: &'a [u8],
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The server surely never saw it.
    pub(crate) unsent: bool,
}

/// Sends requests, one attempt each.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) http: reqwest::Client,
    pub(crate) address: Address,
    pub(crate) attempt_limit: Duration,
    /// The server's clock, as its last answer told it.
    pub(crate) told: Mutex<Option<Told>>,
}

/// A clock that was read, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    time: Timestamp,
    at: Instant,
}

impl Wire {
    /// The server's clock now. An answer's date is cut off to a second, so half of one is added.
    pub(crate) fn server_time(&self) -> Option<Timestamp> {
        let told = (*self.told.lock().ok()?)?;
        let since = told.at.elapsed() + Duration::from_millis(500);
        told.time.checked_add(since).ok()
    }

    fn read_clock(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
        if let (Some(time), Ok(mut told)) = (time, self.told.lock()) {
            *told = Some(Told { time, at: Instant::now() });
        }
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        request: Request<'_>,
        authorization: HeaderValue,
    ) -> Result<T, Failed> {
        let endpoint = request.endpoint;
        let content_type = match request.kind {
            Body::Json => "application/json",
            Body::JsonLines => "application/json-lines",
        };
        let response = self
            .http
            .post(self.address.endpoint(endpoint))
            .timeout(self.attempt_limit)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, content_type)
            // The server would gzip, at a cost in its CPU that a poll every few seconds is not worth.
            .header(ACCEPT_ENCODING, "identity")
            .body(request.payload.to_vec())
            .send()
            .await
            .map_err(|error| Failed { unsent: error.is_connect(), error: self.transport(endpoint, error) })?;
        self.answer(endpoint, response).await.map_err(|error| Failed { error, unsent: false })
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        endpoint: &'static str,
        mut response: Response,
    ) -> Result<T, Error> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        self.read_clock(&headers);
        let body = self.read(endpoint, response).await?;
        if status.is_redirection() {
            let target = text(&headers, LOCATION.as_str());
            let reason = format!("answered {status}, a redirect to {target}: correct the server's address");
            return Err(Error::Malformed { endpoint, reason });
        }
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let reason = format!("answered with content-encoding {encoding:?}, which was not asked for");
            return Err(Error::Malformed { endpoint, reason });
        }
        if !status.is_success() {
            return Err(fault(endpoint, status, &headers, &body));
        }
        match serde_json::from_slice::<Envelope<T>>(&body) {
            Ok(Envelope { meta, .. }) if meta.result_code >= 400 => Err(meta.fault(endpoint)),
            Ok(Envelope { data, .. }) => Ok(data),
            // An error in an envelope that came with a success's status has no data that fits.
            Err(error) => match serde_json::from_slice::<Envelope<IgnoredAny>>(&body) {
                Ok(Envelope { meta, .. }) if meta.result_code >= 400 => Err(meta.fault(endpoint)),
                Ok(_) => Err(Error::Malformed { endpoint, reason: unexpected(&error) }),
                Err(_) => {
                    Err(Error::Malformed { endpoint, reason: not_an_envelope(status, &headers, &body) })
                }
            },
        }
    }

    async fn read(&self, endpoint: &'static str, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LIMIT => {
                    let reason = format!("answered with more than {} MB", BODY_LIMIT >> 20);
                    return Err(Error::Malformed { endpoint, reason });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(error) => return Err(self.transport(endpoint, error)),
            }
        }
    }

    fn transport(&self, endpoint: &'static str, error: reqwest::Error) -> Error {
        let what = if error.is_timeout() {
            format!("no answer from {} within {:?}", self.address, self.attempt_limit)
        } else if error.is_connect() {
            format!("could not connect to {}", self.address)
        } else {
            format!("the connection to {} was cut off", self.address)
        };
        let causes = error.without_url();
        let mut reason = what;
        let mut source = causes.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Error::Unavailable { endpoint, reason: shortened(&reason) }
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    meta: Meta,
    data: T,
}

#[derive(Deserialize)]
struct Meta {
    result_code: u16,
    #[serde(default)]
    result_subcode: Option<u32>,
    #[serde(default)]
    result_msg: Option<String>,
}

impl Meta {
    fn fault(self, endpoint: &'static str) -> Error {
        let subcode = self.result_subcode.unwrap_or_default();
        let message = shortened(self.result_msg.as_deref().unwrap_or("no message"));
        let code = self.result_code;
        match code {
            401 => Error::Unauthorized { endpoint, code, subcode, message },
            408 | 425 | 429 | 500.. => {
                Error::Unavailable { endpoint, reason: format!("failed ({code}/{subcode}): {message}") }
            }
            _ => Error::Refused { endpoint, code, subcode, message },
        }
    }
}

/// What an HTTP status other than success means, with or without the server's envelope.
fn fault(endpoint: &'static str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    if let Ok(Envelope { meta, .. }) = serde_json::from_slice::<Envelope<IgnoredAny>>(body) {
        return meta.fault(endpoint);
    }
    let reason = not_an_envelope(status, headers, body);
    match status.as_u16() {
        401 => Error::Unauthorized { endpoint, code: 401, subcode: 0, message: reason },
        408 | 425 | 429 | 500.. => Error::Unavailable { endpoint, reason },
        _ => Error::Malformed { endpoint, reason },
    }
}

/// The body itself is not repeated: nobody knows what is in it.
fn not_an_envelope(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = text(headers, CONTENT_TYPE.as_str());
    let length = body.len();
    let hint = if status.is_success() && content_type.contains("html") {
        "; is the address that of the API server, and not of the web server?"
    } else {
        ""
    };
    format!("answered {status} with {length} bytes of {content_type}, not with ClearML's JSON{hint}")
}

/// Where it went wrong, without the value that was found there.
fn unexpected(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a field is missing or of another type than it should be",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
    };
    format!("the answer was not understood: {what}, at line {} column {}", error.line(), error.column())
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("an unnamed type");
    shortened(value)
}

fn shortened(text: &str) -> String {
    let one_line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}...", &one_line[..end]),
        None => one_line,
    }
}
