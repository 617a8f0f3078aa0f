//! The command line. Results on stdout, diagnostics on stderr; exit code 2 for input that must be
//! corrected, 3 where no controller answers, 1 for everything else that failed.

mod demo;
mod diff;
mod doctor;
mod export;
pub(crate) mod iam_policy;
mod import;
mod operator;
mod plan;
mod records;
mod reload;
pub mod remote;
mod render;
mod run;
mod sandbox;
pub mod service;
mod simulate;
mod status;
mod template;
pub(crate) mod wizard;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin::{self, AskError};
use crate::config;
use crate::service::report::Logging;

/// The file that ClearML's script writes.
pub const DEFAULT_CONFIG_FILE: &str = "aws_autoscaler.yaml";

/// Keeps an EC2 fleet within a budget from the state of ClearML queues. Without a subcommand it is configured by a
/// wizard, as ClearML's aws_autoscaler.py.
#[derive(Debug, Parser)]
#[command(name = "controller", version, propagate_version = true)]
struct Cli {
    /// What is logged, in the form of RUST_LOG: `info`, `warn,engine=debug`.
    #[arg(
        long,
        global = true,
        env = "CLEARML_AUTOSCALER_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: EnvFilter,
    /// Log JSON lines.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(flatten)]
    script: wizard::ScriptArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the autoscaler, from a file, or as the task that a ClearML agent started (CLEARML_TASK_ID).
    Run(RunArgs),
    /// Look once, print what would be done, do nothing.
    Plan(plan::PlanArgs),
    /// Make or renew a draft in ClearML's web UI, to be cloned, edited and enqueued there.
    Template(template::TemplateArgs),
    /// Show the pools, the instances and why nothing else is done.
    Status(status::StatusArgs),
    /// Show what was done to the fleet, and why.
    History(records::RecordArgs),
    /// Show what the fleet cost, by queue, resource and market.
    Costs(records::RecordArgs),
    /// Print a configuration as YAML or JSON, from a file or a ClearML task.
    Export(export::ExportArgs),
    /// Check a configuration, YAML or JSON, and write it as the file to run by.
    Import(import::ImportArgs),
    /// Show what the file says otherwise than the running controller does.
    Diff(diff::DiffArgs),
    /// Have the running controller take its changed configuration, without a restart.
    Reload(reload::ReloadArgs),
    /// Drain instances: each finishes its task, takes no other, and goes, whatever waits.
    Drain(operator::DrainArgs),
    /// Take drains back, for as long as the instances are not retired.
    Undrain(operator::UndrainArgs),
    /// Launch nothing until `resume`; drains and removals go on.
    Pause(operator::PauseArgs),
    /// Launch again.
    Resume(operator::ResumeArgs),
    /// Check everything that a run needs, before anything is spent.
    Doctor(doctor::DoctorArgs),
    /// Print the least IAM policy for a configuration.
    IamPolicy(ConfigFile),
    /// Serve a ClearML and an EC2 on loopback, for trying things out.
    Sandbox(sandbox::SandboxArgs),
    /// Show the autoscaler at work on the sandbox: no account, no server.
    Demo(demo::DemoArgs),
    /// Put the autoscaler's own decisions to the test on virtual time.
    Simulate(simulate::SimulateArgs),
    /// The sidecar's own code, for the sandbox's instances.
    #[command(hide = true)]
    Sidecar(Rest),
    /// A sandbox instance's first process.
    #[command(hide = true)]
    SandboxInstance(Rest),
    /// The sandbox's stand-in for an agent.
    #[command(hide = true)]
    SandboxAgent(Rest),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The YAML file, as ClearML's aws_autoscaler.py writes it.
    #[arg(long, default_value = DEFAULT_CONFIG_FILE, value_name = "FILE")]
    pub config_file: PathBuf,
}

