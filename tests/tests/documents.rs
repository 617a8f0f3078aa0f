//! What we write as YAML is what our own reader and PyYAML read, whatever stands in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use controller::config::Document;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tests::python;

/// Documents that PyYAML is shown.
const SHOWN_TO_PYYAML: usize = 400;
/// Texts that some YAML takes for something else, or that a careless writer spoils.
const NASTY: [&str; 60] = [
    "",
    " ",
    "~",
    "null",
    "None",
    "off",
    "Off",
    "on",
    "yes",
    "No",
    "y",
    "n",
    "true",
    "False",
    "1",
    "-1",
    "+1",
    "0",
    "007",
    "0123",
    "0o17",
    "0x1F",
    "0b11",
    "1_000",
    "1e3",
    "1.5e+3",
    ".5",
    "5.",
    ".inf",
    "-.INF",
    ".nan",
    "nan",
    "1:30",
    "190:20:30",
    "2026-11-24",
    "2026-11-24 10:00:00",
    "2026-11-24T10:00:00Z",
    "=",
    "<<",
    "---",
    "...",
    "- a",
    "a: b",
    "a #b",
    "#a",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a`",
    "'",
    "\"",
    "\\",
    "a\r\nb\r\n",
    "set -e\n\techo hi\n",
    "trailing \nblanks\t\n",
    "\n\nlate",
    "grüße\u{85}\u{2028}\u{feff}",
    "last\n\n\n",
];

fn text() -> BoxedStrategy<String> {
    let nasty = proptest::sample::select(NASTY.to_vec()).prop_map(str::to_owned);
    let script = proptest::collection::vec("[ -~äöü\t]{0,20}", 1..6)
        .prop_flat_map(|lines| (Just(lines), proptest::sample::select(vec!["\n", "\r\n"]), any::<bool>()))
        .prop_map(|(lines, end, ended)| lines.join(end) + if ended { end } else { "" });
    prop_oneof![2 => nasty, 2 => script, 2 => "[a-zA-Z0-9/:=, ._-]{0,16}", 1 => any::<String>()].boxed()
}

/// What RunInstances may be given besides.
fn extra() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        proptest::sample::select(vec![1e300, -1e-7, 1.5e20]).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

fn resource() -> impl Strategy<Value = Value> {
    let extra = proptest::collection::btree_map(text(), extra(), 0..3);
    (text(), any::<bool>(), 1..1000_u32, proptest::collection::vec(text(), 0..3), extra).prop_map(
        |(ami_id, is_spot, size, groups, extra)| {
            json!({"ami_id": ami_id, "is_spot": is_spot, "ebs_volume_size": size, "security_group_ids": groups,
                   "key_name": null, "extra_configurations": extra})
        },
    )
}

fn document() -> impl Strategy<Value = Document> {
    let hyper_params = (text(), text(), text(), 0..100_u32, any::<bool>());
    let names = proptest::collection::btree_map(text(), resource(), 0..4);
    let queues =
        proptest::collection::btree_map(text(), proptest::collection::vec((text(), 0..9_u32), 0..3), 0..3);
    (hyper_params, names, queues, text(), text()).prop_map(|(hyper, resources, queues, script, conf)| {
        let (git_user, git_pass, tags, minutes, chain) = hyper;
        let queue = |(name, lines): (String, Vec<(String, u32)>)| (name, json!(lines));
        let queues: Map<String, Value> = queues.into_iter().map(queue).collect();
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        Document {
            hyper_params: map(json!({"git_user": git_user, "git_pass": git_pass, "tags": tags,
                "max_idle_time_min": minutes, "polling_interval_time_min": 0.25, "use_credentials_chain": chain})),
            configurations: map(json!({"resource_configurations": resources, "queues": queues,
                "extra_vm_bash_script": script, "extra_clearml_conf": conf})),
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(document in document()) {
        let yaml = document.to_yaml();
        let read = Document::from_yaml(Path::new("file.yaml"), &yaml);
        prop_assert_eq!(read.as_ref(), Ok(&document), "{}", yaml);
        let read = Document::from_json(Path::new("file.json"), &document.to_json());
        prop_assert_eq!(read, Ok(document));
    }
}

#[test]
fn pyyaml_reads_what_we_write() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut runner = TestRunner::deterministic();
    let mut documents = Vec::new();
    for number in 0..SHOWN_TO_PYYAML {
        let document = document().new_tree(&mut runner).map_err(|why| anyhow::anyhow!("{why}"))?.current();
        fs::write(dir.path().join(format!("{number}.yaml")), document.to_yaml())?;
        documents.push(document);
    }
    let venv = python::venv("clearml", &python::file("clearml-requirements.txt"))?;
    let output = Command::new(venv.join("bin/python"))
        .arg(python::file("read_yaml.py"))
        .arg(dir.path())
        .arg(SHOWN_TO_PYYAML.to_string())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Vec<Value> = serde_json::from_slice(&output.stdout).context("PyYAML's view as JSON")?;
    ensure!(read.len() == documents.len());
    for (number, (read, document)) in read.iter().zip(&documents).enumerate() {
        let written: Value = serde_json::from_str(&document.to_json())?;
        ensure!(*read == written, "{number}: {read}\nis not\n{written}\nin\n{}", document.to_yaml());
    }
    Ok(())
}
