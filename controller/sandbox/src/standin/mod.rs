//! The stand-in for Python, the shim and clearml-agent on a sandbox's instance: a small program that takes tasks
//! through the gate as the real three do, and works by sleeping. Hundreds of them fit on one machine.

mod agent;
mod api;
mod conf;
mod gate;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What the agent calls itself.
const VERSION: &str = "CLEARML-AGENT version 3.0.3";

/// The hidden subcommand `sandbox-agent ARGUMENTS OF PYTHON`. Answers `-c` and `-m pip` with success, and runs the
/// agent for `agent_shim.py --gate-dir DIR ... -- ARGUMENTS` and for `-m clearml_agent ARGUMENTS`. Exit codes are
/// the agent's: 254 after SIGTERM.
pub fn main(args: &[OsString]) -> ExitCode {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> =
        args.iter().map(String::as_str).skip_while(|arg| is_interpreter_flag(arg)).collect();
    match words.as_slice() {
        ["-c", ..] | ["-m", "pip" | "venv" | "virtualenv" | "ensurepip", ..] => ExitCode::SUCCESS,
        ["--version" | "-V"] => print("Python 3.12.3"),
        ["-m", "clearml_agent", rest @ ..] => agent(None, rest),
        [script, rest @ ..] if script.ends_with("agent_shim.py") => shim(rest),
        _ => fail("the stand-in knows no such arguments", 2),
    }
}

/// Flags of the interpreter that change nothing here.
fn is_interpreter_flag(arg: &str) -> bool {
    ["-u", "-I", "-E", "-s", "-S", "-B"].contains(&arg)
}

/// How the shim was told to gate the agent.
#[derive(Debug, Default)]
struct Gating {
    dir: PathBuf,
    self_idle_limit: Option<Duration>,
    power_off: String,
}

fn shim(args: &[&str]) -> ExitCode {
    let mut parts = args.splitn(2, |arg| *arg == "--");
    let (Some(own), Some(rest)) = (parts.next(), parts.next()) else {
        return fail("no -- before the agent's arguments", 2);
    };
    match read_gating(own) {
        Some(gating) => agent(Some(&gating), rest),
        None => fail("the shim's arguments cannot be understood", 2),
    }
}

fn read_gating(args: &[&str]) -> Option<Gating> {
    let mut gating = Gating { power_off: "shutdown -P now".into(), ..Gating::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next()?;
        match *arg {
            "--gate-dir" => gating.dir = PathBuf::from(value),
            "--self-idle-limit" => {
                gating.self_idle_limit = Some(Duration::try_from_secs_f64(value.parse().ok()?).ok()?);
            }
            "--power-off" => gating.power_off = (*value).to_owned(),
            _ => return None,
        }
    }
    (!gating.dir.as_os_str().is_empty()).then_some(gating)
}

fn agent(gating: Option<&Gating>, args: &[&str]) -> ExitCode {
    if args.contains(&"--version") {
        return print(VERSION);
    }
    let Some(settings) = read_settings(args) else {
        return fail("only `[--config-file FILE] daemon --queue QUEUE...` is known", 2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), 1),
    };
    match runtime.block_on(agent::run(&settings, gating)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&format!("{error}"), 1),
    }
}

/// The agent's own arguments, as far as they matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    config_file: Option<PathBuf>,
    queues: Vec<String>,
}

fn read_settings(args: &[&str]) -> Option<Settings> {
    let mut settings = Settings::default();
    let mut is_daemon = false;
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        match *arg {
            "--config-file" => settings.config_file = Some(PathBuf::from(args.next()?)),
            "daemon" => is_daemon = true,
            "--queue" | "--queues" => {
                while let Some(queue) = args.next_if(|next| !next.starts_with("--")) {
                    settings.queues.push((*queue).to_owned());
                }
            }
            _ => {}
        }
    }
    (is_daemon && !settings.queues.is_empty()).then_some(settings)
}

fn print(text: &str) -> ExitCode {
    // Whoever asked may not want to know any more.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(text: &str, code: u8) -> ExitCode {
    say(text);
    ExitCode::from(code)
}

/// A line for whoever keeps the agent's output.
fn say(text: &str) {
    // Output that nobody keeps is no reason to stop.
    let _ = writeln!(io::stderr(), "sandbox-agent: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_arguments_are_read_as_the_real_one_reads_them() {
        let line =
            "--config-file /x/clearml.conf daemon --foreground --queue one two --docker img:1 --detached";
        let words: Vec<&str> = line.split(' ').collect();
        let settings = read_settings(&words).unwrap();
        assert_eq!(settings.config_file, Some(PathBuf::from("/x/clearml.conf")));
        assert_eq!(settings.queues, ["one", "two"]);
        assert_eq!(read_settings(&["daemon"]), None);
        assert_eq!(read_settings(&["execute", "--id", "1"]), None);
    }

    #[test]
    fn the_shims_arguments_are_read() {
        let gating = read_gating(&["--gate-dir", "/g", "--self-idle-limit", "1.5", "--power-off", "off now"]);
        let gating = gating.unwrap();
        assert_eq!(gating.self_idle_limit, Some(Duration::from_millis(1500)));
        assert_eq!(gating.power_off, "off now");
        assert!(read_gating(&["--gate-dir"]).is_none());
        assert!(read_gating(&["--self-idle-limit", "3"]).is_none());
    }
}
