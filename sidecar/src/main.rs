//! The sidecar's executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidecar::run(std::env::args_os().skip(1))
}