/// Where the configuration of a run is.
#[derive(Debug, Args)]
struct RunArgs {
    /// The YAML file, as ClearML's aws_autoscaler.py writes it; aws_autoscaler.yaml unless an agent started this.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// Everything after a hidden subcommand's name.
#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Input that the operator must correct: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// No controller answers: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoController(pub String);

/// Reads the arguments and does what they say.
pub fn main() -> ExitCode {
    // The stand-ins are to be small, and the supervisor's options are not ours to parse.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((name, rest)) = args.split_first() {
        match name.to_str() {
            Some("sidecar") => return sidecar::run(rest.iter().cloned()),
            Some("sandbox-instance") => return ::sandbox::instances::supervise(rest),
            Some("sandbox-agent") => return ::sandbox::standin::main(rest),
            Some(_) | None => {}
        }
    }
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(Command::Simulate(args)) = &cli.command {
        return simulate::simulate(args);
    }
    let logging = Logging::install(cli.log, cli.log_json);
    let work = async {
        wizard::refuse_beside(&matches)?;
        match cli.command {
            Some(command) => dispatch(command, &logging).await,
            None => wizard::script(cli.script, &logging).await,
        }
    };
    match runtime().and_then(|runtime| runtime.block_on(work)) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            exit_code(&error)
        }
    }
}

async fn dispatch(command: Command, logging: &Logging) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(RunArgs { config_file }) => match (config_file, env("CLEARML_TASK_ID")) {
            (None, Some(task)) => service::by_agent(&task, logging).await,
            (Some(file), _) => run::run(&file).await,
            (None, None) => run::run(Path::new(DEFAULT_CONFIG_FILE)).await,
        },
        Command::Template(args) => template::template(&args).await,
        Command::Plan(args) => plan::plan(&args).await,
        Command::Status(args) => status::status(&args).await,
        Command::History(args) => records::history(&args).await,
        Command::Costs(args) => records::costs(&args).await,
        Command::Export(args) => export::export(&args).await,
        Command::Import(args) => import::import(&args),
        Command::Diff(args) => diff::diff(&args).await,
        Command::Reload(args) => reload::reload(&args).await,
        Command::Drain(args) => operator::drain(args).await,
        Command::Undrain(args) => operator::undrain(args).await,
        Command::Pause(args) => operator::pause(args).await,
        Command::Resume(args) => operator::resume(args).await,
        Command::Doctor(args) => doctor::doctor(&args).await,
        Command::IamPolicy(file) => iam_policy::iam_policy(&file.config_file),
        Command::Sandbox(args) => sandbox::sandbox(args).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Simulate(args) => Ok(simulate::simulate(&args)),
        Command::Sidecar(_) | Command::SandboxInstance(_) | Command::SandboxAgent(_) => {
            // Taken before clap saw them; they are named above for the help of `clap` alone.
            anyhow::bail!("hidden subcommands take no global options")
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn complain(error: &anyhow::Error) {
    note(&format!("error: {error:#}"));
}

/// Tells something that is no result.
#[allow(clippy::print_stderr, reason = "the command line's own output")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// The running controller's socket: the one that is named, or that of a configuration's state directory.
fn socket_of(socket: Option<&Path>, config_file: &Path) -> Result<PathBuf, BadInput> {
    if let Some(socket) = socket {
        return Ok(socket.to_owned());
    }
    let config = config::load(config_file, &env).map_err(|faults| BadInput(faults.to_string()))?;
    Ok(config.state_dir.join(admin::SOCKET))
}

/// Why the running controller did not do as it was asked.
fn told(error: AskError) -> anyhow::Error {
    match error {
        AskError::NoController { path, source } => NoController(format!(
            "no controller answers on {} ({:#}): is it running with this configuration? --socket PATH names another",
            path.display(),
            anyhow::Error::from(source)
        ))
        .into(),
        AskError::Refused(faults) => BadInput(faults.join("\n")).into(),
        error @ (AskError::Unavailable(_) | AskError::Misunderstood { .. }) => error.into(),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<BadInput>()) {
        ExitCode::from(2)
    } else if error.chain().any(|cause| cause.is::<NoController>()) {
        ExitCode::from(3)
    } else {
        ExitCode::FAILURE
    }
}

/// Resolves when this process is told to stop.
///
/// # Errors
/// If signals can't be watched.
pub(crate) async fn stopped() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Prints a result.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// An environment variable, if it is set and not empty.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
