//! The decision: `plan(&Policy, &Snapshot) -> Plan`, a pure function.
//!
//! Everything that the controller does to the fleet is chosen here, from a value, and comes out as
//! a value; [`check`] re-reads a plan against the invariants before anything acts on it. No clock,
//! no randomness, no I/O and no logging: the crate's clippy.toml and its dependency list see to it.

mod boots;
#[macro_use]
#[cfg_attr(not(feature = "faults"), allow(unused_macros, reason = "the macros alone"))]
pub mod faults;

mod check;
mod evidence;
mod fleet;
mod ghosts;
mod hold;
mod ids;
mod intents;
mod names;
mod operator;
mod orders;
mod pace;
mod pass;
mod plan;
mod policy;
mod refusals;
mod removals;
mod role;
mod scale_down;
mod scale_up;
mod shutdown;
mod snapshot;
mod task;
mod tasks;
mod words;

pub use boots::Boots;
pub use check::{Violation, check};
pub use hold::{Awaits, Hold, TaskHold, Trouble};
pub use ids::{
    ClientToken, FleetId, InstanceId, InstanceType, IntentId, QueueName, ResourceName, TaskId, Time, WorkerId,
};
pub use pace::LAUNCHES_KEPT;
pub use pass::plan;
pub use plan::{Action, Order, OrderKind, Plan, TerminateReason};
pub use policy::{
    Market, NoShutdownAction, Offering, Placement, Policy, Pool, Resource, ShutdownAction, SidecarMode,
};
pub use refusals::{Refusal, pause_after};
pub use snapshot::{
    Answer, Freshness, Instance, Intent, LIMBO_AFTER, LostReason, Operator, OtherWorker, Pause, Signal,
    Snapshot, Source, State, Worker,
};
pub use task::{
    Cause, Loss, MOST_ATTEMPTS, Marks, NOT_RESPONSIVE, NoRequeueWhen, Notice, PutBack, REASON, Requeue,
    RequeueWhen, STOPPED_AS_ASKED, STOPPING, Seen, TaskRef, TaskStatus, TaskStep, Touch, Word,
};
