//! The wizard as a person meets it: in a terminal of 80 columns, word by word as ClearML's document has it. What it
//! writes is taken by the autoscaler of ClearML's own SDK.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use controller::config::ImageRef;
use sandbox::clearml::{Options, Server};
use sandbox::ec2::{self as ec2_sandbox, Ami, Ec2};
use serde_json::{Value, json};
use tests::agent::python as clearml_python;
use tests::harness::controller_executable;
use tests::process::Process;
use tests::python;
use tests::terminal::Terminal;

const FILE: &str = "aws_autoscaler.yaml";
/// Nobody listens there, so that AWS is unknown at once.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The document's prompts, in its order.
const DIALOGUE: [&str; 27] = [
    "AWS Autoscaler setup wizard\n\
     ---------------------------\n\
     Follow the wizard to configure your AWS auto-scaler service.\n\
     Once completed, you will be able to view and change the configuration in the clearml-server web UI.\n\
     It means there is no need to worry about typos or mistakes :)\n",
    "Enter AWS Access Key ID :",
    "Enter AWS Secret Access Key :",
    "Enter AWS region name [us-east-1b]:",
    "GIT credentials:",
    "Enter GIT username for repository cloning (leave blank for SSH key authentication): []",
    "Enter password for user 'jane':",
    "Git repository cloning will be using user=*************** password=***********",
    "Enter default docker image/parameters to use [nvidia/cuda:10.1-runtime-ubuntu18.04]:",
    "Configure the machine types for the auto-scaler:\n------------------------------------------------\n",
    "Select Amazon instance type ['g4dn.4xlarge']:",
    "Use spot instances? [y/N]:",
    "Select availability zone ['us-east-1b']:",
    "Select the Amazon Machine Image id ['ami-07c95cafbb788face']:",
    "Enter the Amazon EBS device ['/dev/xvda']:",
    "Enter the Amazon EBS volume size (in GiB) [100]:",
    "Enter the Amazon EBS volume type ['gp2']:",
    "Select a name for this instance type (used in the budget section) For example 'aws4gpu':",
    "Define another instance type? [y/N]:",
    "Enter any pre-execution bash script to be executed on the newly created instances []:",
    "Define the machines budget:\n-----------------------------\n",
    "Select a queue name (for example: 'aws_4gpu_machines') :",
    "Select a instance type to attach to the queue ['aws4gpu', 'aws_cpu']:",
    "Enter maximum number of 'aws4gpu' instances to spin simultaneously (example: 3) :",
    "Do you wish to add another instance type to queue? [y/N]:",
    "Enter maximum idle time for the auto-scaler to spin down an instance (in minutes) [15]:",
    "Enter instances polling interval for the auto-scaler (in minutes) [5]:",
];

/// Where a session happens.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { dir: tempfile::tempdir()? })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn sit_down(&self, args: &[&str], term: &str) -> anyhow::Result<Terminal> {
        self.sit_down_with(NOWHERE, args, term)
    }

    /// With an AWS at this address.
    fn sit_down_with(&self, aws: &str, args: &[&str], term: &str) -> anyhow::Result<Terminal> {
        let home = self.path().display().to_string();
        let env = [
            ("HOME", home.as_str()),
            ("TERM", term),
            ("AWS_ENDPOINT_URL", aws),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        Terminal::start(&controller_executable()?, args, self.path(), &env)
    }

    fn written(&self) -> Option<String> {
        fs::read_to_string(self.path().join(FILE)).ok()
    }

    /// What is left there beside what a test put there.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        let names = fs::read_dir(self.path())?.map(|entry| Ok(entry?.file_name().display().to_string()));
        names.collect::<std::io::Result<Vec<_>>>().context("list the desk")
    }

    /// Without a terminal.
    fn unattended(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let output = Command::new(controller_executable()?)
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("AWS_ENDPOINT_URL", NOWHERE)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .output()?;
        let told = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&told).into_owned()))
    }
}

/// The first machine type, with the document's defaults.
fn first_machine(person: &mut Terminal) -> anyhow::Result<()> {
    person.answer(DIALOGUE[10], "")?;
    person.answer("CPU only? [y/N]:", "")?;
    person.answer(DIALOGUE[11], "y")?;
    person.answer(DIALOGUE[12], "")?;
    person.answer("Select the subnet id (leave blank for the zone's default subnet) []:", "")?;
    person.answer(DIALOGUE[13], "")?;
    person.answer(DIALOGUE[14], "")?;
    person.answer(DIALOGUE[15], "")?;
    person.answer(DIALOGUE[16], "")?;
    person.answer("Select the Amazon key pair for SSH (leave blank for none) []:", "")?;
    person.answer(
        "Select the security group ids, separated by commas (leave blank for the default) []:",
        "sg-0123, sg-4567",
    )?;
    person.answer(DIALOGUE[17], "aws4gpu")
}

