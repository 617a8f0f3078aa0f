//! Figures of the whole: how soon instances are launched and ended, and what 10,000 sidecars cost.
//!
//! `cargo bench -p tests --bench fleet [-- FIGURE]`; without a name, all of them, each in a process of its
//! own. Nothing is asserted: a figure depends on the machine, which is printed with it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are printed")]

mod figures;
mod launches;
mod load;
mod peer;
mod removals;
mod sidecars;
mod stage;

use std::future::Future;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names of the figures, in the order in which they are measured.
const FIGURES: [&str; 5] = ["reply-to-launch", "task-to-launch", "burst", "idle-to-terminate", "sidecars"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    raise_descriptor_limit();
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] | ["all"] => all(),
        ["reply-to-launch"] => block_on(launches::reply_to_launch()),
        ["task-to-launch"] => block_on(launches::task_to_launch()),
        ["burst"] => block_on(launches::burst()),
        ["idle-to-terminate"] => block_on(removals::idle_to_terminate()),
        ["sidecars"] => block_on(sidecars::sidecars(10_000)),
        ["sidecars", count] => block_on(sidecars::sidecars(count.parse().context("how many sidecars")?)),
        ["sidecar-load", url, pin, count] => {
            block_on(load::run(url, pin, count.parse().context("how many sidecars")?))
        }
        _ => anyhow::bail!("figures: all, {} [COUNT]", FIGURES.join(", ")),
    }
}

/// Each figure in a process of its own, so that none is measured in the heap of another.
fn all() -> anyhow::Result<()> {
    let executable = std::env::current_exe()?;
    let mut table = String::new();
    let mut failed = Vec::new();
    for figure in FIGURES {
        eprintln!("-- {figure}");
        let child = Command::new(&executable).arg(figure).stderr(Stdio::inherit()).output()?;
        table.push_str(&String::from_utf8_lossy(&child.stdout));
        if !child.status.success() {
            failed.push(figure);
        }
    }
    println!("{}", figures::machine());
    print!("{table}");
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// The runtime that the controller itself uses.
fn block_on(figure: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(figure)
}

/// A session is a descriptor at either end.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // It may well suffice as it is; if not, the figure says how many sidecars attached.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
