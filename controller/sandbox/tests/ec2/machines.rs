//! Instances as processes: what they run, how they end, and that nothing is left of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::{LIMIT, USER_DATA, Wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandbox::ec2::{Ec2, Options, State};
use sandbox::instances::{Image, MachineOptions};

const NONE: [i32; 0] = [];

pub(crate) fn machines() -> Options {
    let executable = Some(env!("CARGO_BIN_EXE_sandbox-process").into());
    Options {
        boot_delay: Duration::ZERO,
        other_images: Some(Image::StandIn),
        machines: MachineOptions { executable, ..MachineOptions::default() },
        ..Options::default()
    }
}

/// Launches one instance with this script; its id.
async fn launch(wire: &Wire, script: &str, terminate: bool) -> String {
    let user_data = STANDARD.encode(format!("#!/bin/bash\n{script}\n"));
    let behaviour = if terminate { "terminate" } else { "stop" };
    let more = [(USER_DATA, user_data.as_str()), ("InstanceInitiatedShutdownBehavior", behaviour)];
    wire.launch(1, 1, &more).await.remove(0)
}

async fn console_says(ec2: &Ec2, id: &str, text: &str) {
    let found = ec2.wait_until(LIMIT, |ec2| ec2.console(id).contains(text)).await;
    assert!(found, "no {text:?} on the console:\n{}", ec2.console(id));
}

async fn is_in(ec2: &Ec2, id: &str, state: State) {
    let reached = ec2.wait_until(LIMIT, |ec2| ec2.instance(id).unwrap().state == state).await;
    assert!(reached, "{:?}\n{}", ec2.instance(id), ec2.console(id));
}

/// The processes whose environment names the instance's directory, the supervisor's included.
fn processes_of(dir: &Path) -> Vec<i32> {
    let wanted = format!("CLEARML_AUTOSCALER_ROOT={}\0", dir.join("root").display());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let named = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(&wanted)
    };
    pids.filter(named).collect()
}

/// Strays of every kind: a child, one of another session, one that lost its parent and ignores signals.
const STRAYS: &str = "sleep 600 &
setsid sleep 600 &
(setsid bash -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done' &)
nohup sleep 600 >/dev/null 2>&1 &
echo strays are out";

#[tokio::test]
async fn user_data_runs_in_a_root_of_its_own() {
    let mut options = machines();
    options.machines.env = BTreeMap::from([("MORE".to_owned(), "more of it".to_owned())]);
    let wire = Wire::start(options).await;
    let script = r#"echo "root $CLEARML_AUTOSCALER_ROOT"; echo "$MORE"; apt-get install -y x
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
echo "I am $(curl -sf -H "X-aws-ec2-metadata-token: $token" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id")"
python="$CLEARML_AUTOSCALER_ROOT/var/lib/clearml-autoscaler/venv/bin/python"
"$python" -c 'import clearml_agent' && "$python" -m clearml_agent --version
exit 3"#;
    let id = launch(&wire, script, true).await;
    console_says(&wire.ec2, &id, "user data ended with code 3").await;
    let dir = wire.ec2.instance(&id).unwrap().dir;
    let console = wire.ec2.console(&id);
    assert!(console.contains(&format!("root {}", dir.join("root").display())), "{console}");
    assert!(console.contains("more of it"), "{console}");
    assert!(console.contains(&format!("I am {id}")), "{console}");
    assert!(console.contains("CLEARML-AGENT version"), "{console}");
    assert_eq!(std::fs::read_to_string(dir.join("apt.log")).unwrap(), "apt-get install -y x\n");
    let output = wire.ok("GetConsoleOutput", &[("InstanceId", &id)]).await;
    let output = STANDARD.decode(crate::common::one(&output, "output")).unwrap();
    assert!(String::from_utf8(output).unwrap().contains("more of it"));
    // The script is over, the machine is not.
    assert_eq!(wire.ec2.instance(&id).unwrap().state, State::Running);
    assert!(wire.ec2.shutdown().await);
    assert_eq!(processes_of(&dir), NONE);
}

