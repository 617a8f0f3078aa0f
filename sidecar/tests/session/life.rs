//! The executable on an instance of its own: a root, a metadata service, a `shutdown` that writes down what it is
//! told, and a small agent in bash.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::controller::{Controller, LIMIT, Session};
use proto::v1::from_sidecar::Body as From;
use proto::v1::hello::Credential;
use proto::v1::to_sidecar::Body;
use proto::v1::{
    BootScript, File, GateState, Hello, Order, OrderAnswer, OrderKind, Outcome, Report, Standing, Welcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Plays shim and agent: polls every five seconds, while the test does not write its state.
const AGENT: &str = r#"
gate="$CLEARML_AUTOSCALER_ROOT/run/clearml-autoscaler/agent-0"
since=$(awk '{ printf "%.0f", $1 * 1000000000 }' /proc/uptime)
say() { echo "$2" > "$gate/.$1" && mv "$gate/.$1" "$gate/$1"; }
say pid $BASHPID
say state "idle $since"
while [ -e "$gate/polls" ]; do
    sleep 5
    say state "polling $since"
    say state "idle $since"
done
exec sleep 1000
"#;

pub(crate) struct Instance {
    root: tempfile::TempDir,
    imds: String,
    config: PathBuf,
    executable: PathBuf,
    pub(crate) sidecar: Child,
}

impl Instance {
    pub(crate) async fn start(controller: &Controller) -> Self {
        Self::start_executable(controller, env!("CARGO_BIN_EXE_sidecar").into()).await
    }

    pub(crate) async fn start_executable(controller: &Controller, executable: PathBuf) -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("var/lib/clearml-autoscaler");
        fs::create_dir_all(&home).unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let shutdown = bin.join("shutdown");
        fs::write(&shutdown, format!("#!/bin/sh\necho \"$@\" >> {}/shutdown.log\n", root.path().display()))
            .unwrap();
        fs::set_permissions(&shutdown, fs::Permissions::from_mode(0o755)).unwrap();
        let config = home.join("sidecar.json");
        let text = format!(
            r#"{{"controller":"https://{}","pin":"{}","launch_secret":"c2VjcmV0","intent":"n-1","root":"{}"}}"#,
            controller.address,
            controller.pin,
            root.path().display()
        );
        fs::write(&config, text).unwrap();
        let imds = metadata().await;
        let sidecar = spawn(&executable, root.path(), &config, &imds);
        Self { root, imds, config, executable, sidecar }
    }

    /// As its unit does it after a crash.
    fn restart(&mut self) {
        self.sidecar.kill().unwrap();
        self.sidecar.wait().unwrap();
        self.sidecar = spawn(&self.executable, self.root.path(), &self.config, &self.imds);
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("var/lib/clearml-autoscaler")
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.root.path().join("run/clearml-autoscaler/agent-0")
    }

    fn set_state(&self, state: &str) {
        let since = fs::read_to_string(self.gate().join("state")).unwrap();
        let since = since.rsplit_once(' ').unwrap().1.to_owned();
        fs::write(self.gate().join(".test"), format!("{state} {since}")).unwrap();
        fs::rename(self.gate().join(".test"), self.gate().join("state")).unwrap();
    }

    fn is_open(&self) -> bool {
        self.gate().join("lease").exists()
    }

    fn shutdowns(&self) -> String {
        fs::read_to_string(self.root.path().join("shutdown.log")).unwrap_or_default()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}"));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
        if let Ok(pid) = fs::read_to_string(self.gate().join("pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn spawn(executable: &Path, root: &Path, config: &Path, imds: &str) -> Child {
    let path = std::env::var("PATH").unwrap();
    Command::new(executable)
        .args(["run", "--config"])
        .arg(config)
        .env("PATH", format!("{}:{path}", root.join("bin").display()))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// Answers each question with the id, and a request for a token with something as good.
async fn metadata() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ni-1").await;
        }
    });
    format!("http://{address}")
}

pub(crate) fn welcome(script: Option<&str>) -> Body {
    let file = File { name: "agent".to_owned(), content: AGENT.into(), mode: 0o600 };
    let boot_script = script.map(|script| BootScript {
        script: script.to_owned(),
        files: vec![file],
        worker_ids: vec!["p:r:t:i-1".to_owned()],
    });
    let instance_token = if script.is_some() { vec![9; 32] } else { Vec::new() };
    Body::Welcome(Welcome { instance_token, boot_script, silent_idle_limit_ms: 600_000, epoch: 3 })
}

/// Starts the agent apart from itself, as a real one does.
pub(crate) const SCRIPT: &str = r#"
phase="$CLEARML_AUTOSCALER_ROOT/var/lib/clearml-autoscaler/phase"
echo apt >> "$phase"
setsid --fork bash ./agent < /dev/null > /dev/null 2>&1
echo ready >> "$phase"
"#;

impl Session {
    pub(crate) async fn report(&mut self, mut condition: impl FnMut(&Report) -> bool) -> Report {
        self.until(|body| match body {
            From::Report(report) => condition(&report).then_some(report),
            From::Hello(_) | From::Answer(_) | From::BootLog(_) => None,
        })
        .await
    }

