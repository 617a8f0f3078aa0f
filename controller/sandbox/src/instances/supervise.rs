//! The supervisor: a machine's power supply. It runs the user data as cloud-init would, adopts whatever loses its
//! parent, and takes everything down when the power goes, when it is told to, or when the sandbox is gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{WaitOptions, getpid, set_child_subreaper, setsid, wait};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::root::Installed;
use super::{power, processes, root};

/// Exit codes of a supervisor.
pub(super) const STOPPED: i32 = 0;
pub(super) const POWERED_OFF: i32 = 10;
const FAILED: u8 = 1;

/// The hidden subcommand `sandbox-instance --dir DIR [--stand-in | --venv PATH]`: one instance's machine. Its stdin
/// is a pipe from the sandbox, and ends with it. Exit code 0 if it was stopped, 10 if it powered off.
pub fn supervise(args: &[OsString]) -> ExitCode {
    let Some((dir, installed)) = read_args(args) else {
        say("usage: sandbox-instance --dir DIR [--stand-in | --venv PATH]");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(run(&dir, &installed)) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("the machine failed: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn read_args(args: &[OsString]) -> Option<(PathBuf, Installed)> {
    let mut dir = None;
    let mut installed = Installed::Nothing;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.to_str()? {
            "--dir" => dir = Some(PathBuf::from(args.next()?)),
            "--stand-in" => installed = Installed::StandIn,
            "--venv" => installed = Installed::Venv(PathBuf::from(args.next()?)),
            _ => return None,
        }
    }
    Some((dir?, installed))
}

async fn run(dir: &Path, installed: &Installed) -> io::Result<ExitCode> {
    // A session of its own: a terminal's Ctrl-C is for the sandbox, which then ends its machines in order.
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let wires = Wires::attach()?;
    let executable = std::env::current_exe()?;
    root::fill(dir, installed, std::process::id(), &executable)?;
    let user_data = start_user_data(dir)?;
    let end = watch(dir, wires, user_data).await;
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    processes::end_all(|| processes::descendants(own), || reap(None)).await;
    Ok(ExitCode::from(u8::try_from(end).unwrap_or(FAILED)))
}

/// What a supervisor listens to.
struct Wires {
    lifeline: pipe::Receiver,
    power: Signal,
    stop: Signal,
    interrupt: Signal,
    child: Signal,
}

impl Wires {
    fn attach() -> io::Result<Self> {
        Ok(Self {
            lifeline: pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?,
            power: signal(SignalKind::user_defined1())?,
            stop: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        })
    }
}

/// Runs user data that is a script; other user data is not for us.
fn start_user_data(dir: &Path) -> io::Result<Option<u32>> {
    let path = dir.join("user-data");
    if !fs::read(&path)?.starts_with(b"#!") {
        return Ok(None);
    }
    let child = Command::new("bash").arg(&path).current_dir(root::path(dir)).stdin(Stdio::null()).spawn()?;
    Ok(Some(child.id()))
}

/// Until the machine is to go down.
async fn watch(dir: &Path, mut wires: Wires, user_data: Option<u32>) -> i32 {
    let mut off_at: Option<Instant> = None;
    let mut byte = [0];
    loop {
        tokio::select! {
            _ = wires.lifeline.read(&mut byte) => return STOPPED,
            _ = wires.stop.recv() => return STOPPED,
            _ = wires.interrupt.recv() => return STOPPED,
            _ = wires.child.recv() => reap(user_data),
            _ = wires.power.recv() => {
                match power::armed(dir) {
                    Ok(wait) => off_at = wait.map(|wait| Instant::now() + wait),
                    Err(error) => say(&format!("the power file cannot be understood: {error}")),
                }
            }
            () = sleep_until(off_at.unwrap_or_else(Instant::now)), if off_at.is_some() => {
                say("power off");
                return POWERED_OFF;
            }
        }
    }
}

/// Takes the exit codes of all that ended: adopted processes have nobody else to do it.
fn reap(user_data: Option<u32>) {
    let watched: BTreeSet<i32> = user_data.into_iter().filter_map(|pid| i32::try_from(pid).ok()).collect();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if watched.contains(&pid.as_raw_nonzero().get()) {
            let outcome =
                status.exit_status().map_or_else(|| "a signal".into(), |code| format!("code {code}"));
            say(&format!("user data ended with {outcome}"));
        }
    }
}

/// A line on the console.
fn say(text: &str) {
    // A console that is full or gone is no reason to end a machine.
    let _ = writeln!(io::stdout(), "sandbox: {text}");
}
