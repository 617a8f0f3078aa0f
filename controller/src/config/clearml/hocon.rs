//! HOCON as ClearML reads it, which is not quite HOCON: `api_server: http://localhost:8008`, without quotes,
//! is what ClearML's own wizard writes, though by the book `//` begins a comment there. So libraries that go
//! by the book cannot read the file, and this reader goes by ClearML's.
//!
//! A document is parsed as a whole, but substitutions (`${path}`, `${?VAR}`) are resolved only on the way to a
//! value that is asked for: what other parts of the file need is none of our business. JSON is read as well.

mod parse;

use std::fmt;
use std::path::Path;

/// How deep `${}` may lead, and objects may be nested, and includes may include.
const DEPTH_LIMIT: usize = 32;

/// A document.
#[derive(Clone, Default)]
pub(super) struct Document {
    root: Vec<Field>,
}

/// A line of an object, in the document's order: a later one of the same name wins, or is merged.
#[derive(Clone)]
struct Field {
    key: String,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Object(Vec<Field>),
    /// Nothing that is read here is a list.
    List,
    Null,
    /// Pieces side by side: most often one text.
    Text(Vec<Piece>),
}

#[derive(Clone)]
enum Piece {
    Text(String),
    Substitution { path: Vec<String>, optional: bool },
}

/// A text that is no such document. The message does not repeat the text: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParseError {
    /// Line and column, both from 1.
    pub(super) at: (usize, usize),
    /// What is wrong there.
    pub(super) message: String,
}

/// A value that is there but cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueError {
    /// An object or a list where a text is expected.
    NotText,
    /// `${this}` is nowhere, neither in the file nor in the environment.
    Unresolved(String),
    /// `${this}` leads to itself.
    Circular(String),
}

impl Document {
    /// Reads a document; `directory` is where its includes lie.
    ///
    /// # Errors
    /// The first place that could not be understood.
    pub(super) fn parse(text: &str, directory: Option<&Path>) -> Result<Self, ParseError> {
        Ok(Self { root: parse::document(text, directory, 0)? })
    }

    /// Puts another document's fields over this one's.
    pub(super) fn overlay(&mut self, other: Self) {
        self.root.extend(other.root);
    }

    /// The text at a dotted path; numbers and booleans as they are written. `None` if it is absent or null.
    ///
    /// # Errors
    /// If what is there is no text.
    pub(super) fn text(
        &self,
        path: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<String>, ValueError> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        Reader { root: &self.root, env }.at(&path, 0)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} fields)", self.root.len())
    }
}

struct Reader<'a> {
    root: &'a [Field],
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn at(&self, path: &[String], depth: usize) -> Result<Option<String>, ValueError> {
        if depth > DEPTH_LIMIT {
            return Err(ValueError::Circular(path.join(".")));
        }
        let Some((last, way)) = path.split_last() else { return Ok(None) };
        let mut objects = vec![self.root];
        for name in way {
            objects = values(&objects, name).into_iter().fold(Vec::new(), |mut kept, value| {
                match value {
                    Value::Object(fields) => kept.push(fields),
                    // Anything else hides the objects before it.
                    Value::List | Value::Null | Value::Text(_) => kept.clear(),
                }
                kept
            });
        }
        let mut found = Ok(None);
        for value in values(&objects, last) {
            found = match value {
                Value::Object(_) | Value::List => Err(ValueError::NotText),
                Value::Null => Ok(None),
                Value::Text(pieces) => match self.join(pieces, depth) {
                    // An optional substitution that leads nowhere leaves what was there.
                    Ok(None) => continue,
                    outcome => outcome,
                },
            };
        }
        found
    }

    fn join(&self, pieces: &[Piece], depth: usize) -> Result<Option<String>, ValueError> {
        let mut joined: Option<String> = None;
        for piece in pieces {
            let text = match piece {
                Piece::Text(text) => Some(text.clone()),
                Piece::Substitution { path, optional } => {
                    let name = path.join(".");
                    match self.at(path, depth + 1)?.or_else(|| (self.env)(&name)) {
                        None if !optional => return Err(ValueError::Unresolved(name)),
                        text => text,
                    }
                }
            };
            if let Some(text) = text {
                joined.get_or_insert_default().push_str(&text);
            }
        }
        Ok(joined)
    }
}