fn account(person: &mut Terminal) -> anyhow::Result<()> {
    person.answer(DIALOGUE[1], "AKIAIOSFODNN7EXAMPLE")?;
    person.answer(DIALOGUE[2], "wJalrXUtnFEMI-secret")?;
    person.answer(DIALOGUE[3], "")?;
    person.answer("for the new instances (leave blank for none) []:", "")?;
    person.answer(DIALOGUE[5], "jane")?;
    person.answer(DIALOGUE[6], "hunter two")?;
    person.answer(DIALOGUE[8], "")
}

fn rest(person: &mut Terminal) -> anyhow::Result<()> {
    person.answer(DIALOGUE[25], "")?;
    person.answer(DIALOGUE[26], "")?;
    person.answer("reach the auto-scaler (leave blank if unsure) []:", "autoscaler.example.com")
}

/// Everything up to the last page: two machine types, two queues that share one.
fn whole_session(person: &mut Terminal) -> anyhow::Result<()> {
    account(person)?;
    first_machine(person)?;
    person.answer(DIALOGUE[18], "y")?;
    person.answer(DIALOGUE[10], "c5.xlarge")?;
    person.answer("CPU only? [Y/n]:", "")?;
    person.answer(DIALOGUE[11], "")?;
    person.answer(DIALOGUE[12], "us-east-1d")?;
    person.answer("default subnet) []:", "subnet-0a1b2c3d")?;
    person.answer(DIALOGUE[13], "ami-0123456789abcdef0")?;
    person.answer(DIALOGUE[14], "/dev/sda1")?;
    person.answer(DIALOGUE[15], "30")?;
    person.answer(DIALOGUE[16], "gp3")?;
    person.answer("(leave blank for none) []:", "my-key")?;
    person.answer("(leave blank for the default) []:", "")?;
    person.answer(DIALOGUE[17], "aws_cpu")?;
    person.answer(DIALOGUE[18], "")?;
    person.answer(DIALOGUE[19], "echo \"größer\" > /tmp/it")?;
    person.answer("Enter any extra clearml.conf lines for the newly created instances []:", "")?;
    person.answer(DIALOGUE[21], "aws_4gpu_machines")?;
    person.answer(DIALOGUE[22], "aws4gpu")?;
    person.answer(DIALOGUE[23], "3")?;
    person.answer(DIALOGUE[24], "y")?;
    person.answer("Select a instance type to attach to the queue ['aws_cpu']:", "")?;
    person.answer("of 'aws_cpu' instances to spin simultaneously (example: 3) :", "1")?;
    person.answer("Do you wish to define another queue? [y/N]:", "y")?;
    person.answer(DIALOGUE[21], "second")?;
    person.answer(DIALOGUE[22], "aws4gpu")?;
    person.answer(DIALOGUE[23], "2")?;
    person.answer(DIALOGUE[24], "")?;
    person.answer("Do you wish to define another queue? [y/N]:", "")?;
    rest(person)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_dialogue_word_by_word_and_a_file_that_the_script_takes() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let mut person = desk.sit_down(&[], "xterm-256color")?;
    whole_session(&mut person)?;
    ensure!(desk.written().is_none(), "nothing is written before the last page is accepted");
    person.answer("Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:", "")?;
    ensure!(person.exit_code()? == 0, "{}", person.contents());

    let shown = person.contents();
    let mut rest = shown.as_str();
    for words in DIALOGUE {
        let at =
            rest.find(words).with_context(|| format!("{words:?} is not there, in its order, in\n{shown}"))?;
        rest = &rest[at + words.len()..];
    }
    for secret in ["wJalrXUtnFEMI-secret", "hunter two"] {
        ensure!(!shown.contains(secret), "a secret is on the screen:\n{shown}");
    }
    ensure!(shown.contains("Enter AWS Secret Access Key : ********************\n"), "stars:\n{shown}");
    ensure!(shown.contains("us-east-1b is a zone; its region is us-east-1"), "{shown}");
    ensure!(shown.contains("controller --run"), "how to go on:\n{shown}");
    ensure!(!shown.contains("advertise_address: \"\""), "the last page shows it all:\n{shown}");

    let mode = fs::metadata(desk.path().join(FILE))?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let config = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    ensure!(config.warnings.is_empty() && config.pools.len() == 3, "our own reader: {config:?}");

    let taken = as_the_script_takes_it(&desk.path().join(FILE)).await?;
    let expected = json!({
        "max_idle_time_min": 15,
        "polling_interval_time_min": 5,
        "max_spin_up_time_min": 30,
        "workers_prefix": "dynamic_worker",
        "resource_configurations": {
            "aws4gpu": {
                "instance_type": "g4dn.4xlarge",
                "is_spot": true,
                "availability_zone": "us-east-1b",
                "ami_id": "ami-07c95cafbb788face",
                "ebs_device_name": "/dev/xvda",
                "ebs_volume_size": 100,
                "ebs_volume_type": "gp2",
                "security_group_ids": ["sg-0123", "sg-4567"],
            },
            "aws4gpu_second": {
                "instance_type": "g4dn.4xlarge",
                "is_spot": true,
                "availability_zone": "us-east-1b",
                "ami_id": "ami-07c95cafbb788face",
                "ebs_device_name": "/dev/xvda",
                "ebs_volume_size": 100,
                "ebs_volume_type": "gp2",
                "security_group_ids": ["sg-0123", "sg-4567"],
            },
            "aws_cpu": {
                "instance_type": "c5.xlarge",
                "cpu_only": true,
                "is_spot": false,
                "subnet_id": "subnet-0a1b2c3d",
                "ami_id": "ami-0123456789abcdef0",
                "ebs_device_name": "/dev/sda1",
                "ebs_volume_size": 30,
                "ebs_volume_type": "gp3",
                "key_name": "my-key",
            },
        },
        "queues": {
            "aws_4gpu_machines": [["aws4gpu", 3], ["aws_cpu", 1]],
            "second": [["aws4gpu_second", 2]],
        },
        "region": "us-east-1",
        "key": "AKIAIOSFODNN7EXAMPLE",
        "secret": "wJalrXUtnFEMI-secret",
        "use_credentials_chain": false,
        "iam_name": "",
        "git_user": "jane",
        "git_pass": "hunter two",
        "docker_image": "nvidia/cuda:10.1-runtime-ubuntu18.04",
        "extra_vm_bash_script": "echo \"größer\" > /tmp/it",
        "extra_clearml_conf": "",
    });
    ensure!(taken == expected, "the script takes\n{taken:#}\nnot\n{expected:#}");
    Ok(())
}

