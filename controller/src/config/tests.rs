//! Files in, faults out: the texts stand in `testdata/config`. `UPDATE_EXPECTED=1` rewrites what is expected.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use planner::{FleetId, InstanceType, Market, Offering, Placement, QueueName, ResourceName, SidecarMode};
use secrecy::ExposeSecret;

use super::{Advertise, Config, Credentials, Ebs, Faults, InstanceProfile, SidecarSetting, Volume, load};

const RESOURCE: &str = "instance_type: g4dn.xlarge, ami_id: ami-1";

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config").join(name)
}

/// A configuration that is good but for these keys of its only resource.
fn with_resource(keys: &str) -> String {
    format!(
        "configurations: {{resource_configurations: {{gpu: {{{RESOURCE}, {keys}}}}}, queues: {{default: [[gpu, 1]]}}}}"
    )
}

/// A configuration that is good but for these keys of `hyper_params`.
fn with_hyper_params(keys: &str) -> String {
    format!("hyper_params: {{{keys}}}\n{}", with_resource(""))
}

fn read(text: &str, env: &[(&str, &str)]) -> Result<Config, Faults> {
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    super::read::parse(Path::new("/etc/aws_autoscaler.yaml"), text, &lookup)
}

fn good(text: &str) -> Config {
    read(text, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// `## title`, the file's text, `-- faults`, what is printed; again and again.
fn check_scenarios(name: &str) {
    let path = testdata("faults").join(name);
    let scenarios = std::fs::read_to_string(&path).unwrap();
    let mut actual = String::new();
    for scenario in scenarios.split("## ").skip(1) {
        let (title, rest) = scenario.split_once('\n').unwrap();
        let text = rest.split("-- faults\n").next().unwrap().trim_end();
        let lines = text.lines().map(|line| match line.strip_prefix('@') {
            Some("good") => with_resource(""),
            Some(gpu) => with_resource(gpu.strip_prefix("gpu ").unwrap()),
            None => line.to_owned(),
        });
        let faults = read(&lines.collect::<Vec<_>>().join("\n"), &[]).expect_err(title);
        assert!(
            !faults.to_string().to_lowercase().contains("hunter"),
            "{title}: a secret is shown: {faults}"
        );
        let faults = faults.to_string().replace("/etc/aws_autoscaler.yaml", "FILE");
        write!(actual, "## {title}\n{text}\n-- faults\n{faults}\n\n").unwrap();
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &actual).unwrap();
        return;
    }
    pretty_equal(&scenarios, &actual);
}

fn pretty_equal(expected: &str, actual: &str) {
    for (expected, actual) in expected.lines().zip(actual.lines()) {
        assert_eq!(expected, actual);
    }
    assert_eq!(expected.lines().count(), actual.lines().count());
}

#[test]
fn unknown_missing_and_later_keys_are_reported() {
    check_scenarios("keys.txt");
}

#[test]
fn wrong_types_and_ranges_are_reported() {
    check_scenarios("types.txt");
}

#[test]
fn names_and_tags_that_break_ids_are_reported() {
    check_scenarios("names.txt");
}

#[test]
fn a_budget_that_does_not_add_up_is_reported() {
    check_scenarios("budget.txt");
}

#[test]
fn half_given_aws_settings_are_reported() {
    check_scenarios("aws.txt");
}

#[test]
fn addresses_and_directories_are_checked() {
    check_scenarios("places.txt");
}

#[test]
fn what_is_no_yaml_is_reported_with_its_line() {
    check_scenarios("yaml.txt");
}

#[test]
fn the_scripts_own_file_is_read_as_it_stands() {
    let config = load(&testdata("written_by_the_script.yaml"), &|_| None).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.git.user.as_deref(), Some("ci-bot"));
    assert_eq!(config.git.password.as_ref().unwrap().expose_secret(), "007");
    assert_eq!(config.aws.region.as_deref(), Some("us-east-1"));
    let Credentials::Keys { access_key, secret_key, session_token: None } = &config.aws.credentials else {
        panic!("no keys");
    };
    assert_eq!(access_key.expose_secret(), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(secret_key.expose_secret(), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    assert_eq!(config.docker_image.as_deref(), Some("nvidia/cuda:10.1-runtime-ubuntu18.04"));
    assert_eq!(config.max_idle, Duration::from_secs(900));
    assert_eq!(config.max_spin_up, Duration::from_secs(1800));
    assert_eq!(config.cloud_interval, Duration::from_secs(30));
    assert_eq!(config.extra_vm_bash_script, "#!/bin/bash\necho 'grüße'\nmount /dev/nvme1n1 /data\n");
    assert_eq!(config.extra_clearml_conf, "agent.enable_git_ask_pass: true\n");

    let pools: Vec<_> =
        config.pools.iter().map(|pool| (pool.queue.as_str(), pool.resource.as_str(), pool.maximum)).collect();
    assert_eq!(pools, [("ci_jobs", "aws4gpu_ci", 1), ("gpu_jobs", "aws4gpu", 3), ("gpu_jobs", "cpu", 10)]);

    let gpu = config.resource(&"aws4gpu".into()).unwrap();
    assert_eq!(gpu.market, Market::Spot);
    assert_eq!(gpu.placement, Placement::Zone("us-east-1b".to_owned()));
    let volume = Volume::New { size_gib: 100, kind: "gp3".to_owned() };
    assert_eq!(gpu.ebs, Some(Ebs { device_name: "/dev/sda1".to_owned(), volume }));
    assert_eq!(gpu.key_name, None);
    assert_eq!(gpu.security_group_ids, ["sg-0a1b2c3d4e5f60718", "sg-0918273645fedcba0"]);
    // The script shares this list through a YAML alias.
    let copy = config.resource(&"aws4gpu_ci".into()).unwrap();
    assert_eq!(copy.security_group_ids, gpu.security_group_ids);

    let cpu = config.resource(&"cpu".into()).unwrap();
    assert_eq!(cpu.market, Market::OnDemand);
    assert_eq!(cpu.placement, Placement::Subnet("subnet-0123456789abcdef0".to_owned()));
    assert_eq!(cpu.ebs.as_ref().unwrap().volume, Volume::Snapshot("snap-0123456789abcdef0".to_owned()));
    assert!(cpu.security_group_ids.is_empty());
    assert!(cpu.cpu_only && cpu.monitoring);
    let tags: Vec<_> = cpu.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    assert_eq!(tags, [("team", "vision"), ("cost-center", "42=b")]);
    assert_eq!(cpu.extra["EbsOptimized"], serde_json::Value::Bool(true));
}

#[test]
fn debug_shows_no_secret() {
    let config = load(&testdata("written_by_the_script.yaml"), &|_| None).unwrap();
    let shown = format!("{config:?}");
    for secret in ["007", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn without_hyper_params_the_scripts_defaults_hold() {
    let config = good(&with_resource(""));
    assert_eq!(config.prefix, "dynamic_worker");
    assert_eq!(config.max_idle, Duration::from_secs(15 * 60));
    assert_eq!(config.max_spin_up, Duration::from_secs(30 * 60));
    assert_eq!(config.queue_interval, Duration::from_secs(5));
    assert_eq!(config.listen.to_string(), "0.0.0.0:8790");
    assert_eq!(config.sidecar, SidecarSetting::Auto);
    assert!(matches!(config.aws.credentials, Credentials::Chain));
    assert_eq!((config.docker_image, config.advertise, config.instance_profile), (None, None, None));
    assert_eq!((config.git.user, config.sidecar_dir), (None, None));
    let gpu = &config.resources[0];
    assert_eq!((gpu.imds_hop_limit, gpu.market), (2, Market::OnDemand));
    assert_eq!((&gpu.placement, &gpu.ebs), (&Placement::Any, &None));
}

#[test]
fn prompts_answers_count_as_what_they_mean() {
    let config = good(
        "hyper_params: {max_idle_time_min: '0.5', polling_interval_time_min: 0.1, iam_name: gpu-nodes, \
         git_user: null, git_pass: 12345, use_credentials_chain: 'True', imds_hop_limit: '3'}\n\
         configurations: {resource_configurations: {gpu: {instance_type: g4dn.xlarge, ami_id: ami-1, \
         is_spot: 'true', security_group_ids: 'sg-1, sg-2', ebs_device_name: /dev/sda1, ebs_volume_size: '120', \
         key_name: ''}}, queues: {default: [[gpu, '4']]}}",
    );
    assert_eq!(config.max_idle, Duration::from_secs(30));
    assert_eq!(config.cloud_interval, Duration::from_secs(6));
    assert_eq!(config.instance_profile, Some(InstanceProfile::Name("gpu-nodes".to_owned())));
    assert_eq!(config.git.password.unwrap().expose_secret(), "12345");
    let gpu = &config.resources[0];
    assert_eq!((gpu.market, gpu.imds_hop_limit, gpu.key_name.as_deref()), (Market::Spot, 3, None));
    assert_eq!(gpu.security_group_ids, ["sg-1", "sg-2"]);
    assert!(matches!(gpu.ebs.as_ref().unwrap().volume, Volume::New { size_gib: 120, .. }));
    assert_eq!(config.pools[0].maximum, 4);
}

#[test]
fn python_tuples_and_merge_keys_are_understood() {
    let config = good(
        "configurations:\n  resource_configurations:\n    base: &base {instance_type: g4dn.xlarge, ami_id: ami-1, \
         is_spot: true}\n    dear: {<<: *base, is_spot: false}\n  queues:\n    default:\n    - !!python/tuple [base, 1]\n\
         \x20   - !!python/tuple [dear, 2]\n",
    );
    let markets: Vec<_> = config.resources.iter().map(|resource| resource.market).collect();
    assert_eq!(markets, [Market::Spot, Market::OnDemand]);
    assert_eq!(config.pools.len(), 2);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let faults = read(&bomb, &[]).unwrap_err().to_string();
    assert!(faults.contains("the document is too large"), "{faults}");
}

#[test]
fn the_environments_git_user_wins() {
    let text = with_hyper_params("git_user: file, git_pass: file");
    let env = [("CLEARML_AUTOSCALER_GIT_USER", "env"), ("CLEARML_AUTOSCALER_GIT_PASSWORD", "secret")];
    let git = read(&text, &env).unwrap().git;
    assert_eq!(git.user.as_deref(), Some("env"));
    assert_eq!(git.password.unwrap().expose_secret(), "secret");
    let git = read(&text, &[("CLEARML_AUTOSCALER_GIT_USER", "")]).unwrap().git;
    assert_eq!(git.user.as_deref(), Some("file"));
}

#[test]
fn a_resources_own_tags_win_over_the_general_ones() {
    let config =
        good(&format!("hyper_params: {{tags: 'team=a, env=prod'}}\n{}", with_resource("tags: team=b")));
    let tags: Vec<_> =
        config.resources[0].tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    assert_eq!(tags, [("team", "b"), ("env", "prod")]);
    assert_eq!(config.tags.len(), 2);
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let config = good(
        "hyper_params: {cloud_credentials_key: k, cloud_credentials_secret: s, use_credentials_chain: true}\n\
         configurations: {resource_configurations: {gpu: {instance_type: g4dn.xlarge, ami_id: ami-1, \
         subnet_id: subnet-1, availability_zone: us-east-1a}, spare: {instance_type: c6i.large, ami_id: ami-1}}, \
         queues: {default: [[gpu, 1]]}, extra_clearml_conf: a, extra_trains_conf: b}",
    );
    let about: Vec<_> = config.warnings.iter().map(|warning| warning.split(": ").next().unwrap()).collect();
    assert_eq!(
        about,
        [
            "hyper_params.cloud_credentials_key",
            "configurations.resource_configurations.gpu.availability_zone",
            "configurations.resource_configurations.spare",
            "configurations.extra_trains_conf",
        ]
    );
    assert!(matches!(config.aws.credentials, Credentials::Chain));
    assert_eq!(config.extra_clearml_conf, "a");
}

#[test]
fn the_state_directory_follows_the_environment() {
    let at = |keys: &str, env: &[(&str, &str)]| {
        read(&with_hyper_params(keys), env).unwrap().state_dir.display().to_string()
    };
    let home = ("HOME", "/home/ops");
    assert_eq!(at("", &[home]), "/home/ops/.local/state/clearml-autoscaler/dynamic_worker");
    let xdg = ("XDG_STATE_HOME", "/state");
    assert_eq!(at("workers_prefix: w", &[home, xdg]), "/state/clearml-autoscaler/w");
    assert_eq!(at("", &[home, xdg, ("STATE_DIRECTORY", "/var/lib/x:/var/lib/y")]), "/var/lib/x");
    assert_eq!(at("", &[]), "/var/lib/clearml-autoscaler-controller/dynamic_worker");
    assert_eq!(at("state_dir: /srv/s", &[home]), "/srv/s");
    assert_eq!(at("state_dir: s", &[home]), "/etc/s");
    assert_eq!(at("state_dir: ~/s", &[home]), "/home/ops/s");
}

#[test]
fn addresses_are_read_with_and_without_ports() {
    let at = |address: &str| good(&with_hyper_params(&format!("advertise_address: '{address}'"))).advertise;
    let of = |host: &str, port| Some(Advertise { host: host.to_owned(), port });
    assert_eq!(at("scaler.example.com"), of("scaler.example.com", None));
    assert_eq!(at("10.0.0.5:443"), of("10.0.0.5", Some(443)));
    assert_eq!(at("[2001:db8::1]:443"), of("2001:db8::1", Some(443)));
    assert_eq!(at("2001:db8::1"), of("2001:db8::1", None));
    let servers = good(&with_hyper_params("agent_api_server: 'https://api.example.com/'")).agent_servers;
    assert_eq!(servers.api.as_deref(), Some("https://api.example.com"));
}

#[test]
fn a_sidecar_is_required_where_instances_have_a_way_in() {
    let mode = |keys: &str, on_ec2| {
        let (mode, warning) = good(&with_hyper_params(keys)).sidecar_mode(on_ec2);
        (mode, warning.is_some())
    };
    assert_eq!(mode("", true), (SidecarMode::Required, false));
    assert_eq!(mode("", false), (SidecarMode::Off, true));
    assert_eq!(mode("advertise_address: me", false), (SidecarMode::Required, false));
    assert_eq!(mode("sidecar: off", true), (SidecarMode::Off, false));
    assert_eq!(mode("sidecar: false", true), (SidecarMode::Off, false));
    assert_eq!(mode("sidecar: required", false), (SidecarMode::Required, false));
}

#[test]
fn the_policy_says_what_the_file_says() {
    let config = load(&testdata("written_by_the_script.yaml"), &|_| None).unwrap();
    let blocked = |name: &ResourceName| (name.as_str() == "cpu").then(|| "no sidecar".to_owned());
    let policy = config.policy(FleetId::from("f"), SidecarMode::Required, blocked);
    assert_eq!((policy.prefix.as_str(), policy.pools.len()), ("dynamic_worker", 3));
    assert_eq!(policy.queues(), [&QueueName::from("ci_jobs"), &QueueName::from("gpu_jobs")]);
    let cpu = &policy.resources[&ResourceName::from("cpu")];
    assert_eq!(cpu.blocked.as_deref(), Some("no sidecar"));
    let offering = Offering {
        instance_type: InstanceType::from("c6i.large"),
        placement: Placement::Subnet("subnet-0123456789abcdef0".to_owned()),
        market: Market::OnDemand,
    };
    assert_eq!(cpu.offerings, [offering]);
    assert_eq!(
        (policy.silent_grace, policy.order_patience),
        (Duration::from_secs(600), Duration::from_secs(15))
    );
}

#[test]
fn user_data_that_ec2_would_refuse_is_a_fault() {
    let config = good(&with_resource(""));
    assert!(config.check_user_data(|_| 16_384).is_ok());
    assert_eq!(
        config.check_user_data(|_| 16_385).unwrap_err().to_string(),
        "/etc/aws_autoscaler.yaml: configurations.resource_configurations.gpu: its user data is 16385 bytes long; \
         EC2 takes at most 16384"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aws_autoscaler.yaml");
    let faults = load(&path, &|_| None).unwrap_err().to_string();
    assert!(faults.starts_with(&format!("{}: cannot be read: ", path.display())), "{faults}");
    std::fs::write(&path, b"git_user: \xff").unwrap();
    let faults = load(&path, &|_| None).unwrap_err().to_string();
    assert!(faults.ends_with("is not UTF-8 text: see line 1"), "{faults}");
}
