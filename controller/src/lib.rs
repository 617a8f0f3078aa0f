//! The controller: configuration, gateway, journal, boot scripts and the loop's ports on the wire, put
//! together into a service and a command line.

pub mod admin;
pub mod boot;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod gateway;
mod http;
pub mod journal;
pub mod live;
pub mod prices;
pub mod service;
pub mod wizard;
