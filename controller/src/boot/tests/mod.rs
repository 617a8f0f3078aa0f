//! The generated scripts, run by real bash in a private root. Stand-ins, first on PATH, play what would
//! change the machine: shutdown, apt-get, systemctl, docker, sleep and the Python that has the agent.

mod bootstrap;
mod script;
mod standalone;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use proto::v1;
use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const NASTY: &str = "a b'c\"d `touch PWNED` $(touch PWNED) ${HOME} \\ ; & | * # ümläut 你好 🚀";

/// Notes its arguments, one call a line.
const NOTES: &str = r#"#!/bin/bash
printf '%s\n' "$*" >>"$CLEARML_AUTOSCALER_ROOT/${0##*/}.calls""#;

/// Ends nothing, starts what a unit says.
const SYSTEMCTL: &str = r#"#!/bin/bash
printf '%s\n' "$*" >>"$CLEARML_AUTOSCALER_ROOT/systemctl.calls"
case "$1" in
    is-system-running) echo running ;;
    restart)
        start="$(sed -n 's/^ExecStart=//p' "$CLEARML_AUTOSCALER_ROOT/etc/systemd/system/$3")"
        setsid bash -c "exec $start" </dev/null >/dev/null 2>&1 & ;;
esac"#;

/// The agent's Python: has the agent, and plays the shim until it is told to stop.
const PYTHON: &str = r#"#!/bin/bash
[ "$1" = -c ] && exit 0
printf '%s\0' "$@" >"$CLEARML_AUTOSCALER_ROOT/agent.argv.part"
env -0 >"$CLEARML_AUTOSCALER_ROOT/agent.env"
umask >"$CLEARML_AUTOSCALER_ROOT/agent.umask"
mv "$CLEARML_AUTOSCALER_ROOT/agent.argv.part" "$CLEARML_AUTOSCALER_ROOT/agent.argv"
echo $$ >"$3/pid"
for _ in $(seq 600); do
    [ -e "$CLEARML_AUTOSCALER_ROOT/stop" ] && exit 7
    /bin/sleep 0.05
done"#;

/// A machine: its root and what stands in for its programs. Whatever it runs ends with it.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        for tool in ["shutdown", "apt-get", "docker"] {
            machine.program(tool, NOTES);
        }
        machine.program("systemctl", SYSTEMCTL);
        machine.program("sleep", "#!/bin/bash\nexec /bin/sleep 0.01");
        machine
    }

    /// One whose image has the agent.
    fn with_agent() -> Self {
        let machine = Self::new();
        machine.write("var/lib/clearml-autoscaler/venv/bin/python", PYTHON);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn own(&self, name: &str) -> PathBuf {
        self.path("var/lib/clearml-autoscaler").join(name)
    }

    fn program(&self, name: &str, text: &str) {
        self.write(&format!("bin/{name}"), text);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn bash(&self, script: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg("bash").arg(script);
        command.env("CLEARML_AUTOSCALER_ROOT", self.root.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("CLEARML_API_HOST", "http://of-the-image");
        command.env_remove("HOME").current_dir(self.root.path());
        command
    }

    /// As cloud-init runs it.
    fn run_user_data(&self, text: &str) -> Output {
        let script = self.path("user-data");
        fs::write(&script, text).unwrap();
        self.bash(&script).output().unwrap()
    }

    /// As the sidecar runs it.
    fn run_boot_script(&self, script: &v1::BootScript) -> Output {
        fs::create_dir_all(self.own("boot")).unwrap();
        for file in &script.files {
            let path = self.own("boot").join(&file.name);
            fs::write(&path, &file.content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
        }
        let path = self.own("boot/boot.sh");
        fs::write(&path, &script.script).unwrap();
        self.bash(&path).current_dir(self.own("boot")).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    fn phases(&self) -> Vec<String> {
        self.lines("var/lib/clearml-autoscaler/phase")
    }

    /// The agent's arguments, the shim's included.
    fn agent_arguments(&self) -> Vec<String> {
        self.read("agent.argv").split_terminator('\0').map(str::to_owned).collect()
    }

    fn agent_variable(&self, name: &str) -> Option<String> {
        let all = self.read("agent.env");
        let found = all.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned)
    }

    /// Whatever has this machine's root among its arguments.
    fn processes(&self) -> Vec<String> {
        let root = self.root.path().display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let ours = all.filter(|entry| {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&root)
        });
        ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn stop_agent(&self) {
        fs::write(self.path("stop"), "").unwrap();
    }

    fn wait_for(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !ready(self) {
            assert!(began.elapsed() < PATIENCE, "{what}; the log:\n{}", self.read(LOG));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const LOG: &str = "var/lib/clearml-autoscaler/boot/log";

impl Drop for Machine {
    fn drop(&mut self) {
        // The directory goes only when nothing runs in it any more.
        self.stop_agent();
        let began = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            if began.elapsed() > PATIENCE {
                let mut kill = Command::new("kill");
                // A process that has ended by now is as well.
                let _ = kill.arg("-9").args(left).status();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn setup() -> AgentSetup {
    AgentSetup {
        api_server: "https://api.example".into(),
        web_server: "https://web.example".into(),
        files_server: "https://files.example".into(),
        access_key: "ACCESS-KEY".into(),
        secret_key: "SECRET-KEY".into(),
        ..AgentSetup::default()
    }
}
