//! Being a service: one run per worker prefix.

pub(crate) mod artifacts;
mod assembly;
pub(crate) mod boot_scripts;
pub(crate) mod fleet;
mod input;
pub mod lease;
pub mod life;
mod reload;
pub mod report;
mod run;
mod source;
pub mod task;

pub use input::Input;
pub use reload::{ReloadError, Reloader};
pub(crate) use run::refused;
pub use run::{Service, plan_once};
pub use source::{Source, SourceError};
