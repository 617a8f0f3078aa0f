//! The last page: the whole configuration with secrets as stars, and the way back to any part of it.

use std::path::Path;

use super::dialogue::{Mode, Question, explained};
use super::screen::NoAnswer;
use super::{Part, Wizard};

impl Wizard<'_> {
    /// Shows the configuration until it is sound and the operator wants it saved.
    pub(super) fn review(&mut self, file: &Path, sure: bool) -> Result<(), NoAnswer> {
        loop {
            let sound = self.show(file)?;
            if sound && sure {
                return Ok(());
            }
            let save = format!("Save this configuration to '{}'?", file.display());
            if sound && self.talk.confirm("--yes", None, &save, true)? == Some(true) {
                return Ok(());
            }
            let parts = self.which_parts()?;
            self.talk.mode = Mode::Correct;
            for part in parts {
                self.part(part)?;
            }
        }
    }

    /// Whether it is sound; what is wrong is shown too.
    fn show(&mut self, file: &Path) -> Result<bool, NoAnswer> {
        self.talk.say("\nThe configuration:")?;
        self.talk.say("------------------")?;
        let text = self.draft.document.redacted().to_yaml();
        self.talk.say(text.trim_end())?;
        self.talk.say("")?;
        match self.draft.document.check(file, self.env) {
            Ok(config) => {
                for warning in config.warnings {
                    self.talk.say(&format!("  Note: {warning}"))?;
                }
                Ok(true)
            }
            Err(faults) => {
                self.talk.say("This must be corrected first:")?;
                for fault in faults.iter() {
                    let place = if fault.key.is_empty() { "the file" } else { &fault.key };
                    self.talk.say(&format!("  {place}: {}", explained(&fault.message).trim_start()))?;
                }
                Ok(false)
            }
        }
    }

    fn which_parts(&mut self) -> Result<Vec<Part>, NoAnswer> {
        let names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
        let names = names.join(", ");
        let question = Question {
            prompt: format!(
                "Which part do you want to correct ({names}, or all)? Ctrl-C leaves unsaved [all]:"
            ),
            default: Some("all".to_owned()),
            ..Question::default()
        };
        let parts = self.talk.ask(&question, |answer| match answer.to_lowercase().as_str() {
            "all" => Ok(Part::ALL.to_vec()),
            word => {
                let part = Part::ALL.into_iter().find(|part| part.name() == word);
                part.map(|part| vec![part]).ok_or_else(|| format!("must be one of {names} or all"))
            }
        })?;
        Ok(parts.unwrap_or_default())
    }
}
