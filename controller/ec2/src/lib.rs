//! EC2, as far as an autoscaler needs it: launch, describe, terminate, read a console.
//!
//! The only crate that knows aws-sdk-ec2. Its types are plain and its own, so that nothing above it depends on the
//! SDK; its errors say what the caller does next. Every call has a time limit; throttling and faults of the server
//! are tried again by the SDK, three times in all, with jitter.

mod client;
mod codes;
mod describe;
mod error;
mod fault;
mod http;
mod ids;
mod launch;
mod merge;
mod read;
mod rules;
mod shapes;
mod terminate;

pub use client::{Client, Keys, Settings};
pub use codes::{Meaning, meaning};
pub use describe::{Described, Instance, InstanceState, StateReason};
pub use error::Error;
pub use fault::Fault;
pub use launch::{LaunchSpec, Market, Placement, Profile, USER_DATA_LIMIT, Volume};
pub use rules::{RESERVED_TAG_PREFIX, faults_of_extra as validate_extra};
