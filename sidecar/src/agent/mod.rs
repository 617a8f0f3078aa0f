//! What the sidecar decides, as a pure state machine: no I/O, no clock, no randomness.
//!
//! The runner feeds it [`Event`]s with the time since boot (CLOCK_BOOTTIME) and carries out the [`Effect`]s in
//! their order; the simulator does the same with time of its own. Times never go backwards.

mod machine;
mod orders;
mod types;

pub use machine::{KILL_BEFORE, LEASE, Machine, RENEWAL, RETIRED_GRACE, SILENT_GRACE, TAKEN_GRACE};
pub use types::{
    Agent, AgentReport, Answer, Boot, Effect, Event, Order, OrderKind, Outcome, PowerOff, Reading, Report,
    Saved, Standing,
};
