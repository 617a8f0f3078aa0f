//! One question at a time: a flag's answer, or a prompt that is repeated until the answer is good, or the default.
//!
//! Without a terminal nothing is asked: what has neither a flag nor a default is noted by its flag's name, so that
//! one run names all that is missing.

use super::choices::Choice;
use super::screen::{NoAnswer, Person};

/// Longer lists of choices are shown when they are asked for.
const SHOWN_CHOICES: usize = 12;
/// The answer that stands for nothing, where Enter means a default.
const NONE: &str = "none";
const HELP: &str = "?";

/// Where answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Flags, then the person.
    Ask,
    /// The person alone, as the flags have been heard already.
    Correct,
    /// Flags, then defaults; what has neither is missing.
    Fill,
    /// Flags alone; whatever they do not say stays as it is.
    Keep,
}

/// What is asked, and how.
#[derive(Default)]
pub(super) struct Question<'a> {
    /// Its flag.
    pub(super) flag: &'static str,
    /// The flag's answer.
    pub(super) given: Option<&'a str>,
    /// The whole prompt, without the blank after it.
    pub(super) prompt: String,
    /// What Enter answers.
    pub(super) default: Option<String>,
    /// Whether `none` is an answer, and Enter without a default.
    pub(super) optional: bool,
    /// Whether the answer is shown as stars.
    pub(super) secret: bool,
    /// What Tab and `?` offer.
    pub(super) choices: &'a [Choice],
}

impl Question<'_> {
    /// An answer without what a paste may bring along. A password's blanks are its own.
    fn cleaned<'t>(&self, typed: &'t str) -> &'t str {
        if self.secret { typed.trim_matches(['\r', '\n']) } else { typed.trim() }
    }
}

/// The talk: who is asked, and what is wrong with the flags.
pub(super) struct Dialogue<'p> {
    pub(super) person: Option<&'p mut dyn Person>,
    pub(super) mode: Mode,
    /// Flags without which the configuration is not complete.
    pub(super) missing: Vec<&'static str>,
    /// Flags that were refused, and why.
    pub(super) refused: Vec<String>,
    /// Whether this only finds out what is wrong with the flags.
    pub(super) rehearsal: bool,
}

impl<'p> Dialogue<'p> {
    pub(super) fn new(person: Option<&'p mut dyn Person>, mode: Mode) -> Self {
        Self { person, mode, missing: Vec::new(), refused: Vec::new(), rehearsal: false }
    }

    /// Whether prompts are shown now.
    pub(super) fn asks(&self) -> bool {
        self.person.is_some() && matches!(self.mode, Mode::Ask | Mode::Correct)
    }

    /// Whether flags are heard now.
    pub(super) fn hears_flags(&self) -> bool {
        self.mode != Mode::Correct
    }

    /// Says something to the person, if prompts are shown; without a terminal, to the log.
    pub(super) fn say(&mut self, text: &str) -> Result<(), NoAnswer> {
        if self.asks()
            && let Some(person) = &mut self.person
        {
            return person.say(&format!("{}\n", wrapped(text)));
        }
        let text = text.trim();
        if !text.is_empty() && self.person.is_none() && !self.rehearsal {
            tracing::info!("{text}");
        }
        Ok(())
    }

    /// An answer that passes the check, which also says how it is kept. `None`: leave what stands, or (noted) missing.
    pub(super) fn ask<T>(
        &mut self,
        question: &Question<'_>,
        mut check: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Option<T>, NoAnswer> {
        if let Some(given) = question.given.filter(|_| self.hears_flags()) {
            return Ok(self.settle(question.flag, check(question.cleaned(given))));
        }
        if !self.asks() {
            return Ok(match (self.mode, &question.default) {
                (Mode::Keep, _) => None,
                (Mode::Fill | Mode::Ask | Mode::Correct, Some(default)) => {
                    self.settle(question.flag, check(default))
                }
                (Mode::Fill | Mode::Ask | Mode::Correct, None) if question.optional => {
                    self.settle(question.flag, check(""))
                }
                (Mode::Fill | Mode::Ask | Mode::Correct, None) => {
                    self.missing.push(question.flag);
                    None
                }
            });
        }
        self.offer(question.choices)?;
        loop {
            let typed = self.hear(question)?;
            let answer = match (question.cleaned(&typed), &question.default) {
                (HELP, _) if !question.secret => {
                    self.help(question)?;
                    continue;
                }
                (NONE, _) if question.optional => "",
                ("", Some(default)) => default.as_str(),
                ("", None) if !question.optional => {
                    self.say("  This needs an answer.")?;
                    continue;
                }
                (answer, _) => answer,
            };
            let verdict = match answer.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
                Some(bad) => Err(format!("holds the control character {}", bad.escape_default())),
                None => check(answer),
            };
            match verdict {
                Ok(value) => return Ok(Some(value)),
                Err(message) => self.say(&explained(&message))?,
            }
        }
    }

