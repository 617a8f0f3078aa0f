//! The wizard: asks for a configuration as ClearML's script does, prompt by prompt, and saves it.
//!
//! Every answer may come as a flag instead. Without a terminal nothing is asked, and all that is missing is told at
//! once. What AWS knows is offered and checked, where the credentials allow; an answer is judged by the rules by
//! which the configuration is read. Nothing is written before the last page is accepted.

mod account;
mod budget;
mod choices;
mod dialogue;
mod draft;
mod given;
mod image;
mod live;
mod machine;
mod machines;
mod review;
mod screen;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Document, write_private};
use dialogue::{Dialogue, Mode};
use draft::Draft;

pub use choices::{Choice, Choices, Image, NoChoices, TypeFacts, Verdict};
pub use given::{Given, GivenPool, GivenResource};
pub use live::AwsChoices;
pub use screen::{AsFound, NoAnswer, Person, Screen};

const BANNER: &str = "\
AWS Autoscaler setup wizard
---------------------------
Follow the wizard to configure your AWS auto-scaler service.
Once completed, you will be able to view and change the configuration in the clearml-server web UI.
It means there is no need to worry about typos or mistakes :)
";
/// Secrets, whatever their length.
const STARRED_USER: &str = "***************";
const STARRED_PASSWORD: &str = "***********";

/// What the wizard works with.
pub struct Setup<'a> {
    /// The answers that are there already.
    pub given: &'a Given,
    /// Where the configuration is saved, and may be already.
    pub file: PathBuf,
    /// Who answers; `None` without a terminal.
    pub person: Option<&'a mut dyn Person>,
    /// What AWS knows, by the credentials and the region of a configuration.
    pub connect: &'a dyn Fn(&Document) -> Box<dyn Choices>,
    /// Looks up environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Ctrl-C or Ctrl-D. Nothing was written.
    #[error("left without saving")]
    Left,
    /// The flags, or the file, do not do: what must be corrected, one a line.
    #[error("{0}")]
    Refused(String),
    /// The terminal does not work.
    #[error("the terminal does not work")]
    Terminal(#[source] io::Error),
    /// The configuration could not be saved.
    #[error("save {0}")]
    Save(PathBuf, #[source] io::Error),
}

impl From<NoAnswer> for Stop {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Left => Stop::Left,
            NoAnswer::Broken(error) => Stop::Terminal(error),
        }
    }
}

/// Asks, checks, shows, saves.
///
/// # Errors
/// Why there is no configuration; then the file is as it was.
pub fn configure(setup: Setup<'_>) -> Result<Document, Stop> {
    let Setup { given, file, mut person, connect, env } = setup;
    let loaded = load(&file, given, person.as_deref_mut())?;
    let mode = if loaded.is_some() { Mode::Keep } else { Mode::Fill };
    let draft = Draft::new(loaded.clone().unwrap_or_default());
    rehearse(given, draft.clone(), mode, person.is_some(), env)?;

    let attended = person.is_some();
    let mut talk = Dialogue::new(person, mode);
    if attended && loaded.is_none() {
        talk.mode = Mode::Ask;
        talk.say(BANNER)?;
    }
    let choices = connect(&draft.document);
    let sure = given.yes;
    let mut wizard =
        Wizard { talk, draft, given, connect, choices, env, zone: None, copies: BTreeMap::new() };
    for part in Part::ALL {
        wizard.part(part)?;
    }
    if attended {
        wizard.talk.mode = Mode::Correct;
        // Flags that only the answers beside them, or AWS, showed to be wrong.
        for line in std::mem::take(&mut wizard.talk.refused) {
            wizard.talk.say(&format!("  {line}"))?;
        }
        wizard.review(&file, sure)?;
    } else {
        refuse(&wizard.talk.missing, &wizard.talk.refused)?;
        wizard.draft.document.check(&file, env).map_err(|faults| Stop::Refused(faults.to_string()))?;
    }
    let document = wizard.draft.completed();
    write_private(&file, &document).map_err(|error| Stop::Save(file.clone(), error))?;
    Ok(document)
}

/// The parts of the dialogue, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Aws,
    Git,
    Docker,
    Machines,
    Scripts,
    Budget,
    Times,
}

impl Part {
    const ALL: [Self; 7] =
        [Self::Aws, Self::Git, Self::Docker, Self::Machines, Self::Scripts, Self::Budget, Self::Times];

    fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Git => "git",
            Self::Docker => "docker",
            Self::Machines => "machines",
            Self::Scripts => "scripts",
            Self::Budget => "budget",
            Self::Times => "times",
        }
    }
}

/// The talk and what has come of it so far.
struct Wizard<'a> {
    talk: Dialogue<'a>,
    draft: Draft,
    given: &'a Given,
    connect: &'a dyn Fn(&Document) -> Box<dyn Choices>,
    choices: Box<dyn Choices>,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// The zone that was typed in place of a region: a zone to begin with.
    zone: Option<String>,
    /// Copies of resources for other queues, and what they are copies of.
    copies: BTreeMap<String, String>,
}

impl Wizard<'_> {
    fn part(&mut self, part: Part) -> Result<(), NoAnswer> {
        match part {
            Part::Aws => self.aws(),
            Part::Git => self.git(),
            Part::Docker => self.docker(),
            Part::Machines => self.machines(),
            Part::Scripts => self.scripts(),
            Part::Budget => self.budget(),
            Part::Times => self.times(),
        }
    }

    /// Asks AWS anew, as credentials or region may have changed.
    fn reconnect(&mut self) {
        if !self.talk.rehearsal {
            self.choices = (self.connect)(&self.draft.document);
        }
    }

    /// Why AWS could not say something.
    fn say_trouble(&mut self) -> Result<(), NoAnswer> {
        match self.choices.trouble() {
            Some(trouble) => self.talk.say(&format!("  {trouble}")),
            None => Ok(()),
        }
    }

    /// The document's default, as long as nothing was answered: later, what was left out stays left out.
    fn first_default(&self, default: &str) -> Option<String> {
        matches!(self.talk.mode, Mode::Ask | Mode::Fill).then(|| default.to_owned())
    }
}

/// The file that is there, if it is to be loaded.
fn load<'p>(
    file: &Path,
    given: &Given,
    person: Option<&mut (dyn Person + 'p)>,
) -> Result<Option<Document>, Stop> {
    if !file.exists() {
        return Ok(None);
    }
    let attended = person.is_some();
    let mut talk = Dialogue::new(person.map(|person| person as &mut dyn Person), Mode::Fill);
    if attended {
        talk.mode = Mode::Ask;
    }
    let prompt = format!("Load the configuration in '{}'?", file.display());
    if talk.confirm("--load-config-file", given.load, &prompt, true)? != Some(true) {
        return Ok(None);
    }
    match crate::config::read_written(file) {
        Ok(document) => Ok(Some(document)),
        Err(faults) if attended => {
            talk.say(&faults.to_string())?;
            let anew = "Go on without it? It is replaced once you save.";
            if talk.confirm("--load-config-file", None, anew, false)? == Some(true) {
                return Ok(None);
            }
            Err(Stop::Refused(faults.to_string()))
        }
        Err(faults) => Err(Stop::Refused(faults.to_string())),
    }
}

/// Hears all flags, so that none is found wrong after twenty prompts.
fn rehearse(
    given: &Given,
    draft: Draft,
    mode: Mode,
    attended: bool,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Stop> {
    let mut talk = Dialogue::new(None, mode);
    talk.rehearsal = true;
    let connect = |_: &Document| -> Box<dyn Choices> { Box::new(NoChoices) };
    let mut wizard = Wizard {
        talk,
        draft,
        given,
        connect: &connect,
        choices: Box::new(NoChoices),
        env,
        zone: None,
        copies: BTreeMap::new(),
    };
    for part in Part::ALL {
        wizard.part(part)?;
    }
    let missing = if attended { &[][..] } else { &wizard.talk.missing };
    refuse(missing, &wizard.talk.refused)
}

/// All that is wrong with the flags, at once.
fn refuse(missing: &[&'static str], refused: &[String]) -> Result<(), Stop> {
    let mut lines = refused.to_vec();
    if !missing.is_empty() {
        let mut missing = missing.to_vec();
        missing.dedup();
        let mut line = format!("there is no terminal to ask on, and no answer by {}", missing.join(", "));
        if missing.contains(&"--aws-access-key-id") {
            line.push_str(" (or --use-credentials-chain in place of keys)");
        }
        lines.push(line);
    }
    if lines.is_empty() { Ok(()) } else { Err(Stop::Refused(lines.join("\n"))) }
}
