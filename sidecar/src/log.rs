//! A line per event to stderr, which the unit keeps: a subscriber would be half of the binary.

use std::fmt::Arguments;
use std::io::Write;

/// The fleet would want to know.
pub(crate) fn info(message: Arguments<'_>) {
    line("INFO", message);
}

/// Someone should look.
pub(crate) fn warn(message: Arguments<'_>) {
    line("WARN", message);
}

fn line(level: &str, message: Arguments<'_>) {
    // A log that cannot be written is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{level} {message}");
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
