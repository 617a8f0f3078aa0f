//! Being a service: one run per worker prefix.

pub(crate) mod artifacts;
mod assembly;
pub(crate) mod boot_scripts;
pub(crate) mod fleet;
mod foundation;
mod input;
pub mod lease;
pub mod ledger;
pub mod life;
mod operator;
mod reload;
pub mod report;
mod run;
mod source;
pub mod task;

pub(crate) use foundation::refused;
pub use input::Input;
pub use operator::{WishError, Wishes};
pub use reload::{ReloadError, Reloader};
pub use run::{Service, plan_once};
pub use source::{Source, SourceError};
