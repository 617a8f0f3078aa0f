//! The session with the controller: gRPC over TLS 1.3 to the one key that is pinned.
//!
//! [`Dialer`] opens one session; [`keep`] holds one up for good, with jittered back-off. The dialer is cheap to
//! share: a load generator opens thousands of sessions with one.

mod keep;
mod pin;
mod session;
mod suite;

pub use keep::{Greeting, Incoming, keep};
pub(crate) use keep::{evenly_below, jittered};
pub use pin::{Pin, Target};
pub use session::{Dialer, LinkError, MAX_MESSAGE, Session};
