//! The person at the terminal: lines edited by rustyline, passwords shown as stars.
//!
//! The prompt is printed exactly as it is given. On a terminal that knows no cursor (`TERM=dumb`) rustyline reads
//! plain lines, with the terminal's own echo; passwords are then read by rpassword, which turns that off.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};

use super::choices::Choice;

/// Longer lists are asked about before Tab prints them.
const MOST_CANDIDATES: usize = 200;

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Ctrl-C, Ctrl-D, or the terminal has gone.
    Left,
    /// The terminal does not work.
    Broken(io::Error),
}

/// Someone who reads and answers.
pub trait Person {
    /// Says something; lines end with a newline.
    ///
    /// # Errors
    /// If nobody can hear it.
    fn say(&mut self, text: &str) -> Result<(), NoAnswer>;

    /// Asks for a line; Tab completes it to one of the choices.
    ///
    /// # Errors
    /// If there is no answer.
    fn line(&mut self, prompt: &str, choices: &[Choice]) -> Result<String, NoAnswer>;

    /// Asks for a line that nobody else may see.
    ///
    /// # Errors
    /// If there is no answer.
    fn secret(&mut self, prompt: &str) -> Result<String, NoAnswer>;
}

/// The terminal on stdin and stdout.
pub struct Screen {
    editor: Editor<Aid, DefaultHistory>,
    plain: bool,
}

impl Screen {
    /// `None` unless stdin and stdout are a terminal.
    ///
    /// # Errors
    /// If the terminal can't be used.
    pub fn open() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let config = Config::builder()
            .auto_add_history(false)
            .completion_type(CompletionType::List)
            .completion_prompt_limit(MOST_CANDIDATES)
            // The stars are a kind of colour to rustyline, and must not depend on NO_COLOR.
            .color_mode(ColorMode::Forced)
            .build();
        let mut editor = Editor::with_config(config).map_err(io_error)?;
        editor.set_helper(Some(Aid::default()));
        Ok(Some(Self { editor, plain: std::env::var_os("TERM").is_some_and(|term| is_plain(&term)) }))
    }

    fn read(&mut self, prompt: &str, aid: Aid) -> Result<String, NoAnswer> {
        self.editor.set_helper(Some(aid));
        self.editor.readline(prompt).map_err(|error| match error {
            ReadlineError::Eof | ReadlineError::Interrupted => NoAnswer::Left,
            other => NoAnswer::Broken(io_error(other)),
        })
    }
}

impl Person for Screen {
    fn say(&mut self, text: &str) -> Result<(), NoAnswer> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(NoAnswer::Broken)
    }

    fn line(&mut self, prompt: &str, choices: &[Choice]) -> Result<String, NoAnswer> {
        self.read(prompt, Aid { choices: choices.to_vec(), masked: false })
    }

    fn secret(&mut self, prompt: &str) -> Result<String, NoAnswer> {
        if !self.plain {
            return self.read(prompt, Aid { choices: Vec::new(), masked: true });
        }
        // Before the prompt is there to be answered: rpassword turns the echo off only after it.
        let _echo = AsFound::silenced();
        let config = rpassword::ConfigBuilder::new().password_feedback_mask('*').build();
        rpassword::prompt_password_with_config(prompt, config).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof => NoAnswer::Left,
            _ => NoAnswer::Broken(error),
        })
    }
}

/// The settings of the terminal on stdin as they were found, and are again when this is dropped.
pub struct AsFound(Termios);

impl AsFound {
    /// `None` without a terminal.
    pub fn of_stdin() -> Option<Self> {
        termios::tcgetattr(io::stdin()).ok().map(Self)
    }

    /// The same; from now on nothing that is typed is shown, and a Ctrl-D is a key like any other.
    fn silenced() -> Option<Self> {
        let found = Self::of_stdin()?;
        let mut silent = found.0.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
        // A terminal that refuses this refuses rpassword as well, which tells of it.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &silent);
        Some(found)
    }
}

impl Drop for AsFound {
    fn drop(&mut self) {
        // Nothing is left to do if the terminal has gone.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// The terminals that rustyline does not edit lines on.
fn is_plain(term: &std::ffi::OsStr) -> bool {
    ["dumb", "cons25", "emacs"].iter().any(|plain| term.eq_ignore_ascii_case(plain))
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Completion and stars.
#[derive(Default)]
struct Aid {
    choices: Vec<Choice>,
    masked: bool,
}

impl Helper for Aid {}
impl Validator for Aid {}

impl Hinter for Aid {
    type Hint = String;
}

impl Completer for Aid {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        // Lists are typed with commas, so what is completed begins after the last one.
        let typed = line.get(..pos).unwrap_or_default();
        let start = typed.rfind(',').map_or(0, |comma| comma + 1);
        let start = start + typed[start..].len() - typed[start..].trim_start().len();
        let begun = typed[start..].to_lowercase();
        let fitting = self.choices.iter().filter(|choice| choice.value.to_lowercase().starts_with(&begun));
        let pair = |choice: &Choice| {
            let gap = if choice.note.is_empty() { "" } else { "  " };
            Pair {
                display: format!("{}{gap}{}", choice.value, choice.note),
                replacement: choice.value.clone(),
            }
        };
        Ok((start, fitting.map(pair).collect()))
    }
}

impl Highlighter for Aid {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        if self.masked { Cow::Owned("*".repeat(width(line))) } else { Cow::Borrowed(line) }
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        self.masked && kind != CmdKind::MoveCursor
    }
}

/// As many stars as the text has columns, for rustyline counts on that.
fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}
