//! What can go wrong with a call, told by what the caller does about it.

use std::error::Error as StdError;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use crate::codes::{self, Meaning};
use crate::fault::Fault;

/// EC2 may answer with long lists of ids; more than this of a message helps nobody.
const LONGEST_MESSAGE: usize = 600;

/// A call failed. Its text names the operation and EC2's code, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {}{message}", code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct Error {
    /// What to do about it.
    pub meaning: Meaning,
    /// What was asked, in words: `run instances`.
    pub operation: &'static str,
    /// EC2's code, where EC2 answered.
    pub code: Option<String>,
    /// In words.
    pub message: String,
}

impl Error {
    pub(crate) fn new(meaning: Meaning, operation: &'static str, message: impl Into<String>) -> Self {
        Self { meaning, operation, code: None, message: message.into() }
    }

    pub(crate) fn invalid(operation: &'static str, faults: &[Fault]) -> Self {
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::new(Meaning::Invalid, operation, texts.join("; "))
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// Translates the SDK's error.
pub(crate) fn of_sdk<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    if let SdkError::ServiceError(context) = error
        && let Some(code) = context.err().code()
    {
        return Error {
            meaning: codes::meaning(code),
            operation,
            code: Some(code.to_owned()),
            message: presentable(context.err().message().unwrap_or("no message")),
        };
    }
    if has_cause::<CredentialsError>(error) {
        return Error::new(Meaning::Denied, operation, format!("no usable credentials: {}", causes(error)));
    }
    let what = match error {
        SdkError::ConstructionFailure(_) => "the request could not be made",
        SdkError::TimeoutError(_) => "no answer in time; it may have gone through",
        SdkError::DispatchFailure(_) => "ec2 could not be reached",
        SdkError::ResponseError(_) => "the answer could not be read; it may have gone through",
        SdkError::ServiceError(_) => "an error without a code",
        // The SDK's enum is open: later kinds get the cautious reading.
        _ => "failed",
    };
    Error::new(Meaning::Other, operation, format!("{what}: {}", causes(error)))
}

/// The error's sources, outermost first, each once.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut last = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let this = cause.to_string();
        if !this.is_empty() && this != last {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{this}");
        }
        last = this;
        source = cause.source();
    }
    presentable(&text)
}

fn has_cause<C: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<C>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// One line of bounded length. The encoded authorization message goes: it is long, and to who may decode it, it
/// tells much of the account.
fn presentable(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, hint) = match line.split_once("Encoded authorization failure message:") {
        Some((before, _)) => (before.trim_end(), " (cloudtrail has the encoded details)"),
        None => (line.as_str(), ""),
    };
    let mut text: String = line.chars().take(LONGEST_MESSAGE).collect();
    if text.len() < line.len() {
        text.push_str(" ...");
    }
    let mut characters = text.chars();
    let lower_case = match (characters.next(), characters.next()) {
        // `We have no ...`, but not `AWS was not able ...`.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text,
    };
    lower_case + hint
}
