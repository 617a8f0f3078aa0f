//! A configuration as the parameters of a task. Secrets stay behind unless an operator insists.

use std::collections::BTreeMap;

use clearml::{Configurations, Parameter, Parameters};
use serde_json::Value;

use super::known::{self, KNOWN};
use crate::config::Document;

/// The section of the script's `hyper_params`, and the name of the configuration object with the rest.
pub(super) const GENERAL: &str = "General";
/// The section of command line flags.
const ARGS: &str = "Args";
/// What opens something. The access key is of no use without its secret, and half a pair is a fault.
const SECRET: [&str; 4] =
    ["cloud_credentials_key", "cloud_credentials_secret", "cloud_credentials_token", "git_pass"];
/// What texts that hold a secret tend to say.
const SUSPICIOUS: [&str; 4] = ["secret", "password", "token", "access_key"];

/// Whether secrets may be written where everybody who sees the task can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// They stay out of the task.
    #[default]
    Withheld,
    /// `--store-secrets`.
    Stored,
}

/// Section `General`, and what should be said about secrets: one sentence each.
pub fn parameters(document: &Document, secrets: Secrets) -> (Parameters, Vec<String>) {
    let mut parameters = Parameters::default();
    for known in KNOWN {
        let value = document.hyper_params.get(known.name).map(text).filter(|value| !value.is_empty());
        let value = value.unwrap_or_else(|| known.default.to_owned());
        parameters.insert(GENERAL, known.name, described(known.name, withheld(known.name, value, secrets)));
    }
    for (name, value) in &document.hyper_params {
        if known::find(name).is_none() {
            let parameter = Parameter { kind: kind(value), ..described(name, text(value)) };
            parameters.insert(GENERAL, name, parameter);
        }
    }
    (parameters, remarks(document, secrets))
}

/// Section `Args`: the flags by which this run was started, with their values.
fn arguments(flags: &[(&str, Value)]) -> BTreeMap<String, Parameter> {
    let row = |(name, value): &(&str, Value)| {
        let parameter = Parameter { value: text(value), kind: kind(value), description: None };
        ((*name).to_owned(), parameter)
    };
    flags.iter().map(row).collect()
}

/// Both sections.
pub(super) fn sections(general: Parameters, flags: &[(&str, Value)]) -> Parameters {
    let mut parameters = general;
    parameters.0.insert(ARGS.to_owned(), arguments(flags));
    parameters
}

/// The configuration object `General`: the script's `configurations` as JSON.
pub fn general(document: &Document) -> Configurations {
    let json = Value::Object(document.configurations.clone());
    Configurations::one(GENERAL, format!("{json:#}"))
}

/// A parameter with the type and the words that belong to its name.
pub(super) fn described(name: &str, value: String) -> Parameter {
    let known = known::find(name);
    Parameter {
        value,
        kind: known.map(|known| known.kind.to_owned()),
        description: known.map(|known| known.description.to_owned()),
    }
}

fn withheld(name: &str, value: String, secrets: Secrets) -> String {
    match secrets {
        Secrets::Withheld if SECRET.contains(&name) => String::new(),
        Secrets::Withheld | Secrets::Stored => value,
    }
}

fn remarks(document: &Document, secrets: Secrets) -> Vec<String> {
    let set = |name: &&&str| document.hyper_params.get(**name).is_some_and(|value| !text(value).is_empty());
    let names: Vec<&str> = SECRET.iter().filter(set).copied().collect();
    let mut remarks = Vec::new();
    if !names.is_empty() {
        let names = names.join(", ");
        remarks.push(match secrets {
            Secrets::Withheld => format!(
                "{names}: left empty in the task's parameters, where everybody who sees the task could read them. \
                 A run by an agent takes AWS credentials from its machine's IAM role or environment instead, and the \
                 git password from CLEARML_AUTOSCALER_GIT_PASSWORD; --store-secrets stores them all the same"
            ),
            Secrets::Stored => format!(
                "{names}: stored in the task's parameters; everybody who sees the task can read them. An IAM role \
                 (use_credentials_chain) needs no keys"
            ),
        });
    }
    for name in ["extra_clearml_conf", "extra_trains_conf", "extra_vm_bash_script"] {
        let value = document.configurations.get(name).map(text).unwrap_or_default().to_lowercase();
        if SUSPICIOUS.iter().any(|word| value.contains(word)) {
            remarks.push(format!(
                "{name}: seems to hold a secret; it is part of the task's configuration, which everybody who sees \
                 the task can read"
            ));
        }
    }
    remarks
}

/// As ClearML's SDK writes values.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn kind(value: &Value) -> Option<String> {
    let kind = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    };
    Some(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(hyper: Value) -> Document {
        let configurations =
            json!({"queues": {"gpu": [["t4", 2]]}, "extra_clearml_conf": "sdk.aws.s3.secret: x"});
        let object = |value: Value| value.as_object().unwrap().clone();
        Document { hyper_params: object(hyper), configurations: object(configurations) }
    }

    fn value<'a>(parameters: &'a Parameters, name: &str) -> &'a Parameter {
        &parameters.0[GENERAL][name]
    }

    #[test]
    fn values_are_text_with_the_types_and_words_of_their_names() {
        let document = document(
            json!({"max_idle_time_min": 1.5, "use_credentials_chain": true, "own": [1], "listen": null}),
        );
        let (parameters, _) = parameters(&document, Secrets::Withheld);
        let idle = value(&parameters, "max_idle_time_min");
        assert_eq!((idle.value.as_str(), idle.kind.as_deref()), ("1.5", Some("float")));
        assert!(idle.description.as_deref().unwrap().contains("Minutes"));
        assert_eq!(value(&parameters, "use_credentials_chain").value, "True");
        assert_eq!(value(&parameters, "listen").value, "0.0.0.0:8790");
        assert_eq!(value(&parameters, "own").kind.as_deref(), Some("list"));
        // What is not set can still be found in the web UI.
        assert_eq!(value(&parameters, "iam_arn").value, "");
        assert_eq!(arguments(&[("run", json!(true))])["run"].value, "True");
    }

    #[test]
    fn secrets_are_written_only_if_somebody_insists_and_either_is_told() {
        let document = document(json!({
            "git_user": "me", "git_pass": "hush", "cloud_credentials_key": "AKIA", "cloud_credentials_secret": "hush",
        }));
        let (without, remarks) = parameters(&document, Secrets::Withheld);
        for name in SECRET {
            assert_eq!(value(&without, name).value, "", "{name}");
        }
        assert_eq!(value(&without, "git_user").value, "me");
        assert!(remarks[0].contains("git_pass") && remarks[0].contains("--store-secrets"), "{remarks:?}");
        assert!(remarks[1].contains("extra_clearml_conf"), "{remarks:?}");

        let (with, remarks) = parameters(&document, Secrets::Stored);
        assert_eq!(value(&with, "git_pass").value, "hush");
        assert!(
            remarks[0].contains("cloud_credentials_secret") && remarks[0].contains("can read"),
            "{remarks:?}"
        );
        assert!(!remarks.concat().contains("hush"));
    }

    #[test]
    fn the_configuration_object_is_the_scripts_json() {
        let text = &general(&document(json!({}))).0[GENERAL];
        assert_eq!(serde_json::from_str::<Value>(text).unwrap()["queues"]["gpu"], json!([["t4", 2]]));
        assert!(text.contains("\n  \"queues\""), "indented for people: {text}");
    }
}