    /// A yes or a no. `None`: leave what stands.
    pub(super) fn confirm(
        &mut self,
        flag: &'static str,
        given: Option<bool>,
        prompt: &str,
        default: bool,
    ) -> Result<Option<bool>, NoAnswer> {
        if let Some(given) = given.filter(|_| self.hears_flags()) {
            return Ok(Some(given));
        }
        if self.mode == Mode::Keep {
            return Ok(None);
        }
        let hint = if default { "[Y/n]" } else { "[y/N]" };
        let question = Question {
            flag,
            prompt: format!("{prompt} {hint}:"),
            default: Some(if default { "y" } else { "n" }.to_owned()),
            ..Question::default()
        };
        self.ask(&question, |answer| match answer.to_lowercase().as_str() {
            "y" | "yes" | "true" => Ok(true),
            "n" | "no" | "false" => Ok(false),
            _ => Err("must be y or n".to_owned()),
        })
    }

    /// A flag's fault is told together with the others.
    pub(super) fn refuse(&mut self, flag: &str, message: &str) {
        self.refused.push(format!("{flag}: {message}"));
    }

    fn settle<T>(&mut self, flag: &str, verdict: Result<T, String>) -> Option<T> {
        verdict.map_err(|message| self.refuse(flag, &message)).ok()
    }

    fn hear(&mut self, question: &Question<'_>) -> Result<String, NoAnswer> {
        let Some(person) = &mut self.person else { return Err(NoAnswer::Left) };
        let prompt = format!("{} ", question.prompt.trim_end());
        if question.secret { person.secret(&prompt) } else { person.line(&prompt, question.choices) }
    }

    fn offer(&mut self, choices: &[Choice]) -> Result<(), NoAnswer> {
        if choices.is_empty() {
            return Ok(());
        }
        self.list(choices.iter().take(SHOWN_CHOICES), choices)?;
        if choices.len() > SHOWN_CHOICES {
            let rest = choices.len() - SHOWN_CHOICES;
            self.say(&format!("  ... and {rest} more: ? lists them, Tab completes what is typed"))?;
        }
        Ok(())
    }

    fn help(&mut self, question: &Question<'_>) -> Result<(), NoAnswer> {
        if !question.choices.is_empty() {
            self.list(question.choices.iter(), question.choices)?;
        }
        let enter = match &question.default {
            Some(_) if question.secret => "Enter keeps what is set. ",
            Some(default) if default.is_empty() => "",
            Some(default) => &format!("Enter answers {default}. "),
            None if question.optional => "Enter leaves it out. ",
            None => "",
        };
        let none = if question.optional && question.default.is_some() { "none leaves it out. " } else { "" };
        self.say(&format!("  {enter}{none}The same by a flag: {}", question.flag))
    }

    fn list<'c>(&mut self, shown: impl Iterator<Item = &'c Choice>, all: &[Choice]) -> Result<(), NoAnswer> {
        let width = all.iter().map(|choice| choice.value.chars().count()).max().unwrap_or(0).min(40);
        for Choice { value, note } in shown {
            self.say(format!("  {value:width$}  {note}").trim_end())?;
        }
        Ok(())
    }
}

/// A fault, as the reader words it, in front of the prompt that is shown again.
pub(super) fn explained(message: &str) -> String {
    let mut text = String::from("  ");
    let mut characters = message.chars();
    text.extend(characters.next().into_iter().flat_map(char::to_uppercase));
    text.extend(characters);
    if !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    text
}

/// What the wizard itself says, indented, is broken between words; the document's own lines are not touched.
fn wrapped(text: &str) -> String {
    const COLUMNS: usize = 80;
    const INDENT: &str = "  ";
    let is_ours = text.starts_with(INDENT) && !text.trim_start().contains(INDENT) && !text.contains('\n');
    if !is_ours || text.chars().count() < COLUMNS {
        return text.to_owned();
    }
    let mut lines = vec![INDENT.to_owned()];
    for word in text.split_whitespace() {
        let room = lines.last().map_or(0, |line| line.chars().count() + 1 + word.chars().count());
        match lines.last_mut() {
            Some(line) if line == INDENT => line.push_str(word),
            Some(line) if room < COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(format!("{INDENT}{word}")),
        }
    }
    lines.join("\n")
}

/// The choice that was probably meant.
pub(super) fn among(choices: Option<&[Choice]>, answer: &str, what: &str, place: &str) -> Result<(), String> {
    let Some(choices) = choices else { return Ok(()) };
    if choices.iter().any(|choice| choice.value == answer) {
        return Ok(());
    }
    let near = crate::config::nearest(answer, choices.iter().map(|choice| choice.value.as_str()));
    let hint = near.map_or_else(|| "? lists them".to_owned(), |near| format!("did you mean {near}?"));
    Err(format!("AWS has no {what} '{answer}'{place}; {hint}"))
}