/// What the autoscaler of ClearML's SDK makes of a file.
async fn as_the_script_takes_it(file: &Path) -> anyhow::Result<Value> {
    let server = Server::start(Options::default()).await?;
    let home = tempfile::tempdir()?;
    let venv = python::venv("autoscaler", &python::file("autoscaler-requirements.txt"))?;
    let mut command = clearml_python(&venv, home.path(), &server);
    let script = home.path().join("autoscaler_config.py");
    fs::copy(python::file("autoscaler_config.py"), &script)?;
    command.arg(&script).arg(file);
    let mut process = Process::start(command, &home.path().join("log"))?;
    let status = process.wait(Duration::from_secs(120))?;
    ensure!(status.success(), "{status}; {}", process.tail());
    let output = process.output();
    let taken = output.lines().find_map(|line| line.strip_prefix("taken:"));
    Ok(serde_json::from_str(taken.context("what it took")?)?)
}

#[test]
fn nonsense_at_every_prompt_is_explained_and_asked_again() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let mut person = desk.sit_down(&[], "xterm-256color")?;
    let wrong = |person: &mut Terminal, prompt: &str, nonsense: &str, words: &str| {
        person.answer(prompt, nonsense)?;
        person.shows(words)?;
        person.prompted(prompt)
    };
    wrong(&mut person, DIALOGUE[1], "AKIA with blanks", "Holds a blank, which no key does")?;
    person.answer(DIALOGUE[1], "AKIAIOSFODNN7EXAMPLE")?;
    wrong(&mut person, DIALOGUE[2], "", "This needs an answer.")?;
    person.answer(DIALOGUE[2], "secret")?;
    wrong(&mut person, DIALOGUE[3], "us-est", "Must be a region such as us-east-1, not 'us-est'")?;
    person.answer(DIALOGUE[3], "us-east-1")?;
    let profile = "for the new instances (leave blank for none) []:";
    wrong(&mut person, profile, "no such/profile", "Must be an instance profile's name")?;
    wrong(&mut person, profile, "arn:aws:iam::1:role/x", "Must be an instance profile's ARN")?;
    person.answer(profile, "gpu-profile")?;
    person.answer(DIALOGUE[5], "jane")?;
    person.answer(DIALOGUE[6], "")?;
    person.prompted(DIALOGUE[6])?;
    person.answer(DIALOGUE[6], "pass")?;
    wrong(&mut person, DIALOGUE[8], "--gpus all", "Must be an image's name")?;
    person.answer(DIALOGUE[8], "none")?;

    wrong(&mut person, DIALOGUE[10], "big", "Must be an instance type such as g4dn.4xlarge, not 'big'")?;
    person.answer(DIALOGUE[10], "")?;
    person.answer("CPU only? [y/N]:", "")?;
    wrong(&mut person, DIALOGUE[11], "maybe", "Must be y or n")?;
    person.answer(DIALOGUE[11], "")?;
    wrong(
        &mut person,
        DIALOGUE[12],
        "eu-west-1a",
        "'eu-west-1a' is not in cloud_credentials_region 'us-east-1'",
    )?;
    person.answer(DIALOGUE[12], "")?;
    wrong(
        &mut person,
        "default subnet) []:",
        "sub-1",
        "Must be an id that begins with subnet-, not 'sub-1'",
    )?;
    person.answer("default subnet) []:", "")?;
    wrong(&mut person, DIALOGUE[13], "ami-", "'ami-'")?;
    person.answer(DIALOGUE[13], "")?;
    person.answer(DIALOGUE[14], "")?;
    wrong(&mut person, DIALOGUE[15], "big", "Must be a whole number from 1 to 65536, not 'big'")?;
    person.answer(DIALOGUE[15], "")?;
    wrong(&mut person, DIALOGUE[16], "gp9", "Must be one of gp2, gp3")?;
    person.answer(DIALOGUE[16], "")?;
    person.answer("(leave blank for none) []:", "")?;
    wrong(&mut person, "(leave blank for the default) []:", "sg-1, gs-2", "begins with sg-, not 'gs-2'")?;
    person.answer("(leave blank for the default) []:", "")?;
    wrong(&mut person, DIALOGUE[17], "a:b", "The name 'a:b' holds ':'")?;
    person.answer(DIALOGUE[17], "aws4gpu")?;
    person.answer(DIALOGUE[18], "")?;

    wrong(&mut person, DIALOGUE[19], "@/nowhere/boot.sh", "The file '/nowhere/boot.sh'")?;
    person.answer(DIALOGUE[19], "")?;
    person.answer("lines for the newly created instances []:", "")?;
    wrong(&mut person, DIALOGUE[21], "q", "A queue's name has 3 to 256 characters")?;
    person.answer(DIALOGUE[21], "gpu_queue")?;
    let attach = "Select a instance type to attach to the queue ['aws4gpu']:";
    wrong(&mut person, attach, "aws4gp", "did you mean aws4gpu?")?;
    person.answer(attach, "")?;
    wrong(&mut person, DIALOGUE[23], "three", "Must be a whole number from 0 to 10000, not 'three'")?;
    wrong(&mut person, DIALOGUE[23], "-1", "not '-1'")?;
    person.answer(DIALOGUE[23], "3")?;
    person.answer("Do you wish to define another queue? [y/N]:", "")?;
    wrong(&mut person, DIALOGUE[25], "soon", "Must be a number from 0 to 43200, not 'soon'")?;
    person.answer(DIALOGUE[25], "")?;
    wrong(&mut person, DIALOGUE[26], "0", "Must be a number from 0.01 to 1440, not '0'")?;
    person.answer(DIALOGUE[26], "")?;
    let address = "reach the auto-scaler (leave blank if unsure) []:";
    wrong(&mut person, address, "http://here", "Must be HOST or HOST:PORT that instances can reach")?;
    person.answer(address, "")?;
    wrong(&mut person, "Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:", "what", "Must be y or n")?;
    person.answer("Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:", "y")?;
    ensure!(person.exit_code()? == 0, "{}", person.contents());
    let config = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    ensure!(config.docker_image.is_none() && config.instance_profile.is_some(), "{config:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_aws_answers_it_offers_and_checks() -> anyhow::Result<()> {
    let nvidia = "NVIDIA Deep Learning AMI v20.11.0-46a68101-e56b-41cd-8e32-631ac6e5d02b";
    let mut options = ec2_sandbox::Options { other_images: None, ..ec2_sandbox::Options::default() };
    options.amis.insert("ami-0a1b2c3d4e5f60718".to_owned(), Ami::named(nvidia));
    options.other_regions.insert("eu-west-1".to_owned(), "opt-in-not-required".to_owned());
    options.unsupported.insert(("g4dn.4xlarge".to_owned(), "us-east-1b".to_owned()));
    let aws = Ec2::start(options).await?;
    let desk = Desk::new()?;
    let person = desk.sit_down_with(&aws.url(), &[], "xterm-256color")?;
    tokio::task::spawn_blocking(move || offered(person, nvidia)).await??;
    let config = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    let [machine] = config.resources.as_slice() else { anyhow::bail!("one machine type: {config:?}") };
    ensure!(machine.ami_id == ImageRef::Name(nvidia.to_owned()), "{machine:?}");
    ensure!(machine.placement == planner::Placement::Zone("us-east-1a".to_owned()), "{machine:?}");
    Ok(())
}

