//! Being a service: one run per worker prefix.

mod artifacts;
mod boot_scripts;
mod fleet;
pub mod lease;
pub mod life;
pub mod report;
mod run;
pub mod task;

pub use run::{Input, Service, plan_once};
