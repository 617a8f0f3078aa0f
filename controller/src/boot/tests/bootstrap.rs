//! The bootstrap, against a real gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::ports::Clock;
use planner::Time;

use super::*;
use crate::gateway::{Artifacts, BootScripts, Gateway, Identity, Limits, MemoryVault, Settings};

/// Notes how it was started, and ends the loop that would start it again.
const SIDECAR: &str = r#"#!/bin/bash
cp "$3" "$CLEARML_AUTOSCALER_ROOT/seen.json"
printf '%s\n' "$*" >"$CLEARML_AUTOSCALER_ROOT/sidecar.argv"
kill $PPID"#;
const SECRET: &[u8] = b"launch secret '$(x)";

#[derive(Clone)]
struct Never;

impl Clock for Never {
    fn now(&self) -> Time {
        Time(0)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl BootScripts for Never {
    fn script(&self, _: &InstanceId, _: &IntentId) -> Option<v1::BootScript> {
        None
    }
}

fn gateway() -> Gateway {
    let mut artifacts = Artifacts::default();
    for arch in Arch::ALL {
        artifacts.insert(arch, SIDECAR);
    }
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        epoch: 1,
        silent_idle_limit: tokio::sync::watch::channel(Duration::ZERO).1,
        limits: Limits::default(),
    };
    let identity = Identity::generate().unwrap();
    let vault = Arc::new(MemoryVault::default());
    Gateway::bind(settings, &identity, vault, Arc::new(Never), artifacts, Never).unwrap()
}

fn of(gateway: &Gateway, pin: &str, sidecars: &BTreeMap<Arch, String>) -> String {
    let intent = IntentId::from("in-7");
    let bootstrap = Bootstrap {
        controller: &format!("https://{}", gateway.local_addr()),
        pin,
        launch_secret: SECRET,
        intent: &intent,
        sidecars,
        max_spin_up: Duration::from_secs(90),
    };
    user_data(&bootstrap).unwrap().replace("ATTEMPTS='100'", "ATTEMPTS='2'")
}

async fn run(machine: Arc<Machine>, text: String) -> Output {
    tokio::task::spawn_blocking(move || machine.run_user_data(&text)).await.unwrap()
}

fn announces_itself(machine: &Machine) {
    let seen: serde_json::Value = serde_json::from_str(&machine.read("seen.json")).unwrap();
    assert_eq!(seen["intent"], "in-7");
    assert_eq!(seen["launch_secret"], STANDARD.encode(SECRET));
    let own = machine.own("");
    let own = own.display();
    assert_eq!(machine.read("sidecar.argv"), format!("run --config {own}sidecar.json\n"));
    let mode = |name| fs::metadata(machine.own(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("sidecar.json"), mode("sidecar"), mode("")), (0o600, 0o700, 0o700));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_is_fetched_and_started_with_its_configuration() {
    let gateway = gateway();
    let machine = Arc::new(Machine::new());
    let text = of(&gateway, gateway.pin(), &gateway.artifacts().hashes());
    assert!(text.len() < 6_000 && text.starts_with("#!/bin/bash\n"));
    let output = run(Arc::clone(&machine), text).await;
    assert!(output.status.success(), "{}", said(&output));
    machine.wait_for("the sidecar starts", |machine| machine.path("sidecar.argv").exists());
    announces_itself(&machine);
    assert_eq!(machine.lines("shutdown.calls"), ["-P +2"], "armed, and nothing else");
    assert!(!said(&output).contains(&STANDARD.encode(SECRET)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_systemd_runs_the_sidecar_is_a_unit_that_comes_back() {
    let gateway = gateway();
    let machine = Arc::new(Machine::new());
    fs::create_dir_all(machine.path("run/systemd/system")).unwrap();
    let text = of(&gateway, gateway.pin(), &gateway.artifacts().hashes());
    let output = run(Arc::clone(&machine), text).await;
    assert!(output.status.success(), "{}", said(&output));
    machine.wait_for("the sidecar starts", |machine| machine.path("sidecar.argv").exists());
    announces_itself(&machine);
    let unit = machine.read("etc/systemd/system/clearml-autoscaler-sidecar.service");
    assert!(unit.contains("\nRestart=always\n") && unit.contains("\nKillMode=process\n"));
    let calls = machine.lines("systemctl.calls");
    let name = "clearml-autoscaler-sidecar.service";
    assert_eq!(
        calls,
        ["daemon-reload".to_owned(), format!("enable {name}"), format!("restart --no-block {name}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_or_another_binary_ends_the_machine() {
    let gateway = gateway();
    let honest = gateway.artifacts().hashes();
    let other = Identity::generate().unwrap();
    let swapped: BTreeMap<_, _> = Arch::ALL.map(|arch| (arch, "0".repeat(64))).into();
    let cases = [
        ("another key", of(&gateway, other.pin(), &honest)),
        ("another binary", of(&gateway, gateway.pin(), &swapped)),
        ("no binary", of(&gateway, gateway.pin(), &BTreeMap::new())),
    ];
    for (what, text) in cases {
        let machine = Arc::new(Machine::new());
        let output = run(Arc::clone(&machine), text).await;
        assert!(!output.status.success(), "{what}");
        assert_eq!(machine.lines("shutdown.calls"), ["-P +2", "-P now"], "{what}");
        assert!(!machine.own("sidecar").exists() && !machine.own("sidecar.json").exists(), "{what}");
        assert!(said(&output).contains("powering off"), "{what}");
    }
}

#[test]
fn user_data_that_ec2_would_not_take_is_refused() {
    let (sidecars, intent) = (BTreeMap::new(), IntentId::from("in-1"));
    let bootstrap = Bootstrap {
        controller: &"x".repeat(MAX_USER_DATA),
        pin: "",
        launch_secret: b"",
        intent: &intent,
        sidecars: &sidecars,
        max_spin_up: Duration::from_millis(1),
    };
    let error = user_data(&bootstrap).unwrap_err();
    assert!(error.size > MAX_USER_DATA && error.to_string().contains("16384"));
}