fn offered(mut person: Terminal, nvidia: &str) -> anyhow::Result<()> {
    let person = &mut person;
    person.answer(DIALOGUE[1], "AKIATYPOTYPOTYPO1234")?;
    person.answer(DIALOGUE[2], "sandbox secret")?;
    person.shows("Holds a blank")?;
    person.answer(DIALOGUE[2], "sandbox-secret")?;
    person.answer(DIALOGUE[3], "us-east-1")?;
    person.shows("AWS does not take these credentials:")?;
    person.answer("Use them nevertheless? [y/N]:", "")?;
    person.answer("Enter AWS Access Key ID [***************1234]:", "AKIASANDBOXSANDBOX00")?;
    person.answer(DIALOGUE[2], "sandbox-secret")?;
    person.answer("Enter AWS region name [us-east-1]:", "us-est-1")?;
    person.shows("AWS has no region 'us-est-1'; did you mean us-east-1?")?;
    person.answer("Enter AWS region name [us-east-1]:", "")?;
    person.answer("for the new instances (leave blank for none) []:", "")?;
    person.answer(DIALOGUE[5], "")?;
    person.answer(DIALOGUE[8], "")?;
    person.shows("g4dn.xlarge")?;
    person.shows("NVIDIA T4")?;
    person.answer(DIALOGUE[10], "g4dn.4xlrge")?;
    person.shows("did you mean g4dn.4xlarge?")?;
    person.answer(DIALOGUE[10], "?")?;
    person.shows("t3.micro")?;
    person.prompted(DIALOGUE[10])?;
    // Tab completes what is typed as far as it is clear.
    person.press("g4dn.4")?;
    person.press("\t")?;
    person.prompted(&format!("{} g4dn.4xlarge", DIALOGUE[10]))?;
    person.press("\r")?;
    person.answer("CPU only? [y/N]:", "")?;
    person.answer(DIALOGUE[11], "")?;
    // The document's zone does not have this type.
    let zone = "Select availability zone ['us-east-1a']:";
    person.answer(zone, "us-east-1b")?;
    person.shows("AWS has no availability zone 'us-east-1b' with g4dn.4xlarge in")?;
    person.answer(zone, "")?;
    person.answer("default subnet) []:", "subnet-1")?;
    person.shows("AWS has no subnet 'subnet-1' in us-east-1a;")?;
    person.answer("default subnet) []:", "")?;
    let image = format!("Select the Amazon Machine Image id ['{nvidia}']:");
    person.answer(&image, "ami-00000000")?;
    person.shows("This region has no image ami-00000000.")?;
    person.answer(&image, "")?;
    person.shows("That is ami-0a1b2c3d4e5f60718 now")?;
    person.shows("The image's own disk is /dev/sda1")?;
    person.answer("Enter the Amazon EBS device ['/dev/sda1']:", "")?;
    person.answer(DIALOGUE[15], "")?;
    person.answer(DIALOGUE[16], "")?;
    person.answer("(leave blank for none) []:", "sandbx")?;
    person.shows("AWS has no key pair 'sandbx' in us-east-1; did you mean sandbox?")?;
    person.answer("(leave blank for none) []:", "sandbox")?;
    person.answer("(leave blank for the default) []:", "sg-00000000000000002")?;
    person.shows("did you mean sg-00000000000000001?")?;
    person.answer("(leave blank for the default) []:", "sg-00000000000000001")?;
    person.answer(DIALOGUE[17], "aws4gpu")?;
    person.answer(DIALOGUE[18], "")?;
    person.answer(DIALOGUE[19], "")?;
    person.answer("lines for the newly created instances []:", "")?;
    person.answer(DIALOGUE[21], "gpu_queue")?;
    person.answer("to the queue ['aws4gpu']:", "")?;
    person.answer(DIALOGUE[23], "3")?;
    person.answer("Do you wish to define another queue? [y/N]:", "")?;
    rest(person)?;
    person.answer("Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:", "")?;
    ensure!(person.exit_code()? == 0, "{}", person.contents());
    Ok(())
}

