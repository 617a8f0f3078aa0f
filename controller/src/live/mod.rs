//! The engine's ports on the wire: crates `clearml` and `ec2` behind the loop's own words.

mod clearml;
mod clock;
mod cloud;
mod images;
mod tasks;

pub use self::clearml::LiveClearMl;
pub use clock::LiveClock;
pub use cloud::{LiveCloud, Recipe, UserData};
pub use images::{Finder, Images};
