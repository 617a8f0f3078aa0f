//! The boot script, as the sidecar runs it.

use super::*;

fn script_of(setup: &AgentSetup, queue: &str) -> v1::BootScript {
    boot_script(&BootInputs {
        setup,
        instance: &"i-0001".into(),
        worker: &"prefix:gpu:g4dn.xlarge:i-0001".into(),
        queue: &queue.into(),
    })
}

fn booted(machine: &Machine, setup: &AgentSetup) {
    let output = machine.run_boot_script(&script_of(setup, "default"));
    assert!(output.status.success(), "{}\n{}", said(&output), machine.read(LOG));
    assert_eq!(said(&output), "", "everything goes to the log");
}

#[test]
fn an_image_with_the_agent_is_ready_without_installing_anything() {
    let machine = Machine::with_agent();
    booted(&machine, &setup());
    assert_eq!(machine.phases(), ["configuration", "extra", "start", "ready"]);
    assert!(machine.lines("apt-get.calls").is_empty());
    let gate = machine.path("run/clearml-autoscaler/agent-0").display().to_string();
    let boot = machine.own("boot").display().to_string();
    let conf = machine.path("root/clearml.conf").display().to_string();
    assert_eq!(
        machine.agent_arguments(),
        [
            &format!("{boot}/agent_shim.py"),
            "--gate-dir",
            &gate,
            "--",
            "--config-file",
            &conf,
            "daemon",
            "--queue",
            "default",
            "--foreground",
        ]
    );
    let variable = |name| machine.agent_variable(name);
    assert_eq!(variable("CLEARML_WORKER_ID").as_deref(), Some("prefix:gpu:g4dn.xlarge:i-0001"));
    assert_eq!(variable("DYNAMIC_INSTANCE_ID").as_deref(), Some("i-0001"));
    assert_eq!(variable("CLEARML_API_HOST"), None, "the configuration decides, not the image");
    assert_eq!(variable("NVIDIA_VISIBLE_DEVICES"), None);
    assert_eq!(machine.read("agent.umask"), "0022\n");
    assert!(machine.lines("shutdown.calls").is_empty());

    machine.stop_agent();
    machine
        .wait_for("the machine ends with its agent", |machine| machine.lines("shutdown.calls") == ["-P now"]);
}

#[test]
fn where_systemd_runs_the_agent_is_a_unit_that_ends_the_machine() {
    let machine = Machine::with_agent();
    fs::create_dir_all(machine.path("run/systemd/system")).unwrap();
    booted(&machine, &setup());
    let unit = machine.read("etc/systemd/system/clearml-autoscaler-agent.service");
    assert!(unit.contains("\nKillSignal=SIGKILL\n"));
    let after = unit.lines().find_map(|line| line.strip_prefix("ExecStopPost=/bin/bash ")).unwrap();
    let (wrapper, argument) = after.split_once(' ').unwrap();
    let ended = machine.bash(Path::new(wrapper)).arg(argument).output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
    assert_eq!(machine.lines("shutdown.calls"), ["-P now"]);
}

#[test]
fn any_text_is_inert_and_arrives_whole() {
    let machine = Machine::with_agent();
    let setup = AgentSetup {
        docker_image: format!("image:1 --env A={NASTY}"),
        git_user: "Jürgen".into(),
        git_pass: format!("{NASTY}\t{NASTY}"),
        auth_token: NASTY.into(),
        extra_vm_bash_script: format!("export PLAIN='ümläut 🚀'\r\ncat <<'X' >/dev/null\r\n{NASTY}\r\nX\r\n"),
        extra_clearml_conf: format!("agent.note: \"{}\"", "ü🚀"),
        ..setup()
    };
    let output = machine.run_boot_script(&script_of(&setup, NASTY));
    assert!(output.status.success(), "{}\n{}", said(&output), machine.read(LOG));
    let arguments = machine.agent_arguments();
    assert_eq!(arguments[8], NASTY);
    assert_eq!(arguments[10..], ["--docker".to_owned(), setup.docker_image.clone()]);
    assert_eq!(machine.agent_variable("CLEARML_AUTH_TOKEN").as_deref(), Some(NASTY));
    assert_eq!(machine.agent_variable("PLAIN").as_deref(), Some("ümläut 🚀"));
    let conf = machine.read("root/clearml.conf");
    let password = conf.lines().find_map(|line| line.strip_prefix("agent.git_pass = ")).unwrap();
    assert_eq!(serde_json::from_str::<String>(password).unwrap(), setup.git_pass);
    assert!(conf.trim_end().ends_with("agent.note: \"ü🚀\""));
    for dir in ["", "root", "var/lib/clearml-autoscaler", "var/lib/clearml-autoscaler/boot"] {
        assert!(!machine.path(dir).join("PWNED").exists(), "{dir}");
    }
}

#[test]
fn no_secret_is_printed_and_files_are_for_root_alone() {
    let machine = Machine::with_agent();
    let setup = AgentSetup {
        git_pass: "GIT-PASS".into(),
        auth_token: "AUTH-TOKEN".into(),
        extra_vm_bash_script: "MINE=EXTRA-SECRET".into(),
        ..setup()
    };
    booted(&machine, &setup);
    let log = machine.read(LOG);
    for secret in ["SECRET-KEY", "ACCESS-KEY", "GIT-PASS", "AUTH-TOKEN", "EXTRA-SECRET"] {
        assert!(!log.contains(secret), "{secret} in the log:\n{log}");
        assert!(!machine.agent_arguments().concat().contains(secret), "{secret} among the arguments");
    }
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(machine.own("boot")), 0);
    assert_eq!(mode(machine.own("boot/environment")), 0);
    assert_eq!(mode(machine.path("root/clearml.conf")), 0);
    assert_eq!(machine.agent_variable("CLEARML_API_SECRET_KEY"), None);
}

