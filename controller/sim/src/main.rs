//! The simulation alone: builds without the SDK. `cargo run --release -p sim -- --seeds 1..1000`

use std::process::ExitCode;

use clap::Parser;
use sim::ChaosArgs;

/// The controller's real loop and the sidecar's real state machine against a seeded world of bad luck.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    chaos: ChaosArgs,
}

#[expect(clippy::print_stderr, reason = "the command line's own output")]
fn main() -> ExitCode {
    let Cli { chaos } = Cli::parse();
    if chaos.trace {
        tracing_subscriber::fmt()
            .with_writer(std::io::stdout)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .init();
    }
    match sim::chaos(&chaos, "cargo run --release -p sim --") {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