#[test]
fn an_aws_that_never_answers_does_not_hold_the_wizard() -> anyhow::Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let desk = Desk::new()?;
    let mut person =
        desk.sit_down_with(&format!("http://{}", silent.local_addr()?), &[], "xterm-256color")?;
    account(&mut person)?;
    person.shows("AWS can't be asked for choices (no answer within 10 s)")?;
    first_machine(&mut person)?;
    person.answer(DIALOGUE[18], "")?;
    person.prompted(DIALOGUE[19])?;
    ensure!(
        person.contents().matches("can't be asked").count() == 1,
        "once is enough: {}",
        person.contents()
    );
    Ok(())
}

#[test]
fn a_typo_is_corrected_on_the_line_and_on_the_last_page() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let mut person = desk.sit_down(&[], "xterm-256color")?;
    person.prompted(DIALOGUE[1])?;
    person.press("AKIAX")?;
    person.press("\x7fIOSFODNN7EXAMPLE")?;
    person.press("\r")?;
    person.prompted(DIALOGUE[2])?;
    // The beginning of the line, the end of the line, a character less.
    person.press("ecretX")?;
    person.press("\x01s\x05\x7f\r")?;
    person.answer(DIALOGUE[3], "")?;
    person.answer("for the new instances (leave blank for none) []:", "")?;
    person.answer(DIALOGUE[5], "")?;
    person.shows("Git repository cloning will be using SSH keys")?;
    person.answer(DIALOGUE[8], "")?;
    first_machine(&mut person)?;
    person.answer(DIALOGUE[18], "")?;
    person.answer(DIALOGUE[19], "")?;
    person.answer("lines for the newly created instances []:", "")?;
    person.answer(DIALOGUE[21], "gpu_queue")?;
    person.answer("to the queue ['aws4gpu']:", "")?;
    person.answer(DIALOGUE[23], "30")?;
    person.answer("Do you wish to define another queue? [y/N]:", "")?;
    rest(&mut person)?;

    let save = "Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:";
    let which = "Which part do you want to correct (aws, git, docker, machines, scripts, budget, times, or all)? \
                 Ctrl-C leaves unsaved [all]:";
    person.answer(save, "n")?;
    person.answer(which, "bugdet")?;
    person.shows("Must be one of aws, git,")?;
    person.answer(which, "budget")?;
    person.answer("Keep, change or remove the queue 'gpu_queue' (aws4gpu: 30) [keep]:", "change")?;
    person.answer("to the queue ['aws4gpu']:", "")?;
    person.answer(DIALOGUE[23], "3")?;
    person.answer("Do you wish to define another queue? [y/N]:", "")?;
    person.answer(save, "n")?;
    person.answer(which, "machines")?;
    person.answer("Keep, change or remove 'aws4gpu' (g4dn.4xlarge, spot, us-east-1b) [keep]:", "change")?;
    person.answer(DIALOGUE[10], "g4dn.xlarge")?;
    person.answer("CPU only? [y/N]:", "")?;
    person.answer("Use spot instances? [Y/n]:", "")?;
    person.answer(DIALOGUE[12], "none")?;
    person.answer("default subnet) []:", "")?;
    person.answer(DIALOGUE[13], "")?;
    person.answer(DIALOGUE[14], "")?;
    person.answer(DIALOGUE[15], "")?;
    person.answer(DIALOGUE[16], "")?;
    person.answer("(leave blank for none) []:", "")?;
    person.answer("(leave blank for the default) [sg-0123, sg-4567]:", "none")?;
    person.answer("For example 'aws4gpu' ['aws4gpu']:", "t4")?;
    person.answer(DIALOGUE[18], "")?;
    person.answer(save, "")?;
    ensure!(person.exit_code()? == 0, "{}", person.contents());

    let config = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    let [pool] = config.pools.as_slice() else { anyhow::bail!("one pool: {config:?}") };
    ensure!(pool.resource.0 == "t4" && pool.maximum == 3, "{config:?}");
    let [machine] = config.resources.as_slice() else { anyhow::bail!("one machine type: {config:?}") };
    ensure!(machine.instance_type.0 == "g4dn.xlarge" && machine.security_group_ids.is_empty(), "{config:?}");
    ensure!(machine.placement == planner::Placement::Any, "{config:?}");
    let text = desk.written().context("the file")?;
    ensure!(text.contains("AKIAIOSFODNN7EXAMPLE") && text.contains("secret\n"), "typos are gone:\n{text}");
    Ok(())
}

