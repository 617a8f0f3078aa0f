//! The budget: `queues: {QUEUE: [[RESOURCE, MAX], ...]}`, in the file's order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use planner::{Pool, QueueName, ResourceName};

use super::resources::Read;
use super::section::{Section, described, nearest, whole};
use super::yaml::{Entry, Kind, Node, quoted, shown};

/// Instances of one pool. Zero launches none.
const MAXIMUM: RangeInclusive<u32> = 0..=10_000;
/// ClearML takes no shorter names; AWS takes no longer tags.
const QUEUE_NAME: RangeInclusive<usize> = 3..=256;

/// All pools; what is at fault is reported and left out.
pub(super) fn pools(configurations: &Section<'_>, resources: &Read<'_>) -> Vec<Pool> {
    let Some(queues) = configurations.section("queues") else {
        if !configurations.has("queues") {
            configurations.fault("queues", "is missing; write {QUEUE: [[RESOURCE, MAX], ...]}");
        }
        return Vec::new();
    };
    if queues.entries().is_empty() {
        configurations.fault("queues", "names no queue");
    }
    let mut budget = Budget { section: &queues, resources, used: BTreeMap::new(), pools: Vec::new() };
    for entry in queues.entries() {
        budget.queue(entry);
    }
    let Budget { used, pools, .. } = budget;
    for name in resources.names.iter().filter(|name| !used.contains_key(name.as_str())) {
        let path = format!("resource_configurations.{}", shown(name));
        configurations.warn(&path, "stands in no queue, so nothing is launched of it");
    }
    pools
}

struct Budget<'a> {
    section: &'a Section<'a>,
    resources: &'a Read<'a>,
    /// Resources that stand in a queue, with that queue.
    used: BTreeMap<&'a str, &'a str>,
    pools: Vec<Pool>,
}

impl<'a> Budget<'a> {
    fn queue(&mut self, entry: &'a Entry) {
        let path = shown(&entry.key);
        let length = entry.key.chars().count();
        if !QUEUE_NAME.contains(&length) || entry.key.trim() != entry.key {
            let wanted = format!(
                "a queue's name has {} to {} characters and no blanks around it",
                QUEUE_NAME.start(),
                QUEUE_NAME.end()
            );
            self.section.fault_at(entry.at, &path, wanted);
        }
        let Kind::List(lines) = &entry.value.kind else {
            let message = format!("must be a list of [RESOURCE, MAX], not {}", described(&entry.value));
            self.section.fault_at(entry.value.at, &path, message);
            return;
        };
        if lines.is_empty() {
            self.section.fault_at(entry.value.at, &path, "lists no resource; write [[RESOURCE, MAX], ...]");
        }
        for (index, line) in lines.iter().enumerate() {
            self.line(&entry.key, &format!("{path}[{index}]"), line);
        }
    }

    fn line(&mut self, queue: &'a str, path: &str, line: &'a Node) {
        let parts = match &line.kind {
            Kind::List(parts) => parts.as_slice(),
            Kind::Scalar { .. } | Kind::Map(_) => &[],
        };
        let [resource, maximum] = parts else {
            self.section.fault_at(line.at, path, "must be [RESOURCE, MAX], two values");
            return;
        };
        let maximum = whole(maximum, &MAXIMUM)
            .map_err(|message| self.section.fault_at(maximum.at, &format!("{path}[1]"), message));
        let path = format!("{path}[0]");
        let Some(name) = resource.as_text().map(str::trim) else {
            let message = format!("must be a resource's name, not {}", resource.shape());
            self.section.fault_at(resource.at, &path, message);
            return;
        };
        if !self.resources.names.iter().any(|known| known == name) {
            let near = nearest(name, self.resources.names.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message = format!("{} is not in resource_configurations{hint}", quoted(name));
            self.section.fault_at(resource.at, &path, message);
            return;
        }
        if let Some(first) = self.used.insert(name, queue) {
            let message = format!(
                "{} stands in queue {} already; a resource may stand in one queue only, once: copy it under another name",
                quoted(name),
                quoted(first)
            );
            self.section.fault_at(resource.at, &path, message);
            return;
        }
        if let Ok(maximum) = maximum {
            let (queue, resource) = (QueueName::from(queue), ResourceName::from(name));
            self.pools.push(Pool { queue, resource, maximum });
        }
    }
}
