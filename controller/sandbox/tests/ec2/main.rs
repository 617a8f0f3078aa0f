//! The sandbox's EC2: its wire, its machines, and the agents on them.
#![allow(clippy::unwrap_used)]

mod agents;
mod common;
mod machines;
mod reads;
mod wire;
