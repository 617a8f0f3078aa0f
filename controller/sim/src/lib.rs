//! The simulation: the engine's real loop and the sidecar's real state machine against a seeded world on
//! virtual time, with every kind of bad luck, and the invariants asserted by what is so in that world.
//!
//! A seed is some 30 virtual minutes: a random phase with faults, then a quiet one in which everything has to
//! come to its end. [`run_seed`] runs one, [`chaos`] ranges of them.

mod chaos;
mod faults;
mod ports;
mod rng;
mod run;
mod scenario;
mod world;

pub use chaos::{ChaosArgs, Totals, Violation, chaos, run_range};
#[cfg(feature = "faults")]
pub use faults::{choose, names};
pub use run::{Verdict, run_seed};
pub use world::judge::Broken;
