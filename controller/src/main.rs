//! The controller's executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    controller::cli::main()
}
