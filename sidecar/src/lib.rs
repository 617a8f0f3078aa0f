//! The sidecar beside the ClearML agent: holds its gate, tells the controller what it does, and ends the machine
//! when nobody else can.
//!
//! [`run`] is the whole program; the modules are public for the simulator ([`agent`]), the stand-ins of the
//! sandbox ([`gate`]) and load generators ([`link`]).

#[macro_use]
pub mod faults;

pub mod agent;
mod agents;
mod boot;
pub mod config;
pub mod gate;
pub mod link;
mod log;
mod power;
pub mod probe;
mod runner;
mod saved;
mod spot;
mod watch;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub use gate::AGENT_SHIM;

use config::Config;

/// The version that is told to the controller.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the protocol.
pub const PROTOCOL_VERSION: u32 = 1;

const USAGE: &str = "usage: sidecar run --config FILE | sidecar --version";

/// The program: `run --config FILE`, or `--version`. The arguments are those after the program's own name.
///
/// Exit codes: 2 for wrong arguments or a configuration that cannot be used, 1 if the machine's own interfaces
/// fail. It does not end otherwise.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let path = match parse(arguments) {
        Ok(Command::Version) => {
            version();
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run { config }) => config,
        Err(()) => {
            log::warn(format_args!("{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let config = match Config::read(&path) {
        Ok(config) => config,
        Err(error) => {
            log::warn(format_args!("{}: {}", path.display(), log::chain(&error)));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(runner::run(config)));
    if let Err(error) = outcome {
        log::warn(format_args!("the sidecar cannot go on: {error}"));
    }
    ExitCode::FAILURE
}

enum Command {
    Run { config: PathBuf },
    Version,
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ()> {
    let command = match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("--version") => Command::Version,
        Some("run") if arguments.next().is_some_and(|option| option == "--config") => {
            Command::Run { config: arguments.next().ok_or(())?.into() }
        }
        _ => return Err(()),
    };
    if arguments.next().is_some() { Err(()) } else { Ok(command) }
}

#[expect(clippy::print_stdout, reason = "the answer to --version")]
fn version() {
    println!("sidecar {VERSION}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_commands_are_taken() {
        let parse = |line: &str| parse(line.split_whitespace().map(OsString::from));
        assert!(
            matches!(parse("run --config /f"), Ok(Command::Run { config }) if config.as_os_str() == "/f")
        );
        assert!(matches!(parse("--version"), Ok(Command::Version)));
        for wrong in ["", "run", "run --config", "run /f", "run --config /f x", "--help"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
