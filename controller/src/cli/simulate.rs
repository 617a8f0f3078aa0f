//! `controller simulate chaos`: the loop and the sidecar's state machine against a seeded world of bad luck.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::complain;

/// What to simulate.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    #[command(subcommand)]
    what: Simulation,
}

#[derive(Debug, Subcommand)]
enum Simulation {
    /// Crashes, lost replies, partitions, spot interruptions and the like, on virtual time, seed by seed.
    Chaos(sim::ChaosArgs),
}

/// Exit code 1 if an invariant was broken. The loop's own log is shown with `--trace` alone: at some hundred
/// virtual hours a second it would be all that there is.
pub(super) fn simulate(SimulateArgs { what: Simulation::Chaos(args) }: &SimulateArgs) -> ExitCode {
    if args.trace {
        let log = tracing_subscriber::fmt().with_writer(std::io::stdout).without_time();
        log.with_target(false).with_ansi(false).init();
    }
    match sim::chaos(args, "controller simulate chaos") {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}
