//! EC2, as far as an autoscaler needs it: launch, describe, terminate, read a console; and what an operator chooses
//! from and is checked against: regions, types, images, networks, prices, permissions.
//!
//! The only crate that knows AWS's SDKs. Its types are plain and its own, so that nothing above it depends on the
//! SDK; its errors say what the caller does next. Every call has a time limit; throttling and faults of the server
//! are tried again by the SDK, three times in all, with jitter.

mod account;
mod actions;
mod client;
mod codes;
mod describe;
mod error;
mod fault;
mod hardware;
mod http;
mod ids;
mod images;
mod launch;
mod listing;
mod merge;
mod network;
mod paced;
mod permits;
mod places;
mod read;
mod rules;
mod shapes;
mod spot;
mod terminate;

pub use account::{Bucket, Caller};
pub use actions::{PREFIX_TAG, Purpose, policy};
pub use client::{Client, Keys, Settings};
pub use codes::{Meaning, meaning};
pub use describe::{Described, Instance, InstanceState, StateReason};
pub use error::Error;
pub use fault::Fault;
pub use hardware::{Architecture, Gpus, InstanceType, InstanceTypeQuery};
pub use images::{Image, ImageQuery, TRUSTED_OWNERS};
pub use launch::{LaunchSpec, Market, Placement, Profile, USER_DATA_LIMIT, Volume};
pub use network::{Account, Rule, SecurityGroup, Subnet};
pub use places::{OptIn, Region, Zone};
pub use rules::{RESERVED_TAG_PREFIX, faults_of_extra as validate_extra};
pub use spot::SpotPrice;
