//! Harness of the stories.

pub mod python;
