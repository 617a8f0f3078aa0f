//! A YAML document as a tree with positions. Scalars keep their text, so that the reader of a key decides
//! what it is: a password of digits stays as it was written. Anchors, aliases and `<<` are resolved, as
//! PyYAML writes the first two for a list that two resources share.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

/// Nodes of a document, aliases unrolled; more is a mistake or a bomb.
const NODE_LIMIT: usize = 200_000;
const DEPTH_LIMIT: usize = 64;

/// A node and where it begins: line and column, both from 1.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: (usize, usize),
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum Kind {
    /// `plain` if it stands without quotes, and so may be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the file's order, each key once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: (usize, usize),
    pub(super) value: Node,
}

/// Why a document is no tree.
pub(super) struct Malformed {
    pub(super) at: (usize, usize),
    pub(super) message: String,
}

/// Takes a position, a key path and a message.
type Complain<'a> = dyn FnMut((usize, usize), &str, String) + 'a;

/// The document's root; `None` if there is nothing in it. Keys that stand twice and tags that mean nothing
/// here are reported through `complain`, and the document is read on.
pub(super) fn parse(text: &str, complain: &mut Complain<'_>) -> Result<Option<Node>, Malformed> {
    let mut builder =
        Builder { open: Vec::new(), anchors: HashMap::new(), root: None, documents: 0, nodes: 0, complain };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.take(event, position(span))?;
    }
    Ok(builder.root)
}

struct Builder<'a> {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    complain: &'a mut Complain<'a>,
}

/// A list or mapping whose end has not come.
struct Open {
    at: (usize, usize),
    anchor: usize,
    body: Body,
}

enum Body {
    List(Vec<Node>),
    /// Entries as they come, merged ones apart, and the key that waits for its value.
    Map {
        entries: Vec<Entry>,
        merged: Vec<Entry>,
        key: Option<(String, (usize, usize), bool)>,
    },
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, at: (usize, usize)) -> Result<(), Malformed> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(malformed(at, "a second document begins; the file must hold one"));
                }
                Ok(())
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    self.count(size(&node), at)?;
                    self.put(Node { at, kind: node.kind })
                }
                None => Err(malformed(at, "an alias stands within what it names")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, at)?;
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), at);
                let node = Node { at, kind: Kind::Scalar { text: text.into_owned(), plain } };
                self.remember(anchor, &node);
                self.put(node)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq", "python/tuple", "python/list"], at);
                self.begin(at, anchor, Body::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map", "python/dict"], at);
                self.begin(at, anchor, Body::Map { entries: Vec::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(&mut self, at: (usize, usize), anchor: usize, body: Body) -> Result<(), Malformed> {
        self.count(1, at)?;
        if self.open.len() == DEPTH_LIMIT {
            return Err(malformed(at, "nested too deeply"));
        }
        if let Some(Open { body: Body::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(malformed(at, "a list or a mapping stands where a key belongs"));
        }
        self.open.push(Open { at, anchor, body });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let Some(Open { at, anchor, body }) = self.open.pop() else { return Ok(()) };
        let kind = match body {
            Body::List(items) => Kind::List(items),
            Body::Map { mut entries, merged, .. } => {
                for entry in merged {
                    if !entries.iter().any(|own| own.key == entry.key) {
                        entries.push(entry);
                    }
                }
                Kind::Map(entries)
            }
        };
        let node = Node { at, kind };
        self.remember(anchor, &node);
        self.put(node)
    }

    fn put(&mut self, node: Node) -> Result<(), Malformed> {
        match self.open.last_mut().map(|open| &mut open.body) {
            None => self.root = Some(node),
            Some(Body::List(items)) => items.push(node),
            Some(Body::Map { entries, merged, key }) => match key.take() {
                None => match node.kind {
                    Kind::Scalar { text, plain } => *key = Some((text, node.at, plain)),
                    Kind::List(_) | Kind::Map(_) => {
                        return Err(malformed(node.at, "a list or a mapping stands where a key belongs"));
                    }
                },
                Some((name, at, true)) if name == "<<" => merged.extend(merge(node, at)?),
                Some((key, at, _)) => match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => {
                        let message = format!("stands twice; first in line {}", first.at.0);
                        let path = self.path(Some(&key));
                        (self.complain)(at, &path, message);
                    }
                    None => entries.push(Entry { key, at, value: node }),
                },
            },
        }
        Ok(())
    }

    /// Where the builder is, by the keys and indices that are open, and a last key.
    fn path(&self, last: Option<&str>) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.body {
                Body::List(items) => path.push_str(&format!("[{}]", items.len())),
                Body::Map { key, .. } => {
                    let key = key.as_ref().map(|(key, ..)| key.as_str()).or(last);
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(&key.map_or_else(String::new, |key| format!("{dot}{}", shown(key))));
                }
            }
        }
        path
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn count(&mut self, nodes: usize, at: (usize, usize)) -> Result<(), Malformed> {
        self.nodes += nodes;
        if self.nodes > NODE_LIMIT {
            return Err(malformed(at, "the document is too large"));
        }
        Ok(())
    }

    /// Whether a tag makes the scalar text.
    fn is_text(&mut self, tag: Option<&Tag>, at: (usize, usize)) -> bool {
        let text = ["str", "python/str", "python/unicode"];
        let plain =
            ["int", "float", "bool", "null", "python/int", "python/float", "python/bool", "python/none"];
        match tag {
            Some(tag) if text.contains(&short(tag)) => true,
            other => {
                self.check_tag(other, &plain, at);
                false
            }
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], at: (usize, usize)) {
        if let Some(tag) = tag.filter(|tag| !known.contains(&short(tag))) {
            let tag = quoted(&format!("!!{}", short(tag)));
            let path = self.path(None);
            (self.complain)(at, &path, format!("the tag {tag} means nothing here; leave it out"));
        }
    }
}

/// Entries of `<<`: a mapping, or a list of mappings of which the earlier ones win.
fn merge(node: Node, at: (usize, usize)) -> Result<Vec<Entry>, Malformed> {
    let wrong = || malformed(at, "<< takes a mapping or a list of mappings");
    match node.kind {
        Kind::Map(entries) => Ok(entries),
        Kind::List(items) => {
            let mut merged: Vec<Entry> = Vec::new();
            for item in items {
                let Kind::Map(entries) = item.kind else { return Err(wrong()) };
                merged.extend(entries);
            }
            let mut seen = BTreeMap::new();
            merged.retain(|entry| seen.insert(entry.key.clone(), ()).is_none());
            Ok(merged)
        }
        Kind::Scalar { .. } => Err(wrong()),
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

/// A key as it may stand in a path.
pub(super) fn shown(key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
    if !key.is_empty() && key.chars().count() <= 60 && key.chars().all(plain) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

fn short(tag: &Tag) -> &str {
    &tag.suffix
}

fn position(span: Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

fn malformed(at: (usize, usize), message: &str) -> Malformed {
    Malformed { at, message: message.to_owned() }
}

fn scan_error(error: &ScanError) -> Malformed {
    let at = (error.marker().line(), error.marker().col() + 1);
    Malformed { at, message: format!("not YAML: {}", error.info()) }
}

/// A name of the file's, fit for a message: at most 60 characters, control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("'{}'", short.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""))
}
