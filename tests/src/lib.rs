//! Harness of the stories.

pub mod agent;
pub mod harness;
pub mod process;
pub mod python;
pub mod terminal;
