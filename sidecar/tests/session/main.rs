//! The sidecar against a controller that the test plays.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod controller;
mod figures;
mod life;
mod link;
