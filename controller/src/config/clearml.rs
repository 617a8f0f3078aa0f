//! ClearML's own settings: where its servers are and what to log in with, found as ClearML's SDK finds them.
//!
//! The environment wins over the file. The file is the one that `CLEARML_CONFIG_FILE` names; else
//! `~/trains.conf` with `~/clearml.conf` over it, where they exist. Older names of the variables (`TRAINS_*`)
//! still count, and an empty variable is an unset one.

mod hocon;
mod servers;

use std::fmt;
use std::path::{Path, PathBuf};

use clearml::{Address, Credentials, Trust};
use secrecy::SecretString;

use self::hocon::{Document, ParseError, ValueError};
use super::faults::{Fault, Faults};

/// The hosted service, which ClearML's SDK falls back to.
const HOSTED_API: &str = "https://api.clear.ml";
/// More than this is no configuration file.
const FILE_LIMIT: u64 = 4 << 20;

/// How ClearML is reached. Debug shows no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API server.
    pub api_server: Address,
    /// The web server, for links; derived from the API server's address if it follows ClearML's habits.
    pub web_server: Option<String>,
    /// The file server, or a bucket; derived likewise.
    pub files_server: Option<String>,
    /// What to log in with.
    pub credentials: Credentials,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// Where API server and credentials were found, for the log: `API server of /root/clearml.conf
    /// (api.api_server), credentials of the environment (CLEARML_AUTH_TOKEN)`.
    pub source: String,
}

impl Settings {
    /// A client for this server.
    ///
    /// # Errors
    /// As [`clearml::Client::new`].
    pub fn client(&self) -> Result<clearml::Client, clearml::BuildError> {
        let options = clearml::Options::new(self.api_server.clone(), self.credentials.clone());
        clearml::Client::new(clearml::Options { trust: self.trust.clone(), ..options })
    }
}

/// Finds the settings. `env` looks up environment variables, `home` is the user's home directory.
///
/// # Errors
/// Every fault at once: an unreadable file, a malformed address, missing credentials.
pub fn load(env: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Settings, Faults> {
    let mut lookup = Lookup::new(env, home);
    let api = lookup.api_server();
    let credentials = lookup.credentials();
    let trust = lookup.trust();
    let web = lookup.find(&["CLEARML_WEB_HOST", "TRAINS_WEB_HOST"], &["api.web_server"]);
    let files = lookup.find(&["CLEARML_FILES_HOST", "TRAINS_FILES_HOST"], &["api.files_server"]);
    if let Some(faults) = Faults::of(lookup.faults) {
        return Err(faults);
    }
    let (Some((api_server, api_origin)), Some((credentials, keys_origin))) = (api, credentials) else {
        return Err(Faults::whole_file(&lookup.file, "ClearML's settings are incomplete"));
    };
    let address = api_server.to_string();
    let web_server = web.map(|(url, _)| servers::bare(&url)).or_else(|| servers::web(&address));
    let files_server =
        files.map(|(url, _)| servers::bare(&url)).or_else(|| servers::files(&address, web_server.as_deref()));
    let source = format!("API server of {api_origin}, credentials of {keys_origin}");
    Ok(Settings { api_server, web_server, files_server, credentials, trust, source })
}

/// Where a value was found.
#[derive(Clone, Debug)]
enum Origin {
    Variable(&'static str),
    File(PathBuf, &'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the environment ({name})"),
            Self::File(path, key) => write!(f, "{} ({key})", path.display()),
            Self::Default => f.write_str("ClearML's hosted service"),
        }
    }
}

struct Lookup<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    /// The file that counts most, whether or not it is there: what a user would edit.
    file: PathBuf,
    document: Document,
    faults: Vec<Fault>,
}

impl<'a> Lookup<'a> {
    fn new(env: &'a dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Self {
        let mut lookup = Self {
            env,
            file: PathBuf::from("~/clearml.conf"),
            document: Document::default(),
            faults: vec![],
        };
        if let Some((name, value)) = lookup.variable(&["CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"]) {
            lookup.file = PathBuf::from(&value);
            match (value.strip_prefix('~'), home) {
                (None, _) => lookup.read(Some(name)),
                (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                    lookup.file = home.join(rest.trim_start_matches('/'));
                    lookup.read(Some(name));
                }
                (Some(_), _) => lookup.blame(&Origin::Variable(name), "write the path without ~"),
            }
        } else if let Some(home) = home {
            for file in ["trains.conf", "clearml.conf"] {
                lookup.file = home.join(file);
                lookup.read(None);
            }
        }
        lookup
    }

