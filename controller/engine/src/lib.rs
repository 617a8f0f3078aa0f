//! The loop: observe, plan, check, apply, publish, generic over its ports.
//!
//! No I/O of its own: queues, workers and tasks come through [`ports::ClearMl`], instances through
//! [`ports::Cloud`], sidecars through [`ports::Sessions`], what must survive through
//! [`ports::Journal`], and time through [`ports::Clock`]. The simulator and production differ in
//! these five alone.

mod apply;
mod boots;
pub mod history;
mod holds;
mod memory;
mod merge;
mod outcomes;
pub mod ports;
mod publish;
mod read;
mod reasons;
mod run;
pub mod status;
mod tasks;
mod views;

pub use apply::Ports;
pub use publish::Published;
pub use run::{Engine, Intervals, Start};