#[test]
fn ctrl_c_and_ctrl_d_leave_no_file_and_a_sane_terminal() -> anyhow::Result<()> {
    for (term, key) in
        [("xterm-256color", "\x03"), ("xterm-256color", "\x04"), ("dumb", "\x03"), ("dumb", "\x04")]
    {
        for prompts in 0..3 {
            let desk = Desk::new()?;
            let mut person = desk.sit_down(&["--run"], term)?;
            for prompt in [DIALOGUE[1], DIALOGUE[2]].into_iter().take(prompts) {
                person.answer(prompt, "AKIAIOSFODNN7EXAMPLE")?;
            }
            person.prompted(DIALOGUE[1 + prompts])?;
            person.press(key)?;
            let code = person.exit_code()?;
            let shown = person.contents();
            let story = format!("{term}, {key:?} at prompt {prompts}:\n{shown}");
            ensure!(code == 130, "{story}");
            ensure!(shown.contains("nothing was saved"), "{story}");
            for setting in ["echo", "icanon", "isig"] {
                ensure!(shown.split_whitespace().any(|word| word == setting), "{setting} in {story}");
            }
            ensure!(desk.files()?.is_empty(), "{:?} after {story}", desk.files()?);
        }
    }
    Ok(())
}

#[test]
fn a_plain_terminal_has_the_same_dialogue_and_stars() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let mut person = desk.sit_down(&[], "dumb")?;
    account(&mut person)?;
    person.prompted(DIALOGUE[10])?;
    let shown = person.contents();
    ensure!(shown.contains("Enter AWS Secret Access Key : ********************\n"), "{shown}");
    ensure!(shown.contains("Enter password for user 'jane': **********\n"), "{shown}");
    ensure!(!shown.contains("hunter two") && !shown.contains("wJalrXUtnFEMI"), "{shown}");
    person.press("\x03")?;
    ensure!(person.exit_code()? == 130, "{}", person.contents());
    Ok(())
}

