//! Being a service: one run per worker prefix.

pub(crate) mod artifacts;
pub(crate) mod boot_scripts;
pub(crate) mod fleet;
pub mod lease;
mod run;

pub use run::{Input, Service, plan_once};
