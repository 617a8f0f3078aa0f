//! The real client over real HTTP, against a server on loopback that records what it was asked.
#![allow(clippy::unwrap_used)]

mod calls;
mod chain;
mod extra;
mod launch;
mod permits;
mod reads;
mod server;