#[test]
fn the_images_own_settings_stay_and_ours_are_written_once() {
    let machine = Machine::with_agent();
    machine.write("root/clearml.conf", "agent.package_manager.type: conda\n");
    machine.write("root/.bashrc", "export FROM_BASHRC=yes\nreturn\n");
    booted(&machine, &AgentSetup { cpu_only: true, ..setup() });
    assert_eq!(machine.agent_variable("FROM_BASHRC").as_deref(), Some("yes"));
    assert_eq!(machine.agent_variable("NVIDIA_VISIBLE_DEVICES").as_deref(), Some("none"));
    assert_eq!(machine.agent_variable("CLEARML_DOCKER_SKIP_GPUS_FLAG").as_deref(), Some("1"));
    let conf = machine.read("root/clearml.conf");
    assert!(conf.starts_with("agent.package_manager.type: conda\n"));
    assert_eq!(conf.matches("api.credentials.secret_key = \"SECRET-KEY\"").count(), 1);
}

#[test]
fn an_extra_script_ends_only_itself_and_fails_the_boot_if_it_says_so() {
    for (script, exported) in [
        ("export MINE=1\nfalse", Some("1")),
        ("export MINE=2\nexit 0\nexport MINE=3", Some("2")),
        ("set -eu\ntrap 'true' EXIT\nexport MINE=4\ncd /", Some("4")),
        ("export PATH=\"/opt/mine:$PATH\" MINE='5\n6'", Some("5\n6")),
        ("echo $UNSET_VARIABLE", None),
    ] {
        let machine = Machine::with_agent();
        booted(&machine, &AgentSetup { extra_vm_bash_script: script.into(), ..setup() });
        assert_eq!(machine.agent_variable("MINE").as_deref(), exported, "{script}");
    }
    for script in ["echo the reason; exit 3", "set -e\nfalse\ntrue", "set -u\necho $UNSET_VARIABLE"] {
        let machine = Machine::with_agent();
        let output = machine
            .run_boot_script(&script_of(&AgentSetup { extra_vm_bash_script: script.into(), ..setup() }, "q"));
        assert!(!output.status.success(), "{script}");
        assert_eq!(machine.phases(), ["configuration", "extra", "failed extra"], "{script}");
        assert_eq!(machine.lines("shutdown.calls"), ["-P now"], "{script}");
        assert!(machine.agent_arguments().is_empty());
    }
}

#[test]
fn what_is_missing_is_installed_and_nothing_else() {
    let machine = Machine::new();
    machine.write("agent-python", PYTHON);
    machine.program(
        "python3",
        r#"#!/bin/bash
[ "$1 $2" = "-m venv" ] || exit 1
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'X'
#!/bin/bash
printf '%s\n' "$*" >>"$CLEARML_AUTOSCALER_ROOT/python.calls"
[ "$3" = install ] && [ "$4" = clearml-agent==3.0.3 ] && cp "$CLEARML_AUTOSCALER_ROOT/agent-python" "$0.new" && mv "$0.new" "$0"
[ "$1" = -m ]
X
chmod 755 "$3/bin/python""#,
    );
    booted(
        &machine,
        &AgentSetup { agent_version: Some("3.0.3".into()), docker_image: "i".into(), ..setup() },
    );
    let phases = ["packages", "virtualenv", "agent", "configuration", "extra", "start", "ready"];
    assert_eq!(machine.phases(), phases);
    let calls = machine.lines("apt-get.calls");
    assert!(calls[0].ends_with("update") && calls[1].contains("install -y python3 python3-pip python3-venv"));
    assert!(!calls[1].contains("docker") && !calls[1].contains("build-essential"), "tasks bring their own");
    assert_eq!(machine.lines("python.calls").last().unwrap(), "-m pip install clearml-agent==3.0.3");
}

#[test]
fn a_machine_that_cannot_be_prepared_says_where_and_ends() {
    let machine = Machine::new();
    machine.program("python3", "#!/bin/bash\nexit 1");
    let output = machine.run_boot_script(&script_of(&setup(), "q"));
    assert!(!output.status.success());
    assert_eq!(machine.phases(), ["packages", "virtualenv", "failed virtualenv"]);
    assert_eq!(machine.lines("shutdown.calls"), ["-P now"]);
}

#[test]
fn an_agent_that_does_not_come_up_fails_the_boot() {
    let machine = Machine::new();
    machine.write("var/lib/clearml-autoscaler/venv/bin/python", "#!/bin/bash\n[ \"$1\" = -c ]");
    let mut script = script_of(&setup(), "q");
    script.script = script.script.replace("READY_WAIT_TENTHS='3000'", "READY_WAIT_TENTHS='20'");
    let output = machine.run_boot_script(&script);
    assert!(!output.status.success());
    assert_eq!(machine.phases().last().unwrap(), "failed start");
    machine.wait_for("both ends power it off", |machine| machine.lines("shutdown.calls").len() == 2);
}
