//! The gate's files, with a lock that other processes hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use std::io::{BufRead, BufReader};

use sidecar::agent::Reading;
use sidecar::gate::{Gate, try_close};

fn gate(directory: &tempfile::TempDir, index: usize) -> Gate {
    let gate = Gate::new(directory.path().join(format!("agent-{index}")));
    gate.create().unwrap();
    gate
}

fn lease(gate: &Gate) -> Option<String> {
    fs::read_to_string(gate.directory().join("lease")).ok()
}

#[test]
fn states_are_read_as_the_shim_writes_them() {
    let directory = tempfile::tempdir().unwrap();
    let gate = gate(&directory, 0);
    let now = Duration::from_secs(9);
    assert_eq!(gate.read(now), Reading::Absent);
    let since = Duration::from_nanos(1_234_567_890);
    let cases = [
        ("idle 1234567890\n", Reading::Idle { since }),
        ("polling 1234567890", Reading::Polling { since }),
        ("busy:4b1a 1234567890\n", Reading::Busy { task: Some("4b1a".to_owned()), since }),
        ("unknown 1234567890\n", Reading::Unknown { since }),
        ("", Reading::Unknown { since: now }),
        ("idle", Reading::Unknown { since: now }),
        ("asleep 1234567890", Reading::Unknown { since: now }),
    ];
    for (line, reading) in cases {
        fs::write(gate.directory().join("state"), line).unwrap();
        assert_eq!(gate.read(now), reading, "{line}");
    }
}

#[test]
fn nothing_is_closed_while_one_of_several_polls() {
    let directory = tempfile::tempdir().unwrap();
    let gates = [gate(&directory, 0), gate(&directory, 1)];
    for gate in &gates {
        gate.renew(Duration::from_nanos(77)).unwrap();
    }
    let held = gates[1].directory().join("lock");
    let mut other = Command::new("flock")
        .args(["--shared".as_ref(), held.as_os_str(), "sh".as_ref(), "-c".as_ref(), "echo; read x".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(try_close(&gates, Duration::ZERO).unwrap(), None);
    assert_eq!(lease(&gates[0]).as_deref(), Some("77\n"));

    drop(other.stdin.take());
    other.wait().unwrap();
    fs::write(gates[1].directory().join("state"), "idle 5\n").unwrap();
    let readings = try_close(&gates, Duration::ZERO).unwrap().unwrap();
    assert_eq!(readings, [Reading::Absent, Reading::Idle { since: Duration::from_nanos(5) }]);
    assert_eq!((lease(&gates[0]), lease(&gates[1])), (None, None));
    assert!(
        try_close(&gates, Duration::ZERO).unwrap().is_some(),
        "the lock was released, closing twice is fine"
    );
}
