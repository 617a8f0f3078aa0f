//! The stand-in agent on a machine, through the gate, against the sandbox's ClearML server.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandbox::clearml::{Handle, Status};
use sandbox::{Options, Sandbox};
use serde_json::json;

use crate::common::{LIMIT, USER_DATA, Wire};
use crate::machines::machines;

const WORKER: &str = "dyn:aws:m5.xlarge:one";
/// Whoever has the last word about polling is not there: the lease is simply long.
const LEASE: &str = r#"read -r up _ </proc/uptime; echo $(((${up%.*} + 600) * 1000000000)) >"$gate/lease""#;

struct Fixture {
    sandbox: Sandbox,
    wire: Wire,
    server: Handle,
    queue: String,
}

impl Fixture {
    async fn start() -> Self {
        let mut ec2 = machines();
        ec2.machines.env = BTreeMap::from([
            ("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC".to_owned(), "0.05".to_owned()),
            ("CLEARML_WORKER_ID".to_owned(), WORKER.to_owned()),
        ]);
        let sandbox = Sandbox::start(Options { ec2, ..Options::default() }).await.unwrap();
        let wire = Wire::to(sandbox.ec2.clone());
        let server = sandbox.clearml.handle();
        let queue = server.create_queue("gpu queue").unwrap();
        Self { sandbox, wire, server, queue }
    }

    /// Launches an instance that prepares its gate with `before`, starts an agent and goes on with `after`.
    async fn launch(&self, before: &str, shim: &str, after: &str) -> String {
        let env: BTreeMap<String, String> = self.sandbox.environment().into_iter().collect();
        let (api, access, secret) =
            (&env["CLEARML_API_HOST"], &env["CLEARML_API_ACCESS_KEY"], &env["CLEARML_API_SECRET_KEY"]);
        let script = format!(
            r#"#!/bin/bash
gate="$CLEARML_AUTOSCALER_ROOT/run/clearml-autoscaler/agent-0"; mkdir -p "$gate"
cat >clearml.conf <<END
api {{ api_server: "{api}"
  credentials {{ "access_key" = "{access}", "secret_key" = "{secret}" }} }}
END
{before}
"$CLEARML_AUTOSCALER_ROOT/var/lib/clearml-autoscaler/venv/bin/python" /x/agent_shim.py --gate-dir "$gate" {shim} \
  -- --config-file clearml.conf daemon --foreground --queue "gpu queue" &
agent=$!
{after}
"#
        );
        let user_data = STANDARD.encode(script);
        let terminate = ("InstanceInitiatedShutdownBehavior", "terminate");
        self.wire.launch(1, 1, &[(USER_DATA, &user_data), terminate]).await.remove(0)
    }

    async fn reaches(&self, task: &str, status: Status) {
        let found = self.server.wait(LIMIT, |server| server.task(task).unwrap().status == status).await;
        let consoles: Vec<String> =
            self.sandbox.ec2.instances().iter().map(|it| self.sandbox.ec2.console(&it.id)).collect();
        assert!(found.is_ok(), "{:?} {consoles:?}", self.server.task(task));
    }
}

#[tokio::test]
async fn a_leased_agent_takes_and_finishes_tasks() {
    let fixture = Fixture::start().await;
    let server = &fixture.server;
    let first = server.create_task("first task", 0.1, Some(&fixture.queue)).unwrap();
    let second = server.create_task("second task", 0.0, Some(&fixture.queue)).unwrap();
    let id = fixture.launch(LEASE, "", "").await;
    fixture.reaches(&first, Status::Completed).await;
    fixture.reaches(&second, Status::Completed).await;
    assert_eq!(server.task(&first).unwrap().last_worker.as_deref(), Some(WORKER));
    assert_eq!(server.task(&first).unwrap().starts, 1);
    assert!(server.console(&first)[0].contains("pulled by worker"));
    let gate = fixture.sandbox.ec2.instance(&id).unwrap().dir.join("root/run/clearml-autoscaler/agent-0");
    let is_idle = |_: &sandbox::ec2::Ec2| {
        let state = std::fs::read_to_string(gate.join("state")).unwrap_or_default();
        state.starts_with("idle ")
    };
    assert!(fixture.sandbox.ec2.wait_until(LIMIT, is_idle).await);
    assert!(std::fs::read_to_string(gate.join("pid")).unwrap().trim().parse::<u32>().is_ok());
    assert!(fixture.sandbox.shutdown().await);
}

