//! What wins over what, and what a user is told.

use std::path::Path;

use clearml::{Credentials, Trust};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{Settings, load};
use crate::config::Faults;

const FILE: &str = "api {\n  api_server: http://file:8008\n  web_server: http://web\n  \
                    credentials { access_key: file-access, secret_key: file-secret }\n}\n";

fn home(files: &[(&str, &str)]) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    home
}

fn read(variables: &[(&str, &str)], home: &Path) -> Result<Settings, Faults> {
    let env = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
    load(&env, Some(home))
}

fn keys(settings: &Settings) -> (String, String) {
    match &settings.credentials {
        Credentials::Keys { access, secret } => {
            (access.expose_secret().to_owned(), secret.expose_secret().to_owned())
        }
        Credentials::Token(token) => ("token".to_owned(), token.expose_secret().to_owned()),
    }
}

#[test]
fn the_file_alone_is_enough() {
    let home = home(&[("clearml.conf", FILE)]);
    let settings = read(&[], home.path()).unwrap();
    assert_eq!(settings.api_server.to_string(), "http://file:8008");
    assert_eq!(settings.web_server.as_deref(), Some("http://web"));
    assert_eq!(settings.files_server.as_deref(), Some("http://web:8081"));
    assert_eq!(keys(&settings), ("file-access".into(), "file-secret".into()));
    assert_eq!(settings.trust, Trust::System);
    assert!(settings.source.contains("clearml.conf (api.api_server)"), "{}", settings.source);
}

#[test]
fn the_environment_alone_is_enough() {
    let home = home(&[]);
    let variables = [
        ("CLEARML_API_HOST", " http://localhost:8008/ "),
        ("CLEARML_API_ACCESS_KEY", "env-access"),
        ("CLEARML_API_SECRET_KEY", "env-secret"),
        ("CLEARML_FILES_HOST", "s3://bucket/"),
    ];
    let settings = read(&variables, home.path()).unwrap();
    assert_eq!(settings.api_server.to_string(), "http://localhost:8008");
    assert_eq!(settings.web_server.as_deref(), Some("http://localhost:8080"));
    assert_eq!(settings.files_server.as_deref(), Some("s3://bucket"));
    assert_eq!(keys(&settings), ("env-access".into(), "env-secret".into()));
}

#[test]
fn the_environment_wins_over_the_file_value_by_value() {
    let home = home(&[("clearml.conf", FILE)]);
    let variables = [
        ("TRAINS_API_HOST", "http://old"),
        ("CLEARML_API_SECRET_KEY", "env-secret"),
        ("CLEARML_WEB_HOST", ""),
    ];
    let settings = read(&variables, home.path()).unwrap();
    assert_eq!(settings.api_server.to_string(), "http://old");
    assert_eq!(settings.web_server.as_deref(), Some("http://web"));
    assert_eq!(keys(&settings), ("file-access".into(), "env-secret".into()));
}

#[test]
fn a_token_wins_over_keys() {
    let home = home(&[("clearml.conf", FILE)]);
    let settings = read(&[("CLEARML_AUTH_TOKEN", "env-token")], home.path()).unwrap();
    assert_eq!(keys(&settings), ("token".into(), "env-token".into()));
}

#[test]
fn clearml_conf_lies_over_trains_conf_and_a_named_file_replaces_both() {
    let home = home(&[
        ("trains.conf", "api { api_server: http://trains, files_server: http://trains-files }"),
        ("clearml.conf", FILE),
        (
            "agent.json",
            r#"{"api": {"api_server": "http://json:8008", "credentials": {"access_key": "j", "secret_key": "k"}}}"#,
        ),
    ]);
    let settings = read(&[], home.path()).unwrap();
    assert_eq!(settings.api_server.to_string(), "http://file:8008");
    assert_eq!(settings.files_server.as_deref(), Some("http://trains-files"));
    let settings = read(&[("CLEARML_CONFIG_FILE", "~/agent.json")], home.path()).unwrap();
    assert_eq!(settings.files_server.as_deref(), Some("http://json:8081"));
    assert_eq!(keys(&settings), ("j".into(), "k".into()));
}

#[test]
fn without_an_address_it_is_the_hosted_service() {
    let home = home(&[("clearml.conf", "api.credentials { access_key = a, secret_key = b }")]);
    let settings = read(&[], home.path()).unwrap();
    assert_eq!(settings.api_server.to_string(), "https://api.clear.ml");
    assert_eq!(settings.web_server.as_deref(), Some("https://app.clear.ml"));
    assert_eq!(settings.files_server.as_deref(), Some("https://files.clear.ml"));
}

#[test]
fn whose_certificates_count_is_a_setting() {
    let home =
        home(&[("clearml.conf", &format!("{FILE}\napi.verify_certificate: False")), ("ca.pem", "PEM")]);
    let pem = home.path().join("ca.pem");
    assert_eq!(read(&[], home.path()).unwrap().trust, Trust::Anybody);
    let variables = [("CLEARML_API_HOST_VERIFY_CERT", pem.to_str().unwrap())];
    assert_eq!(read(&variables, home.path()).unwrap().trust, Trust::Roots(b"PEM".to_vec()));
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "api { api_server: \"localhost:8008\", verify_certificate: /no/such/file\n\
                credentials { access_key: ${NO_SUCH} } }";
    let home = home(&[("clearml.conf", text)]);
    let faults = read(&[], home.path()).unwrap_err().to_string();
    let lines: Vec<&str> = faults.lines().collect();
    let file = home.path().join("clearml.conf").display().to_string();
    assert_eq!(lines.len(), 4, "{faults}");
    assert!(lines.iter().all(|line| line.starts_with(&file)), "{faults}");
    assert!(faults.contains("api.api_server: does not begin with http:// or https://"), "{faults}");
    assert!(faults.contains("api.credentials.access_key: refers to ${NO_SUCH}"), "{faults}");
    assert!(
        faults.contains("api.credentials.secret_key: is missing; set CLEARML_API_SECRET_KEY"),
        "{faults}"
    );
    assert!(faults.contains("api.verify_certificate: expected true, false, or the path"), "{faults}");
}

#[test]
fn nothing_configured_at_all_says_what_to_do() {
    let home = home(&[]);
    let faults = read(&[], home.path()).unwrap_err().to_string();
    assert!(faults.contains("clearml.conf: api.credentials.access_key: is missing"), "{faults}");
    assert!(faults.contains("CLEARML_API_SECRET_KEY"), "{faults}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault_and_no_secret_is_told() {
    let home = home(&[("clearml.conf", "api {\n  credentials { secret_key: \"hush\n }\n}")]);
    let faults = read(&[], home.path()).unwrap_err().to_string();
    assert_eq!(faults.lines().count(), 1, "{faults}");
    assert!(faults.contains("clearml.conf:2:"), "{faults}");
    assert!(!faults.contains("hush"), "{faults}");
    let faults = read(&[("CLEARML_CONFIG_FILE", "/no/such.conf")], home.path()).unwrap_err().to_string();
    assert!(faults.contains("CLEARML_CONFIG_FILE names this file"), "{faults}");
    let settings = read(&[("CLEARML_AUTH_TOKEN", "hush"), ("CLEARML_CONFIG_FILE", "~/none")], home.path());
    assert!(!format!("{settings:?}").contains("hush"));
}