#[tokio::test]
async fn terminating_leaves_no_process() {
    let wire = Wire::start(machines()).await;
    let id = launch(&wire, STRAYS, true).await;
    console_says(&wire.ec2, &id, "strays are out").await;
    let dir = wire.ec2.instance(&id).unwrap().dir;
    assert!(processes_of(&dir).len() >= 5);
    wire.ok("TerminateInstances", &[("InstanceId.1", &id)]).await;
    is_in(&wire.ec2, &id, State::Terminated).await;
    assert_eq!(processes_of(&dir), NONE);
}

#[tokio::test]
async fn powering_off_ends_the_instance() {
    let wire = Wire::start(machines()).await;
    let id = launch(&wire, &format!("shutdown -P +30\n{STRAYS}\nshutdown -P now"), true).await;
    is_in(&wire.ec2, &id, State::Terminated).await;
    let view = wire.ec2.instance(&id).unwrap();
    assert_eq!(view.reason.as_deref(), Some("Client.InstanceInitiatedShutdown"));
    assert_eq!(processes_of(&view.dir), NONE);

    let id = launch(&wire, "shutdown -h +0", false).await;
    is_in(&wire.ec2, &id, State::Stopped).await;
}

#[tokio::test]
async fn an_armed_shutdown_can_be_taken_back() {
    let wire = Wire::start(machines()).await;
    let script = "shutdown -P +1.5; echo fraction $?; shutdown -r now; echo reboot $?
shutdown -P +5; test -s ../power && echo armed; shutdown -c; test -e ../power || echo disarmed";
    let id = launch(&wire, script, true).await;
    console_says(&wire.ec2, &id, "user data ended with code 0").await;
    let console = wire.ec2.console(&id);
    for line in ["Failed to parse time specification: +1.5", "fraction 1", "reboot 1", "armed", "disarmed"] {
        assert!(console.contains(line), "no {line:?} in {console}");
    }
    assert_eq!(wire.ec2.instance(&id).unwrap().state, State::Running);
    assert!(wire.ec2.shutdown().await);
}

#[tokio::test]
async fn a_killed_supervisor_takes_everything_with_it() {
    let wire = Wire::start(machines()).await;
    let id = launch(&wire, STRAYS, true).await;
    console_says(&wire.ec2, &id, "strays are out").await;
    let dir = wire.ec2.instance(&id).unwrap().dir;
    let is_supervisor = |pid: &&i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("sandbox-instance")
    };
    let processes = processes_of(&dir);
    let supervisor = *processes.iter().find(is_supervisor).unwrap();
    let status =
        std::process::Command::new("kill").args(["-KILL", &supervisor.to_string()]).status().unwrap();
    assert!(status.success());
    is_in(&wire.ec2, &id, State::Terminated).await;
    assert_eq!(wire.ec2.instance(&id).unwrap().reason.as_deref(), Some("Server.InternalError"));
    assert_eq!(processes_of(&dir), NONE);
}

#[tokio::test]
async fn machines_end_with_their_sandbox() {
    let wire = Wire::start(machines()).await;
    let id = launch(&wire, STRAYS, true).await;
    console_says(&wire.ec2, &id, "strays are out").await;
    let dir = wire.ec2.instance(&id).unwrap().dir;
    assert!(wire.ec2.shutdown().await);
    assert_eq!(processes_of(&dir), NONE);
    assert_eq!(wire.ec2.counts().left, 0);
}

#[tokio::test]
async fn user_data_that_is_no_script_is_not_run() {
    let wire = Wire::start(machines()).await;
    let user_data = STANDARD.encode("touch ../ran\n");
    let id = wire.launch(1, 1, &[(USER_DATA, &user_data)]).await.remove(0);
    let dir = wire.ec2.instance(&id).unwrap().dir;
    let filled = |_: &Ec2| dir.join("root/var/lib/clearml-autoscaler/venv/bin/python3").exists();
    assert!(wire.ec2.wait_until(LIMIT, filled).await);
    assert!(wire.ec2.shutdown().await);
    assert!(!dir.join("ran").exists());
}
