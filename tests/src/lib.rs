//! Harness of the stories.

pub mod agent;
pub mod process;
pub mod python;