#[test]
fn a_signal_restores_the_terminal_too() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let person = desk.sit_down(&[], "xterm-256color")?;
    person.prompted(DIALOGUE[1])?;
    person.terminate_program()?;
    ensure!(person.exit_code()? == 143, "{}", person.contents());
    let shown = person.contents();
    ensure!(shown.contains(" echo ") && shown.contains(" icanon "), "{shown}");
    Ok(())
}

#[test]
fn without_a_terminal_every_missing_flag_is_named_at_once() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let (code, told) = desk.unattended(&["--run", "--aws-region", "nowhere", "--git-user", "jane"])?;
    ensure!(code == Some(2), "{code:?}: {told}");
    for words in [
        "--aws-access-key-id",
        "--use-credentials-chain",
        "--aws-secret-access-key",
        "--resource",
        "--budget",
        "--git-pass",
        "--aws-region: must be a region such as us-east-1, not 'nowhere'",
    ] {
        ensure!(told.contains(words), "{words} in {told}");
    }
    ensure!(desk.files()?.is_empty(), "nothing was written");

    // With a terminal a wrong flag is told before the first prompt.
    let person = desk.sit_down(&["--aws-region", "nowhere"], "xterm")?;
    ensure!(person.exit_code()? == 2, "{}", person.contents());
    ensure!(!person.contents().contains("Enter"), "{}", person.contents());
    Ok(())
}

