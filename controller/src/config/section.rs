//! A mapping of the file, read key by key. What is asked for becomes known: at the end every other key is a
//! fault, with the nearest known one. A key that is absent, or at fault, reads as `None`; the fault is noted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::SecretString;

use super::faults::Findings;
use super::yaml::{Entry, Kind, Node, quoted, shown};

/// A mapping of the file.
pub(super) struct Section<'a> {
    path: String,
    entries: &'a [Entry],
    /// Where the mapping begins.
    at: (usize, usize),
    known: RefCell<BTreeSet<&'static str>>,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// The document itself; `None`, and a fault, if it is no mapping.
    pub(super) fn root(node: &'a Node, findings: &'a Findings) -> Option<Self> {
        Self::of(node, String::new(), findings)
    }

    /// The mapping under a path; `None`, and a fault, if something else is there.
    pub(super) fn of(node: &'a Node, path: String, findings: &'a Findings) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            findings.fault(
                node.at,
                &path,
                format!("must be a mapping of keys to values, not {}", node.shape()),
            );
            return None;
        };
        Some(Self { path, entries, at: node.at, known: RefCell::default(), findings })
    }

    /// A key's mapping, or one without entries if the key is absent or at fault.
    pub(super) fn section_or_empty(&self, key: &'static str) -> Section<'a> {
        self.section(key).unwrap_or_else(|| Section {
            path: self.path(key),
            entries: &[],
            at: self.at,
            known: RefCell::default(),
            findings: self.findings,
        })
    }

    /// The mapping of one of its entries.
    pub(super) fn child(&self, entry: &'a Entry) -> Option<Section<'a>> {
        Section::of(&entry.value, self.path(&shown(&entry.key)), self.findings)
    }

    /// The path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Its entries, for mappings whose keys are names of the operator's choice.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// What is wrong at a key, or at the mapping itself if the key is not there.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        let at = self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.value.at);
        self.findings.fault(at, &self.path(key), message);
    }

    /// What is wrong at a path below it.
    pub(super) fn fault_at(&self, at: (usize, usize), path: &str, message: impl Into<String>) {
        self.findings.fault(at, &self.path(path), message);
    }

    /// What an operator should know of a key.
    pub(super) fn warn(&self, key: &str, message: impl Display) {
        self.findings.warn(&self.path(key), message);
    }

    /// Whether it has a value; makes the key known.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// The value, unless it is absent, null or an empty text; makes the key known.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().insert(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.value.is_absent()).then_some(&entry.value)
    }

    /// A mapping.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        Section::of(self.node(key)?, self.path(key), self.findings)
    }

    /// Text, without blanks around it.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.raw_text(key).map(|text| text.trim().to_owned())
    }

    /// Text as it stands.
    pub(super) fn raw_text(&self, key: &'static str) -> Option<String> {
        let node = self.node(key)?;
        let text = node.as_text();
        if text.is_none() {
            self.fault(key, format!("must be text, not {}", shape_and_remedy(node)));
        }
        text.map(str::to_owned)
    }

    /// Text that must not be shown.
    pub(super) fn secret(&self, key: &'static str) -> Option<SecretString> {
        self.raw_text(key).map(SecretString::from)
    }

    /// Text that passes a check; the check says what is wrong.
    pub(super) fn checked_text(
        &self,
        key: &'static str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<String> {
        let text = self.text(key)?;
        match check(&text) {
            Ok(()) => Some(text),
            Err(message) => {
                self.fault(key, message);
                None
            }
        }
    }

    /// A boolean; `false` if it is absent.
    pub(super) fn flag(&self, key: &'static str) -> bool {
        let Some(node) = self.node(key) else { return false };
        node.as_flag().unwrap_or_else(|| {
            self.fault(key, format!("must be true or false, not {}", described(node)));
            false
        })
    }

    /// A number, fractions allowed.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.node(key)?;
        let number = node.as_number().filter(|number| range.contains(number));
        if number.is_none() {
            let allowed = format!("must be a number from {} to {}", range.start(), range.end());
            self.fault(key, format!("{allowed}, not {}", described(node)));
        }
        number
    }

    /// A whole number.
    pub(super) fn whole(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let node = self.node(key)?;
        match whole(node, &range) {
            Ok(number) => Some(number),
            Err(message) => {
                self.fault(key, message);
                None
            }
        }
    }

    /// Minutes, fractions allowed.
    pub(super) fn minutes(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<Duration> {
        self.number(key, range).map(|minutes| Duration::from_secs_f64(minutes * 60.0))
    }

    /// Keys that the schema has and this version does not: setting one is an error, rather than nothing.
    pub(super) fn not_yet(&self, keys: &[&'static str]) {
        for key in keys {
            if self.has(key) {
                self.fault(key, "is not implemented in this version; leave it out");
            }
        }
    }

    /// The keys that were asked for by now.
    pub(super) fn known(&self) -> BTreeSet<&'static str> {
        self.known.borrow().clone()
    }

    /// Reports every key that nobody asked for. `elsewhere` names keys that belong to other sections.
    pub(super) fn finish(&self, elsewhere: &[(&str, &BTreeSet<&'static str>)]) {
        let known = self.known.borrow();
        for entry in self.entries.iter().filter(|entry| !known.contains(entry.key.as_str())) {
            let hint = elsewhere
                .iter()
                .find(|(_, keys)| keys.contains(entry.key.as_str()))
                .map(|(section, _)| format!("it belongs under {section}"))
                .or_else(|| {
                    nearest(&entry.key, known.iter().copied()).map(|key| format!("did you mean {key}?"))
                });
            let hint = hint.unwrap_or_else(|| format!("known here: {}", list(&known)));
            self.findings.fault(entry.at, &self.path(&shown(&entry.key)), format!("unknown key; {hint}"));
        }
    }
}

/// A whole number within a range.
pub(super) fn whole(node: &Node, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let number = node.as_number().filter(|number| number.fract() == 0.0);
    let within =
        number.filter(|number| (f64::from(*range.start())..=f64::from(*range.end())).contains(number));
    match within {
        // Whole and within u32 by the two filters above.
        Some(number) => Ok(number as u32),
        None => Err(format!(
            "must be a whole number from {} to {}, not {}",
            range.start(),
            range.end(),
            described(node)
        )),
    }
}

/// Of the known names, the one that was probably meant.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    known
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_lowercase()), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5)
        .map(|(_, known)| known)
}

/// What stands there, with its text if it is a scalar. Not for keys that may hold a secret.
pub(super) fn described(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar { text, .. } => quoted(text),
        Kind::List(_) | Kind::Map(_) => node.shape().to_owned(),
    }
}

fn shape_and_remedy(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar { .. } => format!("{}; put it in quotes", node.shape()),
        Kind::List(_) | Kind::Map(_) => node.shape().to_owned(),
    }
}

fn list(names: &BTreeSet<&'static str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}
