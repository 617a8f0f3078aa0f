//! The shim around a daemon that polls what the test tells it to.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sidecar::agent::Reading;
use sidecar::gate::{self, Gate};
use sidecar::probe;

const LIMIT: Duration = Duration::from_secs(30);

struct Shim {
    directory: tempfile::TempDir,
    gate: Gate,
    child: Child,
}

impl Shim {
    fn start(script: &[&str], options: &[&str], before: impl FnOnce(&Gate)) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake");
        Self::start_package(&package, script, options, before)
    }

    fn start_package(package: &Path, script: &[&str], options: &[&str], before: impl FnOnce(&Gate)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::write(work.join("script"), script.join("\n")).unwrap();
        fs::write(directory.path().join("agent_shim.py"), sidecar::AGENT_SHIM).unwrap();
        let gate = Gate::new(directory.path().join("run/agent-0"));
        gate.create().unwrap();
        before(&gate);
        let python = std::env::var_os("SHIM_PYTHON").unwrap_or_else(|| "python3".into());
        let child = Command::new(python)
            .arg(directory.path().join("agent_shim.py"))
            .arg("--gate-dir")
            .arg(gate.directory())
            .args(options)
            .args(["--", "daemon", "--queue", "q"])
            .current_dir(&work)
            .env("PYTHONPATH", package)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, gate, child }
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn touch(&self, name: &str) {
        fs::write(self.work().join(name), "").unwrap();
    }

    fn seen(&self) -> Vec<String> {
        let text = fs::read_to_string(self.work().join("seen")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn reading(&self) -> Reading {
        self.gate.read(probe::now())
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < LIMIT, "{what}: {:?}, {:?}", self.reading(), self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn state_file(&self) -> u64 {
        fs::metadata(self.gate.directory().join("state")).map_or(0, |file| file.ino())
    }

    /// Waits until the daemon came to the gate this many times: the shim writes the state anew each time.
    fn visits(&self, count: usize) {
        let mut last = self.state_file();
        for _ in 0..count {
            self.until("comes to the gate", |shim| shim.state_file() != last);
            last = self.state_file();
        }
    }

    fn renew(&self) {
        self.gate.renew(probe::now() + Duration::from_secs(3600)).unwrap();
    }

    fn close(&self) -> Reading {
        let began = Instant::now();
        loop {
            if let Some(readings) = gate::try_close(std::slice::from_ref(&self.gate), probe::now()).unwrap() {
                return readings[0].clone();
            }
            assert!(began.elapsed() < LIMIT);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(mut self) -> Vec<String> {
        self.touch("stop");
        self.child.wait().unwrap();
        self.seen()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open(gate: &Gate) {
    gate.renew(probe::now() + Duration::from_secs(3600)).unwrap();
}

fn is_idle(shim: &Shim) -> bool {
    matches!(shim.reading(), Reading::Idle { .. })
}

fn holds(shim: &Shim, id: &str) -> bool {
    matches!(shim.reading(), Reading::Busy { task: Some(task), .. } if task == id)
}

#[test]
fn without_a_lease_nothing_is_polled() {
    let shim = Shim::start(&["task a"], &[], |_| {});
    shim.until("started", is_idle);
    assert_eq!(shim.gate.pid(), i32::try_from(shim.child.id()).ok());
    shim.renew();
    shim.until("polled once open", |shim| holds(shim, "a"));
    shim.touch("end-a");
    assert_eq!(shim.stop()[..3], ["poll task a", "begin a", "end a"]);
}

#[test]
fn a_lease_that_has_ended_is_closed() {
    let shim = Shim::start(&["task a"], &[], |gate| gate.renew(probe::now()).unwrap());
    shim.until("started", is_idle);
    shim.visits(5);
    assert!(shim.stop().is_empty());
}

#[test]
fn idleness_lasts_through_polls_and_begins_anew_after_a_task() {
    let shim = Shim::start(&["none", "none", "task a", "none", "wait"], &[], open);
    shim.until("took the task", |shim| holds(shim, "a"));
    shim.touch("end-a");
    let ended = probe::now();
    shim.until("polls again", |shim| matches!(shim.reading(), Reading::Polling { .. }));
    shim.until("waits", |shim| shim.seen().last().is_some_and(|line| line == "poll wait"));
    let Reading::Polling { since } = shim.reading() else { panic!("{:?}", shim.reading()) };
    assert!(since >= ended);
    shim.touch("go");
    shim.until("idle", is_idle);
    let Reading::Idle { since: later } = shim.reading() else { panic!("{:?}", shim.reading()) };
    assert_eq!(later, since);
}

#[test]
fn a_drain_waits_for_the_poll_in_flight_and_then_nothing_is_polled() {
    let shim = Shim::start(&["wait", "task a"], &[], open);
    shim.until("polls", |shim| shim.seen() == ["poll wait"]);
    assert_eq!(gate::try_close(std::slice::from_ref(&shim.gate), probe::now()).unwrap(), None);
    shim.touch("go");
    // Either it is idle at that instant, or it has taken the task: never anything between.
    let reading = shim.close();
    match reading {
        Reading::Idle { .. } => {
            shim.visits(5);
            assert_eq!(shim.stop(), ["poll wait"]);
        }
        Reading::Busy { task, .. } => assert_eq!(task.as_deref(), Some("a")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drained_agent_polls_again_when_it_is_let() {
    let shim = Shim::start(&[], &[], open);
    shim.until("polls", |shim| !shim.seen().is_empty());
    assert!(matches!(shim.close(), Reading::Idle { .. }));
    let polls = shim.seen().len();
    shim.visits(5);
    assert_eq!(shim.seen().len(), polls);
    shim.renew();
    shim.until("polls again", |shim| shim.seen().len() > polls);
}

#[test]
fn a_failed_poll_is_unknown_until_the_next_one() {
    let shim = Shim::start(&["error", "wait"], &[], open);
    shim.until("next poll", |shim| shim.seen().len() == 2);
    shim.touch("go");
    shim.until("settled", is_idle);
}

#[test]
fn a_failed_poll_stays_unknown_while_the_gate_is_closed() {
    let script = vec!["error"; 10_000];
    let shim = Shim::start(&script, &[], open);
    shim.until("failed", |shim| matches!(shim.reading(), Reading::Unknown { .. }));
    assert!(matches!(shim.close(), Reading::Unknown { .. }));
    std::thread::sleep(Duration::from_millis(200));
    assert!(matches!(shim.reading(), Reading::Unknown { .. }));
}

#[test]
fn a_task_that_the_daemon_never_ran_does_not_stand_for_ever() {
    let shim = Shim::start(&["task skipped", "wait"], &[], open);
    shim.until("went on", |shim| shim.seen().last().is_some_and(|line| line == "poll wait"));
    shim.touch("go");
    shim.until("idle", is_idle);
}

#[test]
fn a_gate_that_cannot_be_written_is_closed() {
    let shim = Shim::start(&["task a"], &[], |gate| {
        open(gate);
        // In the way of the shim's own file.
        fs::create_dir(gate.directory().join(".state.shim")).unwrap();
    });
    shim.until("started", |shim| shim.gate.pid().is_some());
    std::thread::sleep(Duration::from_millis(300));
    assert!(shim.seen().is_empty());
    fs::remove_dir(shim.gate.directory().join(".state.shim")).unwrap();
    shim.until("polls", |shim| holds(shim, "a"));
    shim.touch("end-a");
}

#[test]
fn alone_it_powers_off_once_it_was_idle_for_long_enough() {
    let shim = Shim::start(
        &["none", "task a"],
        &["--self-idle-limit", "0.7", "--power-off", "touch powered-off"],
        |_| {},
    );
    shim.until("took the task", |shim| holds(shim, "a"));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!shim.work().join("powered-off").exists(), "a task is held");
    shim.touch("end-a");
    shim.until("powered off", |shim| shim.work().join("powered-off").exists());
    let polls = shim.seen().len();
    shim.visits(5);
    assert_eq!(shim.seen().len(), polls, "its gate is closed for good");
}

#[test]
fn alone_it_waits_longer_while_a_failed_poll_is_not_settled() {
    let script = vec!["error"; 100_000];
    let options = ["--self-idle-limit", "0.2", "--power-off", "touch powered-off"];
    let began = Instant::now();
    let shim = Shim::start(&script, &options, |_| {});
    shim.until("powered off", |shim| shim.work().join("powered-off").exists());
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn an_agent_with_other_names_starts_ungated_and_not_at_all_alone() {
    let package = tempfile::tempdir().unwrap();
    let agent = package.path().join("clearml_agent");
    fs::create_dir(&agent).unwrap();
    fs::write(agent.join("__init__.py"), "").unwrap();
    fs::write(agent.join("__main__.py"), "open('started', 'w').close()\nimport time\ntime.sleep(60)\n")
        .unwrap();
    let shim = Shim::start_package(package.path(), &[], &[], |_| {});
    shim.until("started", |shim| shim.work().join("started").exists());
    assert!(shim.gate.is_ungated());

    let options = ["--self-idle-limit", "100"];
    let mut shim = Shim::start_package(package.path(), &[], &options, |_| {});
    assert_eq!(shim.child.wait().unwrap().code(), Some(3));
    assert!(!shim.work().join("started").exists());
}
