//! The engine's ports on the wire: crates `clearml` and `ec2` behind the loop's own words.

mod clock;
mod cloud;
mod clearml;

pub use self::clearml::LiveClearMl;
pub use clock::LiveClock;
pub use cloud::{LiveCloud, UserData};
