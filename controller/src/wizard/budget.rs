//! The budget: queue by queue, which machine types and how many of each.
//!
//! A resource may stand in one queue only, since workers are told apart by it. So a second queue gets a copy of it
//! under the name `RESOURCE_QUEUE`, as ClearML's script has it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Wizard;
use super::dialogue::{Mode, Question};
use super::draft::{QUEUES, number, text};
use super::given::GivenPool;
use super::machines::Fate;
use super::screen::NoAnswer;

const FLAG: &str = "--budget";

/// A queue and its lines, resource and maximum.
type Queue = (String, Vec<(String, Value)>);

impl Wizard<'_> {
    /// `queues`.
    pub(super) fn budget(&mut self) -> Result<(), NoAnswer> {
        let given = self.given;
        if self.talk.hears_flags() && !given.budget.is_empty() {
            return self.given_budget(&given.budget);
        }
        if !self.talk.asks() {
            if self.talk.mode != Mode::Keep && self.queues().is_empty() {
                self.talk.missing.push(FLAG);
            }
            return Ok(());
        }
        self.talk.say("\nDefine the machines budget:")?;
        self.talk.say("-----------------------------\n")?;
        let mut queues: Vec<Queue> = Vec::new();
        let stand = self.queues();
        // What stands counts as used from the start, so that a change of the first does not take from the second.
        let mut rest: Vec<Queue> = stand.clone();
        for (name, lines) in stand {
            rest.remove(0);
            match self.fate(&format!("the queue '{name}' ({})", described(&lines)))? {
                Fate::Keep => queues.push((name, lines)),
                Fate::Remove => {}
                Fate::Change => {
                    let others: Vec<Queue> = queues.iter().chain(&rest).cloned().collect();
                    let lines = self.queue(&name, &others)?;
                    queues.push((name, lines));
                }
            }
        }
        while queues.is_empty() || self.another("Do you wish to define another queue?")? {
            let name = self.queue_name(&queues)?;
            let lines = self.queue(&name, &queues)?;
            queues.push((name, lines));
        }
        self.set_queues(queues);
        Ok(())
    }

    fn queue_name(&mut self, others: &[Queue]) -> Result<String, NoAnswer> {
        let question = Question {
            flag: FLAG,
            prompt: "Select a queue name (for example: 'aws_4gpu_machines') :".to_owned(),
            ..Question::default()
        };
        let draft = &self.draft;
        let name = self.talk.ask(&question, |answer| {
            draft.check_budget(answer, &json!(1))?;
            if others.iter().any(|(other, _)| other == answer) {
                return Err(format!("the queue '{answer}' is in the budget already"));
            }
            Ok(answer.to_owned())
        })?;
        name.ok_or(NoAnswer::Left)
    }

    /// The lines of a queue.
    fn queue(&mut self, queue: &str, others: &[Queue]) -> Result<Vec<(String, Value)>, NoAnswer> {
        let mut lines: Vec<(String, Value)> = Vec::new();
        loop {
            let names: Vec<String> = self.originals(&lines);
            let Some(only) = names.first() else { return Ok(lines) };
            if !lines.is_empty() && !self.another("Do you wish to add another instance type to queue?")? {
                return Ok(lines);
            }
            let only = (names.len() == 1).then(|| only.clone());
            let resource = self.pick(&names, only)?;
            let maximum = self.maximum(&resource)?;
            let name = self.own_name(&resource, queue, others)?;
            lines.push((name, maximum));
        }
    }

    fn pick(&mut self, names: &[String], only: Option<String>) -> Result<String, NoAnswer> {
        let shown = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let question = Question {
            flag: FLAG,
            prompt: format!("Select a instance type to attach to the queue [{shown}]:"),
            default: only,
            ..Question::default()
        };
        let name = self.talk.ask(&question, |answer| {
            // The prompt shows the names in quotes, so they may be typed with them.
            let name = answer.trim_matches('\'');
            if names.iter().any(|known| known == name) {
                return Ok(name.to_owned());
            }
            let near = crate::config::nearest(name, names.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            Err(format!("must be one of {shown}, not '{answer}'{hint}"))
        })?;
        name.ok_or(NoAnswer::Left)
    }

    fn maximum(&mut self, resource: &str) -> Result<Value, NoAnswer> {
        let question = Question {
            flag: FLAG,
            prompt: format!(
                "Enter maximum number of '{resource}' instances to spin simultaneously (example: 3) :"
            ),
            ..Question::default()
        };
        let draft = &self.draft;
        let maximum = self.talk.ask(&question, |answer| {
            let maximum = number(answer);
            draft.check_budget("queue", &maximum).map(|()| maximum)
        })?;
        maximum.ok_or(NoAnswer::Left)
    }

    /// The resource's own name, or that of its copy if another queue has it already.
    fn own_name(&mut self, resource: &str, queue: &str, others: &[Queue]) -> Result<String, NoAnswer> {
        let taken =
            others.iter().any(|(other, lines)| other != queue && lines.iter().any(|(n, _)| n == resource));
        if !taken {
            return Ok(resource.to_owned());
        }
        let mut machines = self.draft.resources();
        let used: BTreeSet<&str> =
            others.iter().flat_map(|(_, lines)| lines).map(|(name, _)| name.as_str()).collect();
        let copy = free_name(resource, queue, |name| {
            used.contains(name)
                || machines.iter().any(|(known, _)| known == name)
                    && self.copies.get(name).is_none_or(|original| original != resource)
        });
        if !machines.iter().any(|(name, _)| *name == copy)
            && let Some(fields) =
                machines.iter().find(|(name, _)| name == resource).map(|(_, fields)| fields.clone())
        {
            machines.push((copy.clone(), fields));
            self.draft.set_resources(machines);
        }
        self.copies.insert(copy.clone(), resource.to_owned());
        self.talk.say(&format!(
            "  '{resource}' serves another queue already, so this queue gets a copy of it, named '{copy}'."
        ))?;
        Ok(copy)
    }

    /// The machine types that a queue with these lines may still get.
    fn originals(&self, lines: &[(String, Value)]) -> Vec<String> {
        let original = |name: &str| self.copies.get(name).map_or(name, String::as_str).to_owned();
        let attached: BTreeSet<String> = lines.iter().map(|(name, _)| original(name)).collect();
        let names = self.draft.resources().into_iter().map(|(name, _)| name);
        names.filter(|name| !self.copies.contains_key(name) && !attached.contains(name)).collect()
    }

    fn given_budget(&mut self, given: &[GivenPool]) -> Result<(), NoAnswer> {
        let mut queues = self.queues();
        queues.retain(|(name, _)| !given.iter().any(|pool| pool.queue == *name));
        for GivenPool { queue, resource, maximum } in given {
            let maximum = number(maximum);
            if let Err(message) = self.draft.check_budget(queue, &maximum) {
                self.talk.refuse(FLAG, &format!("{queue}={resource}: {message}"));
                continue;
            }
            let lines = queues.iter().find(|(name, _)| name == queue).map(|(_, lines)| lines.clone());
            let mut lines = lines.unwrap_or_default();
            if !self.originals(&lines).contains(resource) {
                // Without any resource it is the resources that are missing.
                if !self.draft.resources().is_empty() {
                    let known = self.originals(&lines).join(", ");
                    let message = format!("{queue}={resource}: '{resource}' is not among {known}");
                    self.talk.refuse(FLAG, &message);
                }
                continue;
            }
            let name = self.own_name(resource, queue, &queues)?;
            lines.push((name, maximum));
            match queues.iter_mut().find(|(name, _)| name == queue) {
                Some(known) => known.1 = lines,
                None => queues.push((queue.clone(), lines)),
            }
        }
        self.set_queues(queues);
        Ok(())
    }

    fn queues(&self) -> Vec<Queue> {
        let Some(Value::Object(queues)) = self.draft.document.configurations.get(QUEUES) else {
            return Vec::new();
        };
        let line = |line: &Value| {
            let [name, maximum] = line.as_array()?.as_slice() else { return None };
            Some((text(name)?, maximum.clone()))
        };
        let lines = |lines: &Value| lines.as_array().into_iter().flatten().filter_map(line).collect();
        queues.iter().map(|(name, value)| (name.clone(), lines(value))).collect()
    }

    fn write_queues(&mut self, queues: Vec<Queue>) {
        let written: Map<String, Value> = queues
            .into_iter()
            .map(|(queue, lines)| (queue, lines.into_iter().map(|(name, max)| json!([name, max])).collect()))
            .collect();
        self.draft.document.configurations.insert(QUEUES.to_owned(), Value::Object(written));
    }

    /// The finished budget. A copy that no queue uses was made for one that is no more, and goes.
    fn set_queues(&mut self, queues: Vec<Queue>) {
        let used: BTreeSet<String> =
            queues.iter().flat_map(|(_, lines)| lines).map(|(name, _)| name.clone()).collect();
        self.write_queues(queues);
        let mut machines = self.draft.resources();
        machines.retain(|(name, _)| !self.copies.contains_key(name) || used.contains(name));
        self.copies.retain(|name, _| used.contains(name));
        self.draft.set_resources(machines);
    }

    /// A machine type has gone: so have its lines in the budget.
    pub(super) fn forget(&mut self, resource: &str) {
        let mut queues = self.queues();
        for (_, lines) in &mut queues {
            lines.retain(|(name, _)| name != resource);
        }
        queues.retain(|(_, lines)| !lines.is_empty());
        self.write_queues(queues);
    }

    /// A machine type has a new name.
    pub(super) fn rename(&mut self, old: &str, new: &str) {
        let mut queues = self.queues();
        for (name, _) in queues.iter_mut().flat_map(|(_, lines)| lines) {
            if name == old {
                new.clone_into(name);
            }
        }
        self.write_queues(queues);
        if let Some(original) = self.copies.remove(old) {
            self.copies.insert(new.to_owned(), original);
        }
        for original in self.copies.values_mut().filter(|original| *original == old) {
            new.clone_into(original);
        }
    }
}

/// `RESOURCE_QUEUE`, in characters that a resource's name may have, and not taken.
fn free_name(resource: &str, queue: &str, taken: impl Fn(&str) -> bool) -> String {
    const LONGEST: usize = 60;
    let clean = |c: char| if matches!(c, ':' | '/') || c.is_control() { '_' } else { c };
    let mut name: String = format!("{resource}_{queue}").chars().map(clean).collect();
    while name.len() > LONGEST {
        name.pop();
    }
    let name = name.trim_end().to_owned();
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(name)
}

fn described(lines: &[(String, Value)]) -> String {
    lines.iter().map(|(name, max)| format!("{name}: {max}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_named_after_resource_and_queue_within_the_rules_for_names() {
        assert_eq!(free_name("t4", "gpu queue", |_| false), "t4_gpu queue");
        assert_eq!(free_name("t4", "a/b:c", |_| false), "t4_a_b_c");
        assert_eq!(free_name("t4", "q", |name| name == "t4_q"), "t4_q_2");
        assert_eq!(free_name("t4", &"q".repeat(90), |_| false).len(), 60);
    }
}