#[tokio::test]
async fn without_a_lease_nothing_is_taken() {
    let fixture = Fixture::start().await;
    let task = fixture.server.create_task("some task", 0.0, Some(&fixture.queue)).unwrap();
    fixture.launch("", "", &format!("until [ -e ../go ]; do sleep 0.05; done; {LEASE}")).await;
    let registered = |server: &Handle| !server.workers().is_empty();
    assert!(fixture.server.wait(LIMIT, registered).await.is_ok());
    // Three seconds and many polls later it reports for the first time, and has not polled.
    let reported = |server: &Handle| server.count("workers.status_report") > 0;
    assert!(fixture.server.wait(LIMIT, reported).await.is_ok());
    assert_eq!(fixture.server.count("queues.get_next_task"), 0);
    let dir = fixture.sandbox.ec2.instances()[0].dir.clone();
    std::fs::write(dir.join("go"), "").unwrap();
    fixture.reaches(&task, Status::Completed).await;
}

#[tokio::test]
async fn an_abort_is_noticed() {
    let fixture = Fixture::start().await;
    let task = fixture.server.create_task("long task", 600.0, Some(&fixture.queue)).unwrap();
    fixture.launch(LEASE, "", "").await;
    // Only then the second `tasks.started` is behind it, which would undo the abort: as with the real agent.
    let runs = |server: &Handle| server.count("tasks.get_by_id") > 0;
    assert!(fixture.server.wait(LIMIT, runs).await.is_ok());
    fixture.server.call("tasks.stop", json!({"task": task})).unwrap();
    fixture.reaches(&task, Status::Stopped).await;
    let next = fixture.server.create_task("next task", 0.0, Some(&fixture.queue)).unwrap();
    fixture.reaches(&next, Status::Completed).await;
}

#[tokio::test]
async fn sigterm_unregisters_the_worker() {
    let fixture = Fixture::start().await;
    let after =
        r#"until [ -e ../go ]; do sleep 0.05; done; kill -TERM $agent; wait $agent; echo "agent ended $?""#;
    let id = fixture.launch(LEASE, "", after).await;
    assert!(fixture.server.wait(LIMIT, |server| server.workers().len() == 1).await.is_ok());
    assert!(fixture.server.wait(LIMIT, |server| server.count("queues.get_next_task") > 0).await.is_ok());
    std::fs::write(fixture.sandbox.ec2.instance(&id).unwrap().dir.join("go"), "").unwrap();
    assert!(fixture.server.wait(LIMIT, |server| server.workers().is_empty()).await.is_ok());
    let ended = |ec2: &sandbox::ec2::Ec2| ec2.console(&id).contains("agent ended 254");
    assert!(fixture.sandbox.ec2.wait_until(LIMIT, ended).await, "{}", fixture.sandbox.ec2.console(&id));
}

#[tokio::test]
async fn an_agent_alone_powers_its_machine_off_when_idle() {
    let fixture = Fixture::start().await;
    let task = fixture.server.create_task("some task", 0.1, Some(&fixture.queue)).unwrap();
    let id = fixture.launch("", "--self-idle-limit 0.5 --power-off 'shutdown -P now'", "").await;
    fixture.reaches(&task, Status::Completed).await;
    let ec2 = &fixture.sandbox.ec2;
    assert!(ec2.wait_until(LIMIT, |ec2| ec2.counts().left == 0).await, "{}", ec2.console(&id));
    let reason = ec2.instance(&id).unwrap().reason;
    assert_eq!(reason.as_deref(), Some("Client.InstanceInitiatedShutdown"));
}
