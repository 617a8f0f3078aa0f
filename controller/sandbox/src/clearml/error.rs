//! The server's refusals, by the codes it documents: an HTTP status, a subcode and a message.

use std::fmt::Display;

/// A refusal: becomes the envelope's `result_code`, `result_subcode` and `result_msg`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}/{subcode}: {message}")]
pub struct ApiError {
    /// HTTP status, the same as the envelope's `result_code`.
    pub code: u16,
    /// What exactly is wrong, per status; 0 where the server does not say.
    pub subcode: u16,
    /// The text for people.
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(code: u16, subcode: u16, message: impl Into<String>) -> Self {
        Self { code, subcode, message: message.into() }
    }

    pub(crate) fn validation(what: impl Display) -> Self {
        Self::new(400, 12, format!("Validation error ({what})"))
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self::validation(format_args!("error for field '{field}'. field is required!"))
    }

    pub(crate) fn no_task(id: &str) -> Self {
        Self::new(400, 101, format!("Invalid task id: ids=({id})"))
    }

    pub(crate) fn no_queue(id: &str, company: &str) -> Self {
        Self::new(400, 701, format!("Invalid queue id: id={id}, company={company}"))
    }

    pub(crate) fn no_project(id: &str) -> Self {
        Self::new(400, 401, format!("Invalid project id: id={id}"))
    }

    pub(crate) fn no_model(id: &str) -> Self {
        Self::new(400, 201, format!("Invalid model id: id={id}"))
    }

    pub(crate) fn short_name() -> Self {
        Self::new(400, 800, "Data validation error: fields=('name',), error=String value is too short")
    }

    pub(crate) fn not_unique(name: &str, company: &str) -> Self {
        Self::new(
            400,
            801,
            format!(
                "Value combination already exists (unique field already contains this value): \
                 name={name}, company={company}"
            ),
        )
    }

    pub(crate) fn no_endpoint(name: &str, version: &str) -> Self {
        Self::new(404, 0, format!("Unable to find endpoint for name {name} and version {version}"))
    }

    pub(crate) fn bad_request() -> Self {
        Self::new(400, 0, "The browser (or proxy) sent a request that this server could not understand.")
    }
}