    async fn order(&mut self, kind: OrderKind, generation: u64) -> OrderAnswer {
        self.say(Body::Order(Order { kind: kind.into(), epoch: 3, generation })).await;
        self.until(|body| match body {
            From::Answer(answer) => Some(answer),
            From::Hello(_) | From::Report(_) | From::BootLog(_) => None,
        })
        .await
    }
}

fn is(report: &Report, gate: GateState) -> bool {
    report.agents.iter().all(|agent| agent.gate() == gate) && report.agents.len() == 1
}

#[tokio::test]
async fn an_instance_boots_works_and_is_drained_across_restarts_of_both_sides() {
    let mut controller = Controller::start().await;
    let mut instance = Instance::start(&controller).await;

    let mut session = controller.session().await;
    let Hello { protocol_version, instance_id, intent_id, wants_boot_script, credential, .. } =
        session.hello.clone();
    assert_eq!((protocol_version, instance_id.as_str(), intent_id.as_str()), (1, "i-1", "n-1"));
    assert!(wants_boot_script);
    assert_eq!(credential, Some(Credential::LaunchSecret(b"secret".to_vec())));
    session.say(welcome(Some(SCRIPT))).await;
    let report = session.report(|report| report.boot_phase == "ready" && is(report, GateState::Idle)).await;
    assert!(report.agents[0].alive && report.free_disk_bytes > 0);
    assert_eq!(report.agents[0].worker_id, "p:r:t:i-1");
    assert_eq!(fs::metadata(instance.home().join("boot/agent")).unwrap().permissions().mode() & 0o777, 0o600);
    instance.until("the armed shutdown is cancelled", |instance| instance.shutdowns() == "-c\n").await;
    instance.until("the gate is open", Instance::is_open).await;

    instance.set_state("busy:t-1");
    let busy = session.report(|report| is(report, GateState::Busy)).await;
    assert_eq!(busy.agents[0].task_id, "t-1");
    let refused = session.order(OrderKind::Drain, 1).await;
    assert_eq!((refused.outcome(), refused.task_id.as_str()), (Outcome::RefusedBusy, "t-1"));
    instance.until("the gate is open again", Instance::is_open).await;

    // The controller goes and comes: the idle clock runs on, the token is asked for, the script is not.
    instance.set_state("idle");
    let idle = session.report(|report| is(report, GateState::Idle)).await.agents[0].for_ms;
    drop(session);
    controller = controller.restart().await;
    let mut session = controller.session().await;
    assert!(!session.hello.wants_boot_script);
    assert_eq!(session.hello.credential, Some(Credential::InstanceToken(vec![9; 32])));
    session.say(welcome(None)).await;
    let report = session.report(|report| is(report, GateState::Idle)).await;
    assert!(report.agents[0].for_ms >= idle);

    assert_eq!(session.order(OrderKind::Drain, 2).await.outcome(), Outcome::Done);
    assert!(!instance.is_open());

    // The sidecar dies and is started again: it still knows that it was drained.
    instance.restart();
    let mut session = controller.session().await;
    session.say(welcome(None)).await;
    let report = session.report(|report| is(report, GateState::Idle)).await;
    assert_eq!((report.standing(), report.generation), (Standing::Drained, 2));
    assert!(report.agents[0].for_ms >= idle && report.agents[0].alive);
    assert!(!instance.is_open());
    assert_eq!(session.order(OrderKind::Drain, 1).await.outcome(), Outcome::RefusedStale);
    assert_eq!(session.order(OrderKind::Undrain, 3).await.outcome(), Outcome::Done);
    instance.until("the gate is open again", Instance::is_open).await;
    assert_eq!(session.order(OrderKind::Drain, 4).await.outcome(), Outcome::Done);
    assert_eq!(session.order(OrderKind::Retire, 5).await.outcome(), Outcome::Done);

    let pid = fs::read_to_string(instance.gate().join("pid")).unwrap();
    Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
    session.report(|report| !report.agents[0].alive).await;
    instance.until("the machine ends", |instance| instance.shutdowns().contains("-P now")).await;
}

#[tokio::test]
async fn a_boot_that_fails_is_told_with_the_tail_of_its_log() {
    let mut controller = Controller::start().await;
    let instance = Instance::start(&controller).await;
    let mut session = controller.session().await;
    session.say(welcome(Some("echo begin\necho 'no such package' >&2\nexit 3\n"))).await;
    let log = session
        .until(|body| match body {
            From::BootLog(log) => log.failed.then_some(log),
            From::Hello(_) | From::Report(_) | From::Answer(_) => None,
        })
        .await;
    assert_eq!((log.phase.as_str(), log.log_tail.as_str()), ("script", "begin\nno such package\n"));
    session.report(|report| report.boot_phase == "failed").await;
    assert!(!instance.shutdowns().contains("-P now"), "not before it could be told");
}

#[tokio::test]
async fn a_file_of_the_script_stays_in_its_directory() {
    let mut controller = Controller::start().await;
    let instance = Instance::start(&controller).await;
    let mut session = controller.session().await;
    let file = File { name: "../escaped".to_owned(), content: Vec::new(), mode: 0o600 };
    let script = BootScript { script: "true".to_owned(), files: vec![file], worker_ids: Vec::new() };
    session.say(Body::Welcome(Welcome { boot_script: Some(script), ..Welcome::default() })).await;
    session.report(|report| report.boot_phase == "failed").await;
    assert!(!instance.home().join("escaped").exists() && !instance.home().join("boot/begun").exists());
}
