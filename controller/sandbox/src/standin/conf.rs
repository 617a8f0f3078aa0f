//! clearml.conf, as far as an agent needs it: a tolerant reading of HOCON into dotted keys. Lists, includes and
//! substitutions are passed over.

use std::collections::BTreeMap;

/// The scalar values by their dotted keys; of one key the last counts, as HOCON has it.
pub(super) fn read(text: &str) -> BTreeMap<String, String> {
    let mut reader = Reader { rest: text, values: BTreeMap::new() };
    reader.object("");
    reader.values
}

struct Reader<'a> {
    rest: &'a str,
    values: BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Fields up to the closing brace or the end.
    fn object(&mut self, prefix: &str) {
        loop {
            self.skip_blank();
            if self.rest.is_empty() || self.take("}") {
                return;
            }
            if self.take("{") {
                self.object(prefix);
                continue;
            }
            let key = self.scalar(&['{', '=', ':', '\n', '}']);
            let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            self.skip_spaces();
            if !self.take("{") {
                if !(self.take("=") || self.take(":")) {
                    self.skip_line();
                    continue;
                }
                self.skip_blank();
                if !self.take("{") {
                    self.value(path);
                    continue;
                }
            }
            self.object(&path);
        }
    }

    fn value(&mut self, path: String) {
        if self.rest.starts_with('[') {
            self.skip_list();
            return;
        }
        let value = self.scalar(&[',', '\n', '}', '#']);
        self.values.insert(path, value);
    }

    /// A quoted text, or a bare one up to one of the given characters.
    fn scalar(&mut self, ends: &[char]) -> String {
        if self.take("\"\"\"") {
            let (text, rest) = self.rest.split_once("\"\"\"").unwrap_or((self.rest, ""));
            self.rest = rest;
            return text.to_owned();
        }
        if self.take("\"") {
            return self.quoted();
        }
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.trim().to_owned()
    }

    fn quoted(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return text;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => {}
                },
                other => text.push(other),
            }
        }
        self.rest = "";
        text
    }

    fn skip_list(&mut self) {
        let mut depth = 0_u32;
        while let Some(c) = self.rest.chars().next() {
            if c == '"' {
                self.scalar(&[]);
                continue;
            }
            self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
    }

    /// White space, commas and comments.
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.skip_line();
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_whatever_its_style() {
        let values = read(
            r#"# ClearML
api {
    api_server: "http://127.0.0.1:8008"   // the address
    web_server = http://127.0.0.1:8080, files_server: http://127.0.0.1:8081
    credentials { "access_key": "A\"B", "secret_key" = """s#cret""" }
    extra: [ "a}", { b: 1 }, "]" ]
}
agent.worker_id = one:two # really
agent { package_manager: { type: pip
}, n: 3 }
"#,
        );
        let get = |key: &str| values.get(key).map(String::as_str);
        assert_eq!(get("api.api_server"), Some("http://127.0.0.1:8008"));
        assert_eq!(get("api.web_server"), Some("http://127.0.0.1:8080"));
        assert_eq!(get("api.files_server"), Some("http://127.0.0.1:8081"));
        assert_eq!(get("api.credentials.access_key"), Some("A\"B"));
        assert_eq!(get("api.credentials.secret_key"), Some("s#cret"));
        assert_eq!(get("agent.worker_id"), Some("one:two"));
        assert_eq!(get("agent.package_manager.type"), Some("pip"));
        assert_eq!(get("agent.n"), Some("3"));
    }

    #[test]
    fn json_is_read_and_broken_text_ends() {
        let values = read(r#"{"api":{"api_server":"http://x","credentials":{"access_key":"k"}}}"#);
        assert_eq!(values.get("api.api_server").map(String::as_str), Some("http://x"));
        assert_eq!(values.get("api.credentials.access_key").map(String::as_str), Some("k"));
        for broken in ["{", "a: \"b", "a: [", "}}}", "a {", "\"\"\"", "a b c", "= 3"] {
            read(broken);
        }
    }
}
