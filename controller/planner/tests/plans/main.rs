//! The planner from outside: stories as text, properties over any snapshot, and a fleet that lives.
#![allow(clippy::unwrap_used, reason = "a story that cannot be read is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests read files and one switch from the environment")]

mod generate;
mod large;
mod machine;
mod model;
mod operator;
mod properties;
mod refusals;
mod scenarios;
mod show;
mod shutdown;
mod tasks;
mod text;
mod walk;
mod world;
