//! Everything in user data, for machines that can't reach the controller.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::*;

fn user_data_of(setup: &AgentSetup) -> Result<String, TooLarge> {
    standalone_user_data(&Standalone {
        setup,
        worker_prefix: "prefix:gpu:g4dn.xlarge",
        queue: &NASTY.into(),
        max_spin_up: Duration::from_secs(1800),
        max_idle: Duration::from_millis(90_500),
    })
}

/// IMDSv2 alone, below a path as the sandbox has it.
async fn imds() -> String {
    let id = |headers: HeaderMap| async move {
        match headers.get("X-aws-ec2-metadata-token") {
            Some(token) if token == "T0KEN" => (StatusCode::OK, "i-0abc"),
            Some(_) | None => (StatusCode::UNAUTHORIZED, ""),
        }
    };
    let router = Router::new()
        .route("/imds/i/latest/api/token", put(|| async { "T0KEN" }))
        .route("/imds/i/latest/meta-data/instance-id", get(id));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/imds/i/")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_alone_keeps_the_promises() {
    let endpoint = imds().await;
    let machine = Arc::new(Machine::with_agent());
    let setup = AgentSetup {
        git_pass: "GIT-PASS".into(),
        extra_vm_bash_script: "export MINE='🚀'".into(),
        ..setup()
    };
    let text = user_data_of(&setup).unwrap();
    assert!(!text.contains("GIT-PASS"), "it is packed, at least");
    let output = {
        let machine = Arc::clone(&machine);
        let run = move || {
            let script = machine.path("user-data");
            fs::write(&script, text).unwrap();
            machine.bash(&script).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint).output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    assert!(output.status.success(), "{}\n{}", said(&output), machine.read(LOG));
    assert!(said(&output).contains(" ready\n"), "phases go to the console:\n{}", said(&output));
    assert!(!said(&output).contains("GIT-PASS") && !machine.read(LOG).contains("GIT-PASS"));
    assert_eq!(machine.lines("shutdown.calls"), ["-P +30", "-c"]);
    let arguments = machine.agent_arguments();
    assert_eq!(arguments[3..8], ["--self-idle-limit", "90.5", "--power-off", "shutdown -P now", "--"]);
    assert_eq!(arguments[12], NASTY);
    let worker = machine.agent_variable("CLEARML_WORKER_ID");
    assert_eq!(worker.as_deref(), Some("prefix:gpu:g4dn.xlarge:i-0abc"));
    assert_eq!(machine.agent_variable("MINE").as_deref(), Some("🚀"));
}

#[test]
fn what_does_not_fit_is_refused_and_what_packs_well_does() {
    let plain = user_data_of(&setup()).unwrap();
    assert!(plain.len() < 13_000, "{} bytes leave too little room", plain.len());
    let repetitive = "echo again\n".repeat(3_000);
    user_data_of(&AgentSetup { extra_vm_bash_script: repetitive, ..setup() }).unwrap();
    let noise: String = (0..1_000_u32).map(|n| STANDARD.encode(Sha256::digest(n.to_be_bytes()))).collect();
    assert!(user_data_of(&AgentSetup { extra_vm_bash_script: noise, ..setup() }).is_err());
}

#[test]
fn a_payload_that_is_damaged_ends_the_machine() {
    let machine = Machine::with_agent();
    let text = user_data_of(&setup()).unwrap().replace("PAYLOAD='H", "PAYLOAD='X");
    let output = machine.run_user_data(&text);
    assert!(!output.status.success());
    assert_eq!(machine.lines("shutdown.calls"), ["-P +30", "-P now"]);
}
