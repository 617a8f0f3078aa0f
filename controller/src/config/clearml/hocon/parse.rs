//! The reader's grammar: text in, fields out, or the first place that is not understood.

use std::path::Path;

use super::{DEPTH_LIMIT, Field, ParseError, Piece, Value};

/// Reads a whole text.
pub(super) fn document(text: &str, directory: Option<&Path>, depth: usize) -> Result<Vec<Field>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, position: 0, directory, depth };
    parser.skip_blank();
    if !parser.eat("{") {
        return parser.fields(None);
    }
    let fields = parser.fields(Some(parser.position - 1))?;
    parser.skip_blank();
    if parser.rest().is_empty() { Ok(fields) } else { Err(parser.fault("nothing may follow the last brace")) }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    position: usize,
    directory: Option<&'a Path>,
    depth: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, token: &str) -> bool {
        let here = self.rest().starts_with(token);
        if here {
            self.position += token.len();
        }
        here
    }

    fn eat_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.position += end;
        &rest[..end]
    }

    fn at_comment(&self) -> bool {
        self.rest().starts_with('#') || self.rest().starts_with("//")
    }

    /// White space, line ends and comments.
    fn skip_space(&mut self) {
        loop {
            self.eat_while(char::is_whitespace);
            if !self.at_comment() {
                return;
            }
            self.eat_while(|c| c != '\n');
        }
    }

    /// The same, and commas: what stands between fields.
    fn skip_blank(&mut self) {
        self.skip_space();
        while self.eat(",") {
            self.skip_space();
        }
    }

    fn fault(&self, message: &str) -> ParseError {
        self.fault_at(self.position, message)
    }

    fn fault_at(&self, position: usize, message: &str) -> ParseError {
        let before = &self.text[..position];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let at = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        ParseError { at, message: message.to_owned() }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_LIMIT {
            return Err(self.fault("objects, lists and includes are nested too deeply"));
        }
        self.depth += 1;
        let outcome = inner(self);
        self.depth -= 1;
        outcome
    }

    /// Up to the closing brace of the one at `open`, or to the end of the text.
    fn fields(&mut self, open: Option<usize>) -> Parsed<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            self.skip_blank();
            match (self.peek(), open) {
                (None, None) => return Ok(fields),
                (None, Some(open)) => return Err(self.fault_at(open, "this brace is never closed")),
                (Some('}'), Some(_)) => {
                    self.take();
                    return Ok(fields);
                }
                (Some('}'), None) => return Err(self.fault("this brace was never opened")),
                (Some(_), _) => match self.include()? {
                    Some(included) => fields.extend(included),
                    None => fields.push(self.field()?),
                },
            }
        }
    }

    fn field(&mut self) -> Parsed<Field> {
        let path = self.key()?;
        self.skip_space();
        let value = if self.peek() == Some('{') || self.eat("+=") || self.eat(":") || self.eat("=") {
            self.skip_space();
            self.value()?
        } else {
            return Err(self.fault("expected `:`, `=` or `{` after a key"));
        };
        let nest = |value, key| Value::Object(vec![Field { key, value }]);
        let mut names = path.into_iter();
        let key = names.next().unwrap_or_default();
        Ok(Field { key, value: names.rev().fold(value, nest) })
    }

    /// `a.b."c.d"`
    fn key(&mut self) -> Parsed<Vec<String>> {
        let start = self.position;
        let mut names = vec![String::new()];
        loop {
            let plain = self.eat_while(|c| {
                !matches!(c, '"' | '.' | ':' | '=' | '+' | ',' | '{' | '}' | '[' | ']' | '#' | '\n')
            });
            let Some(name) = names.last_mut() else { return Ok(names) };
            name.push_str(plain.trim());
            if self.peek() == Some('"') {
                name.push_str(&self.quoted()?);
            } else if self.eat(".") {
                names.push(String::new());
            } else if names == [""] {
                return Err(self.fault_at(start, "expected a key"));
            } else {
                return Ok(names);
            }
        }
    }

    /// Up to the end of the line, a comma, a comment, or what closes the object or list around it.
    fn value(&mut self) -> Parsed<Value> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut object: Option<Vec<Field>> = None;
        let mut list = false;
        loop {
            let gap = self.eat_while(|c| matches!(c, ' ' | '\t'));
            let start = self.position;
            if self.at_comment() || matches!(self.peek(), None | Some('\n' | '\r' | ',' | '}' | ']')) {
                break;
            }
            let piece = match self.peek() {
                Some('{') => {
                    self.take();
                    let fields = self.deeper(|parser| parser.fields(Some(start)))?;
                    object.get_or_insert_default().extend(fields);
                    continue;
                }
                Some('[') => {
                    self.take();
                    self.deeper(|parser| parser.list(start))?;
                    list = true;
                    continue;
                }
                Some('"') => Piece::Text(self.quoted()?),
                Some('$') if self.rest().starts_with("${") => self.substitution()?,
                _ if self.eat("\\\n") || self.eat("\\\r\n") => continue,
                _ => Piece::Text(self.word().to_owned()),
            };
            if !pieces.is_empty() && !gap.is_empty() {
                pieces.push(Piece::Text(gap.to_owned()));
            }
            pieces.push(piece);
        }
        Ok(match (object, pieces.as_slice()) {
            (Some(fields), _) => Value::Object(fields),
            (None, _) if list => Value::List,
            (None, [Piece::Text(word)]) if word == "null" => Value::Null,
            (None, _) => Value::Text(pieces),
        })
    }

    fn list(&mut self, open: usize) -> Parsed<()> {
        loop {
            self.skip_blank();
            match self.peek() {
                None => return Err(self.fault_at(open, "this bracket is never closed")),
                Some(']') => {
                    self.take();
                    return Ok(());
                }
                Some('}') => return Err(self.fault("a brace closes what a bracket opened")),
                Some(_) => self.value().map(|_| ())?,
            }
        }
    }

    /// Unlike the book's, it may hold `:` and `//`, as addresses do.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let stops = |(at, c): (usize, char)| {
            c.is_whitespace()
                || matches!(c, '"' | '{' | '}' | '[' | ']' | ',' | '#')
                || (c == '$' && at > 0 && rest[at..].starts_with("${"))
        };
        // Whatever it begins with has been looked at: one character at least is taken.
        let end = rest.char_indices().skip(1).find(|&it| stops(it)).map_or(rest.len(), |(at, _)| at);
        self.position += end;
        &rest[..end]
    }

    fn substitution(&mut self) -> Parsed<Piece> {
        let start = self.position;
        self.position += "${".len();
        let optional = self.eat("?");
        let name = self.eat_while(|c| !matches!(c, '}' | '\n'));
        if !self.eat("}") {
            return Err(self.fault_at(start, "this substitution is never closed"));
        }
        let path = name.split('.').map(|part| part.trim().trim_matches('"').to_owned()).collect();
        Ok(Piece::Substitution { path, optional })
    }

    fn quoted(&mut self) -> Parsed<String> {
        let start = self.position;
        if self.eat("\"\"\"") {
            let rest = self.rest();
            let Some(end) = rest.find("\"\"\"") else {
                return Err(self.fault_at(start, "these quotes are never closed"));
            };
            // Further quotes belong to the text.
            let more = rest[end + 3..].chars().take_while(|c| *c == '"').count();
            self.position += end + more + 3;
            return Ok(rest[..end + more].to_owned());
        }
        self.take();
        let mut text = String::new();
        loop {
            match self.take() {
                Some('"') => return Ok(text),
                Some('\\') => self.escape(&mut text),
                None | Some('\n') => return Err(self.fault_at(start, "this quote is not closed on its line")),
                Some(c) => text.push(c),
            }
        }
    }

    /// JSON's and ClearML's; any other stands for itself, as ClearML has it: `"C:\Users"`.
    fn escape(&mut self, text: &mut String) {
        let simple = |c| match c {
            '"' | '\\' | '/' | '=' | '#' | '!' => Some(c),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            _ => None,
        };
        if let Some(c) = self.peek().and_then(simple) {
            self.take();
            text.push(c);
        } else if let Some((c, length)) = unicode(self.rest()) {
            self.position += length;
            text.push(c);
        } else {
            text.push('\\');
        }
    }

    /// `include "x"`, `include file("x")`, `include required(...)`; `include = x` is a field.
    fn include(&mut self) -> Parsed<Option<Vec<Field>>> {
        let start = self.position;
        let after = self.rest().strip_prefix("include").unwrap_or_default();
        let target = after.trim_start_matches([' ', '\t']);
        let forms = ["\"", "file(", "url(", "required("];
        if target.len() == after.len() || !forms.iter().any(|form| target.starts_with(form)) {
            return Ok(None);
        }
        self.position = self.text.len() - target.len();
        let required = self.eat("required(");
        if self.eat("url(") {
            return Err(self.fault_at(start, "only files can be included"));
        }
        self.eat("file(");
        if self.peek() != Some('"') {
            return Err(self.fault("expected a file's name in quotes"));
        }
        let name = self.quoted()?;
        self.eat_while(|c| c == ')');
        let text = match self.directory.map(|directory| std::fs::read_to_string(directory.join(&name))) {
            Some(Ok(text)) => text,
            _ if required => return Err(self.fault_at(start, "the included file cannot be read")),
            Some(Err(_)) | None => return Ok(Some(Vec::new())),
        };
        let included = self.deeper(|parser| document(&text, parser.directory, parser.depth));
        included.map(Some).map_err(|ParseError { at: (line, column), message }| {
            self.fault_at(start, &format!("in the included file, line {line}, column {column}: {message}"))
        })
    }
}

/// `u00e9` or `ud83dude00` with its inner backslash, and how many bytes that took.
fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |from: usize| {
        let digits = text.get(from..)?.strip_prefix('u')?.get(..4)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    if let Some(c) = char::from_u32(first) {
        return Some((c, 5));
    }
    let second = text.get(5..)?.starts_with('\\').then(|| unit(6))??;
    let pair = char::decode_utf16([u16::try_from(first).ok()?, u16::try_from(second).ok()?]).next()?;
    Some((pair.ok()?, 11))
}