    /// Puts the file's content over what was read before.
    fn read(&mut self, named_by: Option<&'static str>) {
        let text = match std::fs::metadata(&self.file) {
            Err(error) if named_by.is_none() && error.kind() == std::io::ErrorKind::NotFound => return,
            Ok(metadata) if metadata.len() > FILE_LIMIT => {
                Err("is larger than 4 MiB, too large for a configuration file".to_owned())
            }
            Ok(_) | Err(_) => {
                std::fs::read_to_string(&self.file).map_err(|error| format!("cannot be read: {error}"))
            }
        };
        let named_by = named_by.map(|name| format!(" ({name} names this file)")).unwrap_or_default();
        let parsed = text.map_err(|message| (None, message)).and_then(|text| {
            Document::parse(&text, self.file.parent())
                .map_err(|ParseError { at, message }| (Some(at), message))
        });
        match parsed {
            Ok(document) => self.document.overlay(document),
            Err((at, message)) => {
                let message = format!("{message}{named_by}");
                self.faults.push(Fault { file: self.file.clone(), at, key: String::new(), message });
            }
        }
    }

    fn variable(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|&name| {
            let value = (self.env)(name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    }

    fn find(&mut self, variables: &[&'static str], keys: &[&'static str]) -> Option<(String, Origin)> {
        if let Some((name, value)) = self.variable(variables) {
            return Some((value, Origin::Variable(name)));
        }
        keys.iter().find_map(|&key| {
            let origin = Origin::File(self.file.clone(), key);
            match self.document.text(key, self.env) {
                Ok(value) => {
                    let value = value?.trim().to_owned();
                    (!value.is_empty()).then_some((value, origin))
                }
                Err(error) => {
                    self.blame(&origin, &remedy(&error));
                    None
                }
            }
        })
    }

    fn blame(&mut self, origin: &Origin, message: &str) {
        let (file, key) = match origin {
            Origin::Variable(name) => (PathBuf::from("environment"), (*name).to_owned()),
            Origin::File(path, key) => (path.clone(), (*key).to_owned()),
            Origin::Default => (self.file.clone(), String::new()),
        };
        self.faults.push(Fault { file, at: None, key, message: message.to_owned() });
    }

    fn api_server(&mut self) -> Option<(Address, Origin)> {
        let (text, origin) = self
            .find(&["CLEARML_API_HOST", "TRAINS_API_HOST"], &["api.api_server", "api.host"])
            .unwrap_or_else(|| (HOSTED_API.to_owned(), Origin::Default));
        match Address::parse(&text) {
            Ok(address) => Some((address, origin)),
            Err(error) => {
                self.blame(&origin, &error.to_string());
                None
            }
        }
    }

    fn credentials(&mut self) -> Option<(Credentials, Origin)> {
        if let Some((name, token)) = self.variable(&["CLEARML_AUTH_TOKEN"]) {
            return Some((Credentials::Token(SecretString::from(token)), Origin::Variable(name)));
        }
        // A file that was not understood may well hold them.
        let unreadable = self.faults.iter().any(|fault| fault.key.is_empty());
        let access =
            self.key("CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY", "api.credentials.access_key");
        let secret =
            self.key("CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY", "api.credentials.secret_key");
        for (missing, variable, key) in [
            (access.is_none(), "CLEARML_API_ACCESS_KEY", "api.credentials.access_key"),
            (secret.is_none(), "CLEARML_API_SECRET_KEY", "api.credentials.secret_key"),
        ] {
            let blamed = |fault: &Fault| fault.key == key;
            if missing && !unreadable && !self.faults.iter().any(blamed) {
                let message = format!(
                    "is missing; set {variable} in the environment, or {key} in this file \
                     (create credentials in ClearML's web application, settings, workspace)"
                );
                self.faults.push(Fault { file: self.file.clone(), at: None, key: key.to_owned(), message });
            }
        }
        let ((access, _), (secret, origin)) = (access?, secret?);
        let keys =
            Credentials::Keys { access: SecretString::from(access), secret: SecretString::from(secret) };
        Some((keys, origin))
    }

    fn key(
        &mut self,
        variable: &'static str,
        old_variable: &'static str,
        key: &'static str,
    ) -> Option<(String, Origin)> {
        let (value, origin) = self.find(&[variable, old_variable], &[key])?;
        // It becomes part of a header.
        if value.chars().any(char::is_control) {
            self.blame(&origin, "holds a line break or another control character");
            return None;
        }
        Some((value, origin))
    }

    fn trust(&mut self) -> Trust {
        let variables = ["CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT"];
        let Some((value, origin)) = self.find(&variables, &["api.verify_certificate"]) else {
            return Trust::System;
        };
        match value.to_ascii_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => Trust::System,
            "n" | "no" | "f" | "false" | "off" | "0" => Trust::Anybody,
            _ => std::fs::read(&value).map(Trust::Roots).unwrap_or_else(|error| {
                let expected = "expected true, false, or the path of a PEM file with root certificates";
                self.blame(&origin, &format!("{expected}, but that path cannot be read: {error}"));
                Trust::System
            }),
        }
    }
}

fn remedy(error: &ValueError) -> String {
    match error {
        ValueError::NotText => "expected a text, not an object or a list".to_owned(),
        ValueError::Unresolved(name) => {
            format!("refers to ${{{name}}}, which neither this file nor the environment defines")
        }
        ValueError::Circular(name) => format!("refers to ${{{name}}}, which refers to itself"),
    }
}

#[cfg(test)]
mod tests;
