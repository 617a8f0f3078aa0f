//! Being a service: one run per worker prefix.

mod artifacts;
mod boot_scripts;
mod fleet;
pub mod lease;
mod run;

pub use run::{Input, Service, plan_once};