#[test]
fn every_prompt_has_its_flag() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    fs::write(desk.path().join("boot.sh"), "echo one\necho two\n")?;
    fs::write(desk.path().join("secret"), "from a file\n")?;
    let (code, told) = desk.unattended(&[
        "--aws-access-key-id=AKIAIOSFODNN7EXAMPLE",
        "--aws-secret-access-key=secret",
        "--aws-region=eu-west-1a",
        "--instance-profile=arn:aws:iam::123456789012:instance-profile/gpu",
        "--git-user=jane",
        "--git-pass=@secret",
        "--docker-image=",
        "--resource=t4:instance_type=g4dn.xlarge,is_spot=true,security_group_ids=sg-1,sg-2,tags=team=vision;owner=me",
        "--resource=cpu:instance_type=c5.large,subnet_id=subnet-1,ami_id=ami-2,ebs_device_name=",
        "--budget=first=t4:3",
        "--budget=first=cpu:1",
        "--budget=second=t4:2",
        "--extra-vm-bash-script=@boot.sh",
        "--extra-clearml-conf=agent.x = 1",
        "--max-idle-time-min=20",
        "--polling-interval-time-min=1",
        "--advertise-address=here.example.com:8791",
    ])?;
    ensure!(code == Some(0), "{code:?}: {told}");
    let text = desk.written().context("the file")?;
    let config = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    let pools: Vec<String> =
        config.pools.iter().map(|p| format!("{}={}:{}", p.queue.0, p.resource.0, p.maximum)).collect();
    ensure!(pools == ["first=t4:3", "first=cpu:1", "second=t4_second:2"], "{pools:?}");
    for words in [
        "from a file",
        "echo two",
        "agent.x = 1",
        "eu-west-1a",
        "here.example.com:8791",
        "team=vision, owner=me",
    ] {
        ensure!(text.contains(words), "{words} in\n{text}");
    }
    let cpu = config.resources.iter().find(|resource| resource.name.0 == "cpu").context("cpu")?;
    ensure!(cpu.cpu_only && cpu.ebs.is_none(), "{cpu:?}");
    ensure!(
        text.contains("resolve:ssm:/aws/service/deeplearning"),
        "an image that exists in every region:\n{text}"
    );

    // Once more: what stands is loaded, one flag changes one thing.
    let (code, told) = desk.unattended(&["--max-idle-time-min=25"])?;
    ensure!(code == Some(0), "{code:?}: {told}");
    let again = desk.written().context("the file")?;
    ensure!(again == text.replace("max_idle_time_min: 20", "max_idle_time_min: 25"), "{again}\nwas\n{text}");
    Ok(())
}

#[test]
fn a_file_that_is_there_is_loaded_shown_and_kept() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let before = "\
hyper_params:
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  git_user: jane
  git_pass: hunter2
  workers_prefix: mine
  max_idle_time_min: 33
configurations:
  resource_configurations:
    t4:
      instance_type: g4dn.xlarge
      is_spot: true
      availability_zone: us-east-1b
      ami_id: ami-0123456789abcdef0
      tags: team=vision
      extra_configurations:
        EbsOptimized: true
  queues:
    gpu_queue: [[t4, 2]]
";
    fs::write(desk.path().join(FILE), before)?;
    let mut person = desk.sit_down(&[], "xterm-256color")?;
    person.answer("Load the configuration in 'aws_autoscaler.yaml'? [Y/n]:", "")?;
    let save = "Save this configuration to 'aws_autoscaler.yaml'? [Y/n]:";
    person.prompted(save)?;
    let shown = person.contents();
    ensure!(shown.contains("workers_prefix: mine") && !shown.contains("hunter2"), "{shown}");
    person.answer(save, "n")?;
    person.answer("Ctrl-C leaves unsaved [all]:", "times")?;
    person.answer("spin down an instance (in minutes) [33]:", "34")?;
    person.answer(DIALOGUE[26], "")?;
    person.answer("reach the auto-scaler (leave blank if unsure) []:", "")?;
    person.answer(save, "")?;
    ensure!(person.exit_code()? == 0, "{}", person.contents());
    let after = controller::config::load(&desk.path().join(FILE), &|_| None)?;
    ensure!(after.prefix == "mine" && after.max_idle == Duration::from_secs(34 * 60), "{after:?}");
    let [machine] = after.resources.as_slice() else { anyhow::bail!("one machine type: {after:?}") };
    ensure!(machine.tags.len() == 1 && machine.extra.contains_key("EbsOptimized"), "{machine:?}");
    ensure!(after.docker_image.is_none(), "what was not written is not made up: {after:?}");

    // Broken, it is told; and it stays unless the operator goes on.
    fs::write(desk.path().join(FILE), "hyper_params: [")?;
    let mut person = desk.sit_down(&[], "xterm-256color")?;
    person.answer("Load the configuration in 'aws_autoscaler.yaml'? [Y/n]:", "")?;
    person.shows("aws_autoscaler.yaml:2:1: not YAML")?;
    person.answer("Go on without it? It is replaced once you save. [y/N]:", "")?;
    ensure!(person.exit_code()? == 2, "{}", person.contents());
    ensure!(desk.written().as_deref() == Some("hyper_params: ["), "untouched");
    Ok(())
}

#[test]
fn the_scripts_options_go_without_a_subcommand() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let (code, told) = desk.unattended(&["--config-file", "x.yaml", "run"])?;
    ensure!(code == Some(2) && told.contains("--config-file before the subcommand run"), "{code:?}: {told}");
    let (code, told) = desk.unattended(&["--run", "--remote"])?;
    ensure!(code == Some(2) && told.contains("--remote"), "{code:?}: {told}");
    Ok(())
}