fn values<'a>(objects: &[&'a [Field]], name: &str) -> Vec<&'a Value> {
    objects.iter().flat_map(|fields| fields.iter()).filter(|it| it.key == name).map(|it| &it.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIZARD: &str = r##"# ClearML SDK configuration file
api {
    # Notice: 'host' is the api server (default port 8008), not the web server.
    api_server: http://localhost:8008
    web_server: http://localhost:8080 // the web server
    files_server: http://localhost:8081 # and the file server
    // Credentials
    credentials {"access_key": "AK", "secret_key": "x!XT#v_G-vspE*Y(h$Anm&DIc5Ou-F)js//l$PdOy"}
}
sdk {
    # ClearML - default SDK configuration
    storage {
        cache { default_base_dir: "~/.clearml/cache", size { min_free_bytes: 10GB } }
        direct_access: [
            # Objects matching are considered to be available for direct access
            { url: "file://*" }  # file-urls are always directly referenced
        ]
    }
    metrics {
        file_history_size: 100
        matplotlib_untitled_history_size: 100
        images { format: JPEG, quality: 87, subsampling: 0 }
        tensorboard_single_series_per_graph: False
    }
    aws { s3 { key: "", secret: "", region: "", credentials: [
        # { bucket: "my-bucket-name", key: "my-access-key" },
    ] } }
    development { vcs_repo_detect_async: true, store_code_diff_from_remote: false
        default_output_uri: ""
        worker { log_stdout: True, report_period_sec: 2. } }
    odd { path: C:\Users\me, list: [1, 2,
        3 4], text: """a "quoted" word
and a second line""", undefined: ${NOBODY.KNOWS} }
}
"##;

    fn nobody(_: &str) -> Option<String> {
        None
    }

    fn read(text: &str, path: &str) -> Result<Option<String>, ValueError> {
        Document::parse(text, None)
            .unwrap()
            .text(path, &|name| (name == "HOME_API").then(|| "http://env".into()))
    }

    fn found(text: &str, path: &str) -> String {
        read(text, path).unwrap().unwrap()
    }

    #[test]
    fn what_the_wizard_writes_is_read() {
        for (path, value) in [
            ("api.api_server", "http://localhost:8008"),
            ("api.web_server", "http://localhost:8080"),
            ("api.files_server", "http://localhost:8081"),
            ("api.credentials.access_key", "AK"),
            ("api.credentials.secret_key", "x!XT#v_G-vspE*Y(h$Anm&DIc5Ou-F)js//l$PdOy"),
            ("sdk.storage.cache.size.min_free_bytes", "10GB"),
            ("sdk.metrics.images.quality", "87"),
            ("sdk.odd.text", "a \"quoted\" word\nand a second line"),
            ("sdk.odd.path", r"C:\Users\me"),
        ] {
            assert_eq!(found(WIZARD, path), value, "{path}");
        }
        assert_eq!(read(WIZARD, "api.nothing"), Ok(None));
        assert_eq!(read(WIZARD, "api.credentials"), Err(ValueError::NotText));
        assert_eq!(read(WIZARD, "sdk.storage.direct_access"), Err(ValueError::NotText));
        assert_eq!(read(WIZARD, "sdk.odd.undefined"), Err(ValueError::Unresolved("NOBODY.KNOWS".into())));
    }

    #[test]
    fn what_the_web_page_shows_to_copy_is_read() {
        let text = "\u{feff}api { \r\n  web_server: https://app.host\r\n  api_server: https://api.host/x\r\n  \
                    credentials {\r\n    \"access_key\" = \"AK\"\r\n    \"secret_key\"  =  \"SK=\" \r\n  }\r\n}\r\n";
        assert_eq!(found(text, "api.api_server"), "https://api.host/x");
        assert_eq!(found(text, "api.credentials.secret_key"), "SK=");
    }

    #[test]
    fn an_agents_json_is_read() {
        let text = r#"{"api": {"api_server": "http://apiserver:8008", "version": 1.5, "verify_certificate": true,
            "credentials": {"access_key": "a\"b\\c", "secret_key": "\u00e9\ud83d\ude00\/"}}, "agent": {"x": null}}"#;
        assert_eq!(found(text, "api.api_server"), "http://apiserver:8008");
        assert_eq!(found(text, "api.credentials.access_key"), r#"a"b\c"#);
        assert_eq!(found(text, "api.credentials.secret_key"), "é😀/");
        assert_eq!(found(text, "api.verify_certificate"), "true");
        assert_eq!(read(text, "agent.x"), Ok(None));
    }

    #[test]
    fn later_fields_win_and_objects_merge() {
        let text = "api.credentials.access_key = one\napi { credentials { secret_key = two }, api_server = a }\n\
                    \"api\" { \"api_server\" = b b , credentials.access_key = three }\nx += 1\nx += [2]";
        assert_eq!(found(text, "api.credentials.access_key"), "three");
        assert_eq!(found(text, "api.credentials.secret_key"), "two");
        assert_eq!(found(text, "api.api_server"), "b b");
    }

    #[test]
    fn substitutions_lead_to_the_file_then_to_the_environment() {
        let text = "base = \"http://b\"\napi { a = ${base}\":\"8008\n b = ${?HOME_API}\n c = kept\n c = ${?NOTHING}\n \
                    d = ${HOME_API}/x\n e = ${api.a}/v2 }\nloop = ${loop}";
        assert_eq!(found(text, "api.a"), "http://b:8008");
        assert_eq!(found(text, "api.b"), "http://env");
        assert_eq!(found(text, "api.c"), "kept");
        assert_eq!(found(text, "api.d"), "http://env/x");
        assert_eq!(found(text, "api.e"), "http://b:8008/v2");
        assert_eq!(read(text, "loop"), Err(ValueError::Circular("loop".into())));
    }

    #[test]
    fn a_fault_tells_its_place_and_nothing_of_the_text() {
        for (text, at) in [
            ("api {\n  secret: \"hush\n}", (2, 11)),
            ("api {\n  credentials { hush: x \n", (2, 15)),
            ("api { hush }", (1, 12)),
            ("api: { x: 1 }\n}", (2, 1)),
            ("x: [1, 2", (1, 4)),
            ("x: ${hush", (1, 4)),
            ("x: \"\"\"hush", (1, 4)),
        ] {
            let error = Document::parse(text, None).unwrap_err();
            assert_eq!(error.at, at, "{text}: {}", error.message);
            assert!(!error.message.contains("hush"), "{}", error.message);
        }
        let deep = "a {".repeat(10_000);
        assert!(Document::parse(&deep, None).is_err());
    }

    #[test]
    fn included_files_are_read_and_absent_ones_are_not_missed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("keys.conf"), "credentials.access_key: included").unwrap();
        std::fs::write(directory.path().join("loop.conf"), "include \"loop.conf\"").unwrap();
        let text = "api { include \"keys.conf\"\n include file(\"absent.conf\")\n include = 5 }";
        let document = Document::parse(text, Some(directory.path())).unwrap();
        assert_eq!(document.text("api.credentials.access_key", &nobody), Ok(Some("included".into())));
        assert_eq!(document.text("api.include", &nobody), Ok(Some("5".into())));
        assert!(Document::parse("include \"loop.conf\"", Some(directory.path())).is_err());
        assert!(Document::parse("include url(\"http://x/y.conf\")", Some(directory.path())).is_err());
    }
}
