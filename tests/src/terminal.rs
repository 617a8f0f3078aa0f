//! A program in a pseudo-terminal of 80 columns, seen through a terminal emulator, answered as by a person.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rexpect::process::PtyProcess;

const COLUMNS: NonZeroU16 = NonZeroU16::MIN.saturating_add(79);
/// More than any test prints, so that nothing scrolls away.
const ROWS: NonZeroU16 = NonZeroU16::MIN.saturating_add(1999);
const LIMIT: Duration = Duration::from_secs(60);
/// Runs a program on a terminal as a person finds it; afterwards tells how it ended and how it left the terminal.
const SESSION: &str = r#"trap : INT; echo "session $$"; stty sane rows 24 cols 80; "$@"; code=$?; stty -a; echo "exit code $code""#;

/// The terminal and what runs in it.
pub struct Terminal {
    // Ends with this.
    _process: PtyProcess,
    keyboard: File,
    screen: Arc<Screen>,
}

struct Screen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    parser: vt100::Parser,
    ended: bool,
}

impl Terminal {
    /// Starts a program there, in a directory and with no other environment than this.
    pub fn start(program: &Path, args: &[&str], dir: &Path, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SESSION, "sh"]).arg(program).args(args).current_dir(dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(env.iter().copied());
        let mut process = PtyProcess::new(command).context("start a program in a terminal")?;
        process.set_kill_timeout(Some(1000));
        let keyboard = process.get_file_handle().context("the terminal's keyboard")?;
        let mut output = process.get_file_handle().context("the terminal's output")?;
        let state = State { parser: vt100::Parser::new(ROWS, COLUMNS, 0), ended: false };
        let screen = Arc::new(Screen { state: Mutex::new(state), changed: Condvar::new() });
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                // The terminal's end is an error on Linux.
                let count = output.read(&mut bytes).unwrap_or(0);
                let mut state = shown.lock();
                state.parser.process(&bytes[..count]);
                state.ended = count == 0;
                let ended = state.ended;
                drop(state);
                shown.changed.notify_all();
                if ended {
                    return;
                }
            }
        });
        Ok(Self { _process: process, keyboard, screen })
    }

    /// Waits for a prompt, the cursor right behind it, and answers with a line.
    pub fn answer(&mut self, prompt: &str, line: &str) -> anyhow::Result<()> {
        self.prompted(prompt)?;
        self.press(&format!("{line}\r"))
    }

    /// Waits for a prompt, the cursor right behind it.
    pub fn prompted(&self, prompt: &str) -> anyhow::Result<()> {
        let wanted = prompt.trim_end();
        self.wait(&format!("the prompt {wanted:?}"), |state| {
            let before = before_cursor(state.parser.screen());
            before.ends_with(wanted) || before.ends_with(&format!("{wanted} "))
        })
    }

    /// Waits for words anywhere on the screen, however they are broken into lines.
    pub fn shows(&self, words: &str) -> anyhow::Result<()> {
        let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = joined(words);
        self.wait(&format!("{words:?}"), |state| joined(&state.parser.screen().contents()).contains(&wanted))
    }

    /// Presses keys, and waits until the screen has changed.
    pub fn press(&mut self, keys: &str) -> anyhow::Result<()> {
        let before = before_cursor(self.screen.lock().parser.screen());
        self.keyboard.write_all(keys.as_bytes()).context("press keys")?;
        self.wait(&format!("what {keys:?} does"), |state| {
            state.ended || before_cursor(state.parser.screen()) != before
        })
    }

    /// Sends the program a signal to end.
    pub fn terminate_program(&self) -> anyhow::Result<()> {
        // The shell that runs it is the session's leader; the program is its only child.
        let contents = self.contents();
        let shell = contents.lines().find_map(|line| line.strip_prefix("session "));
        let shell = shell.context("the session's id")?.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let child = children.split_whitespace().next().context("the program runs")?.parse()?;
        let child = rustix::process::Pid::from_raw(child).context("the program's id")?;
        rustix::process::kill_process(child, rustix::process::Signal::TERM).context("end the program")
    }

    /// Waits until the program has ended; its exit code.
    pub fn exit_code(&self) -> anyhow::Result<i32> {
        self.wait("its end", |state| state.ended)?;
        let contents = self.contents();
        let code = contents.rsplit("exit code ").next().and_then(|rest| rest.trim().parse().ok());
        code.with_context(|| format!("no exit code in\n{contents}"))
    }

    /// Everything that was shown; a line that the terminal broke is one line.
    pub fn contents(&self) -> String {
        self.screen.lock().parser.screen().contents()
    }

    fn wait(&self, what: &str, done: impl Fn(&State) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + LIMIT;
        let mut state = self.screen.lock();
        while !done(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                bail!("the terminal never showed {what}; it shows\n{}", state.parser.screen().contents());
            }
            state = self.screen.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn before_cursor(screen: &vt100::Screen) -> String {
    let (row, column) = screen.cursor_position();
    screen.contents_between(0, 0, row, column)
}
