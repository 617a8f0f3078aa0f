//! ClearML's REST API, as an autoscaler needs it: the only crate that knows ClearML's wire.
//!
//! [`Client`] logs in, renews its token, repeats what may be repeated and translates every failure into what
//! the caller does about it ([`Error`]). Its types are plain: ids are strings, and every field but an id may
//! be absent, as the server leaves out what was never set.

mod address;
mod artifacts;
mod auth;
mod client;
mod error;
mod events;
mod files;
mod paging;
mod params;
mod projects;
mod queues;
mod service;
mod tasks;
mod time;
mod tls;
mod types;
mod wire;
mod workers;

pub use address::{Address, AddressError};
pub use artifacts::Artifact;
pub use auth::{Credentials, ServerInfo};
pub use client::{BuildError, Client, Options, Timing};
pub use error::{Error, subcode};
pub use events::{Added, Event};
pub use files::FileServer;
pub use params::{Configurations, Others, Parameter, Parameters};
pub use service::{PROPERTIES, Property};
pub use tasks::{Container, LIFE_FIELDS, NewTask, Script, StatusNote, TaskEdit, TaskQuery};
pub use time::Timestamp;
pub use tls::Trust;
pub use types::{Entry, Execution, Named, Queue, ScriptKind, Task, Worker, WorkerQueue, WorkerTask};
pub use workers::Registration;
