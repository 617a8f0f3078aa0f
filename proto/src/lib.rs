//! The protocol between controller and sidecar, as generated code and nothing else.

/// Version 1.
pub mod v1 {
    #![allow(unreachable_pub, unused_qualifications, clippy::all)]
    tonic::include_proto!("fleet.v1");
}
