//! The autoscaler as a ClearML task, through the real executable and against the sandbox.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bad;
mod elsewhere;
mod runs;
mod stage;
