//! The machine types: as many as the operator wants, each with a name for the budget.

use super::Wizard;
use super::dialogue::{Mode, Question};
use super::draft::{Fields, text};
use super::given::GivenResource;
use super::screen::NoAnswer;

const FLAG: &str = "--resource";

/// What becomes of something that stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Change,
    Remove,
}

impl Wizard<'_> {
    /// `resource_configurations`.
    pub(super) fn machines(&mut self) -> Result<(), NoAnswer> {
        let given = self.given;
        if self.talk.hears_flags() && !given.resources.is_empty() {
            return self.given_machines(&given.resources);
        }
        if !self.talk.asks() {
            if self.talk.mode != Mode::Keep && self.draft.resources().is_empty() {
                self.talk.missing.push(FLAG);
            }
            return Ok(());
        }
        self.talk.say("\nConfigure the machine types for the auto-scaler:")?;
        self.talk.say("------------------------------------------------")?;
        let mut machines: Vec<(String, Fields)> = Vec::new();
        let stand = self.draft.resources().into_iter().filter(|(name, _)| !self.copies.contains_key(name));
        for (name, fields) in stand.collect::<Vec<_>>() {
            match self.fate(&format!("'{name}' ({})", described(&fields)))? {
                Fate::Keep => machines.push((name, fields)),
                Fate::Remove => self.forget(&name),
                Fate::Change => {
                    let fields = self.machine(Some(&fields))?;
                    let new = self.machine_name(&machines, Some(&name))?;
                    if new != name {
                        self.rename(&name, &new);
                    }
                    machines.push((new, fields));
                }
            }
        }
        while machines.is_empty() || self.another("Define another instance type?")? {
            let fields = self.machine(None)?;
            let name = self.machine_name(&machines, None)?;
            machines.push((name, fields));
        }
        self.renew_copies(&mut machines);
        self.draft.set_resources(machines);
        Ok(())
    }

    /// Copies for other queues follow what they are copies of.
    fn renew_copies(&mut self, machines: &mut Vec<(String, Fields)>) {
        for (copy, original) in self.copies.clone() {
            match machines.iter().find(|(name, _)| *name == original).map(|(_, fields)| fields.clone()) {
                Some(fields) => machines.push((copy, fields)),
                None => {
                    self.forget(&copy);
                    self.copies.remove(&copy);
                }
            }
        }
    }

    fn given_machines(&mut self, given: &[GivenResource]) -> Result<(), NoAnswer> {
        let mut machines = self.draft.resources();
        for GivenResource { name, fields: asked } in given {
            if let Err(message) = self.draft.check_resource_name(name) {
                self.talk.refuse(FLAG, &message);
                continue;
            }
            let known = machines.iter().position(|(known, _)| known == name);
            let fields = match known {
                Some(index) => {
                    let mut fields = machines[index].1.clone();
                    fields.extend(asked.clone());
                    fields.retain(|_, value| text(value).is_some() || value.is_object());
                    fields
                }
                None => self.default_fields(asked),
            };
            for (key, value) in &fields {
                let verdict = self.draft.check_field(&fields, key, value);
                let offer = self.offer(key, &fields);
                if let Err(message) = verdict.and_then(|()| offer.check(&text(value).unwrap_or_default())) {
                    self.talk.refuse(FLAG, &format!("{name}: {key}: {message}"));
                }
            }
            match known {
                Some(index) => machines[index].1 = fields,
                None => machines.push((name.clone(), fields)),
            }
        }
        self.draft.set_resources(machines);
        Ok(())
    }

    fn machine_name(&mut self, others: &[(String, Fields)], known: Option<&str>) -> Result<String, NoAnswer> {
        let shown = known.map_or_else(String::new, |known| format!(" ['{known}']"));
        let question = Question {
            flag: FLAG,
            prompt: format!(
                "Select a name for this instance type (used in the budget section) For example 'aws4gpu'{shown}:"
            ),
            default: known.map(str::to_owned),
            ..Question::default()
        };
        let (draft, copies) = (&self.draft, &self.copies);
        let name = self.talk.ask(&question, |answer| {
            draft.check_resource_name(answer)?;
            if others.iter().any(|(other, _)| other == answer) || copies.contains_key(answer) {
                return Err(format!("'{answer}' is the name of another instance type already"));
            }
            Ok(answer.to_owned())
        })?;
        name.ok_or(NoAnswer::Left)
    }

    /// Asks whether something is kept, changed or removed.
    pub(super) fn fate(&mut self, what: &str) -> Result<Fate, NoAnswer> {
        let question = Question {
            prompt: format!("Keep, change or remove {what} [keep]:"),
            default: Some("keep".to_owned()),
            ..Question::default()
        };
        let fate = self.talk.ask(&question, |answer| match answer.to_lowercase().as_str() {
            "keep" | "k" => Ok(Fate::Keep),
            "change" | "c" => Ok(Fate::Change),
            "remove" | "r" => Ok(Fate::Remove),
            _ => Err("must be keep, change or remove".to_owned()),
        })?;
        Ok(fate.unwrap_or(Fate::Keep))
    }

    /// Asks whether there is one more.
    pub(super) fn another(&mut self, prompt: &str) -> Result<bool, NoAnswer> {
        Ok(self.talk.confirm(FLAG, None, prompt, false)? == Some(true))
    }
}

/// A machine type in a few words.
fn described(fields: &Fields) -> String {
    let of = |key: &str| fields.get(key).and_then(text);
    let market = if of("is_spot").as_deref() == Some("true") { "spot" } else { "on demand" };
    let words = [of("instance_type"), Some(market.to_owned()), of("subnet_id").or(of("availability_zone"))];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
