//! ClearML's file server: files by path, behind the same login as the API.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH};
use reqwest::multipart::{Form, Part};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};

use crate::address::Address;
use crate::client::{BuildError, Client};
use crate::error::Error;
use crate::tls::client_config;

const LOOK: &str = "file server: look";
const STORE: &str = "file server: store";
/// For a look, and for what an upload takes beside its bytes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Slower lines are given up.
const BYTES_PER_SECOND: u64 = 100_000;
/// Repetitions, since a file stored twice is the same file.
const REPETITIONS: usize = 2;

/// A file server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileServer {
    http: reqwest::Client,
    address: Address,
    client: Client,
}

impl Client {
    /// The file server at an address, with this client's login.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub fn file_server(&self, address: Address) -> Result<FileServer, BuildError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(self.trust(), address.is_https())?)
            .redirect(Policy::none())
            .connect_timeout(PATIENCE / 2)
            .user_agent(concat!("clearml-autoscaler/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| BuildError::Http(error.to_string()))?;
        Ok(FileServer { http, address, client: self.clone() })
    }
}

impl FileServer {
    /// Where a file is, or would be.
    pub fn url(&self, path: &str) -> String {
        self.address.endpoint(path).to_string()
    }

    /// The length in bytes of the file at a path; `None` if there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn length(&self, path: &str) -> Result<Option<u64>, Error> {
        let look = || async {
            let request = |http: &reqwest::Client| {
                http.request(Method::HEAD, self.address.endpoint(path))
                    .timeout(PATIENCE)
                    .header(ACCEPT_ENCODING, "identity")
            };
            let response = self.send(LOOK, request).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(None),
                status if status.is_success() => {
                    let length = response.headers().get(CONTENT_LENGTH);
                    Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
                }
                status => Err(self.fault(LOOK, status)),
            }
        };
        look.retry(pauses()).when(Error::is_transient).await
    }

    /// Stores a file at a path, in place of one that is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn store(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        let length = content.len() as u64;
        let limit = PATIENCE + Duration::from_secs(length / BYTES_PER_SECOND);
        let name = path.rsplit('/').next().unwrap_or(path);
        let store = || async {
            let request = |http: &reqwest::Client| {
                // The field's name is the path; servers differ in how they read an encoded one.
                let part = Part::bytes(content.to_vec()).file_name(name.to_owned());
                let form = Form::new().percent_encode_noop().part(path.to_owned(), part);
                http.post(self.address.endpoint(""))
                    .timeout(limit)
                    .header(ACCEPT_ENCODING, "identity")
                    .multipart(form)
            };
            let response = self.send(STORE, request).await?;
            match response.status() {
                status if status.is_success() => Ok(()),
                status => Err(self.fault(STORE, status)),
            }
        };
        store.retry(pauses()).when(Error::is_transient).await?;
        match self.length(path).await? {
            Some(stored) if stored == length => Ok(()),
            stored => Err(Error::Malformed {
                endpoint: STORE,
                reason: format!(
                    "{} accepted {path} ({length} bytes), but has {} of it; is it ClearML's file server?",
                    self.address,
                    stored.map_or_else(|| "nothing".to_owned(), |stored| format!("{stored} bytes"))
                ),
            }),
        }
    }

    /// One attempt, and one more with a fresh login if the token was not accepted.
    async fn send(
        &self,
        endpoint: &'static str,
        request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<Response, Error> {
        let (bearer, number) = self.client.bearer(None).await?;
        let sent = request(&self.http).header(AUTHORIZATION, bearer).send().await;
        let response = sent.map_err(|error| self.unavailable(endpoint, &error))?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let (bearer, _) = self.client.bearer(Some(number)).await?;
        let sent = request(&self.http).header(AUTHORIZATION, bearer).send().await;
        sent.map_err(|error| self.unavailable(endpoint, &error))
    }

    fn unavailable(&self, endpoint: &'static str, error: &reqwest::Error) -> Error {
        let what = if error.is_timeout() { "no answer in time from" } else { "could not reach" };
        Error::Unavailable { endpoint, reason: format!("{what} {}", self.address) }
    }

    fn fault(&self, endpoint: &'static str, status: StatusCode) -> Error {
        let reason = format!("{} answered {status}", self.address);
        match status.as_u16() {
            401 | 403 => Error::Unauthorized { endpoint, code: status.as_u16(), subcode: 0, message: reason },
            408 | 425 | 429 | 500.. => Error::Unavailable { endpoint, reason },
            _ => Error::Malformed { endpoint, reason },
        }
    }
}

fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(300))
        .with_jitter()
        .with_max_times(REPETITIONS)
}
