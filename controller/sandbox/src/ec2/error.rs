//! AWS's errors: the codes, HTTP statuses and words that clients decide by.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::xml;

/// A call refused, as EC2 says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// For example `InvalidInstanceID.NotFound`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl ApiError {
    /// An error of any code.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// The caller's fault.
    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::bad("InvalidParameterValue", message)
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::bad("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    pub(crate) fn auth() -> Self {
        Self::new(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
    }

    /// The encoded message is there, as in AWS's answer, so that clients can be seen to keep it to themselves.
    pub(crate) fn unauthorized(caller: &str, action: &str, resource: &str) -> Self {
        let message = format!(
            "You are not authorized to perform this operation. User: {caller} is not authorized to perform: {action} \
             on resource: {resource} because no identity-based policy allows the {action} action. Encoded \
             authorization failure message: c2FuZGJveA"
        );
        Self::new(403, "UnauthorizedOperation", message)
    }

    pub(crate) fn throttled() -> Self {
        Self::new(503, "RequestLimitExceeded", "Request limit exceeded.")
    }

    pub(crate) fn dry_run() -> Self {
        Self::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }

    /// Capacity is the server's fault, and AWS answers it so: with a 500.
    pub(crate) fn no_capacity(message: impl Into<String>) -> Self {
        Self::new(500, "InsufficientInstanceCapacity", message)
    }

    /// `what` as in `instance ID`, `ids` all that are missing.
    pub(crate) fn not_found(code: &str, what: &str, ids: &[&str]) -> Self {
        let (plural, verb) = if ids.len() == 1 { ("", "does") } else { ("s", "do") };
        let quoted = ids.join(", ");
        Self::bad(code, format!("The {what}{plural} '{quoted}' {verb} not exist"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = xml::failure(&self.code, &self.message);
        (status, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], body).into_response()
    }
}
