//! `controller` without a subcommand is the script that it stands in for: the wizard, then `--run` or `--remote`.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::str::FromStr;

use anyhow::Context;
use clap::{ArgMatches, Args};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::remote::{Remotely, remote};
use super::service::{self, TaskOptions};
use super::{BadInput, DEFAULT_CONFIG_FILE, env, print};
use crate::config::Document;
use crate::service::report::Logging;
use crate::service::task::ContainerOptions;
use crate::wizard::{
    AsFound, AwsChoices, Choices, Given, GivenPool, GivenResource, Person, Screen, Setup, Stop, configure,
};

/// As the shell tells that Ctrl-C ended a program; Ctrl-D at a prompt is no different.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
const DEFAULT_QUEUE: &str = "services";

/// The script's own options, and an answer for each prompt.
#[derive(Debug, Args)]
pub(crate) struct ScriptArgs {
    /// Run the autoscaler here, once it is configured.
    #[arg(long, conflicts_with = "remote")]
    run: bool,
    /// Enqueue the autoscaler for a clearml-agent in services mode, once it is configured.
    #[arg(long)]
    remote: bool,
    /// Where the configuration is saved, and loaded from if it is there.
    #[arg(long, default_value = DEFAULT_CONFIG_FILE, value_name = "FILE")]
    config_file: PathBuf,
    /// The queue for `--remote`.
    #[arg(long, default_value = DEFAULT_QUEUE, requires = "remote", value_name = "NAME")]
    queue: String,
    #[command(flatten)]
    task: TaskOptions,
    #[command(flatten)]
    container: ContainerOptions,
    #[command(flatten, next_help_heading = "Answers, in place of the wizard's prompts")]
    answers: Answers,
}

/// One flag for each prompt.
#[derive(Debug, Args)]
struct Answers {
    /// Start from the configuration file that is there; `=false` starts anew.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    load_config_file: Option<bool>,
    /// Save without being asked.
    #[arg(long, short)]
    yes: bool,
    /// The AWS access key's id.
    #[arg(long, value_name = "ID")]
    aws_access_key_id: Option<String>,
    /// Its secret, or `@FILE`.
    #[arg(long, value_name = "SECRET")]
    aws_secret_access_key: Option<Secret>,
    /// The session token of temporary keys, or `@FILE`.
    #[arg(long, value_name = "SECRET")]
    aws_session_token: Option<Secret>,
    /// Use this machine's own AWS credentials (environment, profile, IAM role) instead of keys.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    use_credentials_chain: Option<bool>,
    /// The AWS region.
    #[arg(long, value_name = "REGION")]
    aws_region: Option<String>,
    /// The IAM instance profile of the new instances, by name or ARN.
    #[arg(long, value_name = "NAME")]
    instance_profile: Option<String>,
    /// The git user for private repositories.
    #[arg(long, value_name = "USER")]
    git_user: Option<String>,
    /// The git password or token, or `@FILE`.
    #[arg(long, value_name = "SECRET")]
    git_pass: Option<Secret>,
    /// The default docker image, with docker's parameters after it; empty for none.
    #[arg(long, value_name = "IMAGE")]
    docker_image: Option<String>,
    /// A machine type and its fields, as they are called in the file:
    /// `aws4gpu:instance_type=g4dn.4xlarge,is_spot=true,security_group_ids=sg-1,sg-2`. Repeatable. Fields that are
    /// not given have the prompt's default.
    #[arg(long, value_name = "NAME:KEY=VALUE,...", value_parser = GivenResource::parse)]
    resource: Vec<GivenResource>,
    /// A line of the budget: `gpu_queue=aws4gpu:3`. Repeatable.
    #[arg(long, value_name = "QUEUE=RESOURCE:MAX", value_parser = GivenPool::parse)]
    budget: Vec<GivenPool>,
    /// A bash script to run on new instances before the agent, or `@FILE`.
    #[arg(long, value_name = "SCRIPT")]
    extra_vm_bash_script: Option<String>,
    /// More lines for the clearml.conf of new instances, or `@FILE`.
    #[arg(long, value_name = "LINES")]
    extra_clearml_conf: Option<String>,
    /// How long an instance may be idle.
    #[arg(long, value_name = "MINUTES")]
    max_idle_time_min: Option<String>,
    /// How often instances are polled.
    #[arg(long, value_name = "MINUTES")]
    polling_interval_time_min: Option<String>,
    /// Where instances reach the autoscaler: HOST or HOST:PORT.
    #[arg(long, value_name = "HOST")]
    advertise_address: Option<String>,
}

/// A secret of the command line, or of the file after `@`, which other users of the machine can't list.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('@') else { return Ok(Self(text.to_owned())) };
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// What the operator chose.
pub(crate) struct Chosen {
    /// The configuration, sound and saved.
    pub(crate) document: Document,
    /// Where the configuration is saved.
    pub(crate) file: PathBuf,
    /// What is done with it.
    pub(crate) mode: Mode,
    /// How it becomes a task.
    pub(crate) task: TaskOptions,
}

/// What is done with a configuration.
pub(crate) enum Mode {
    /// Run here.
    Run,
    /// Run by an agent that takes tasks from this queue.
    Remote {
        /// Its name.
        queue: String,
        /// In which container.
        container: ContainerOptions,
    },
}

/// Refuses the script's options beside a subcommand, where they would mean nothing.
///
/// # Errors
/// [`BadInput`] that names them.
pub(crate) fn refuse_beside(matches: &ArgMatches) -> Result<(), BadInput> {
    let Some(subcommand) = matches.subcommand_name() else { return Ok(()) };
    let own = ScriptArgs::augment_args(clap::Command::new("script"));
    let typed = |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    let flags: Vec<String> = own
        .get_arguments()
        .filter(|arg| typed(arg.get_id().as_str()))
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    if flags.is_empty() {
        return Ok(());
    }
    Err(BadInput(format!(
        "{} before the subcommand {subcommand}: leave it out, or put it behind if {subcommand} has it",
        flags.join(", ")
    )))
}

/// Configures, and goes on as the operator chose.
pub(crate) async fn script(args: ScriptArgs, logging: &Logging) -> anyhow::Result<ExitCode> {
    let ScriptArgs { run, remote, config_file: file, queue, task, container, answers } = args;
    let document = match ask(file.clone(), answers.given()).await? {
        Asked::Document(document) => document,
        Asked::Left(code) => return Ok(ExitCode::from(code)),
    };
    let mode = match (run, remote) {
        (true, _) => Mode::Run,
        (false, true) => Mode::Remote { queue, container },
        (false, false) => {
            print(&how_to_go_on(&file))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    begin(Chosen { document, file, mode, task }, logging).await
}

async fn begin(chosen: Chosen, logging: &Logging) -> anyhow::Result<ExitCode> {
    let Chosen { document, file, mode, task } = chosen;
    match mode {
        Mode::Run => service::run(&document, &file, &task, logging).await,
        Mode::Remote { queue, container } => {
            remote(document, &file, Remotely { queue: &queue, task: &task, container: &container }).await
        }
    }
}

enum Asked {
    Document(Document),
    /// The exit code.
    Left(u8),
}

/// The wizard in a thread of its own, as it waits for a person; a signal ends the wait.
async fn ask(file: PathBuf, given: Given) -> anyhow::Result<Asked> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // However the thread is left, the terminal is as it was.
    let _terminal = AsFound::of_stdin();
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let _ = tell.send(work(file, &given, &runtime));
    };
    std::thread::Builder::new().name("wizard".to_owned()).spawn(work).context("start the wizard")?;
    let outcome = tokio::select! {
        outcome = told => outcome.context("the wizard broke off")?,
        _ = interrupt.recv() => Err(Stop::Left),
        _ = terminate.recv() => return Ok(Asked::Left(TERMINATED)),
    };
    match outcome {
        Ok(document) => Ok(Asked::Document(document)),
        Err(Stop::Left) => {
            say_left();
            Ok(Asked::Left(INTERRUPTED))
        }
        Err(Stop::Refused(message)) => Err(BadInput(message).into()),
        Err(error @ (Stop::Terminal(_) | Stop::Save(..))) => Err(error.into()),
    }
}

fn work(file: PathBuf, given: &Given, runtime: &Handle) -> Result<Document, Stop> {
    let mut screen = Screen::open().map_err(Stop::Terminal)?;
    let person = screen.as_mut().map(|screen| screen as &mut dyn Person);
    let unreachable = Rc::new(Cell::new(false));
    let connect = |document: &Document| -> Box<dyn Choices> {
        Box::new(AwsChoices::of(document, runtime.clone(), Rc::clone(&unreachable), &env))
    };
    configure(Setup { given, file, person, connect: &connect, env: &env })
}

#[allow(clippy::print_stderr, reason = "the command line's own output")]
fn say_left() {
    // The cursor may stand behind a prompt.
    let start = if std::io::stderr().is_terminal() { "\n" } else { "" };
    eprintln!("{start}left; nothing was saved");
}

fn how_to_go_on(file: &Path) -> String {
    let option = match file.to_str() {
        Some(DEFAULT_CONFIG_FILE) => String::new(),
        Some(_) | None => format!(" --config-file {}", file.display()),
    };
    format!(
        "The configuration is saved in {}. To go on:\n\
         \x20 controller --run{option}     runs the autoscaler here\n\
         \x20 controller --remote{option}  enqueues it to the queue {DEFAULT_QUEUE}\n",
        file.display()
    )
}

impl Answers {
    fn given(self) -> Given {
        let secret = |secret: Option<Secret>| secret.map(|Secret(text)| text);
        let Self {
            load_config_file,
            yes,
            aws_access_key_id,
            aws_secret_access_key,
            aws_session_token,
            use_credentials_chain,
            aws_region,
            instance_profile,
            git_user,
            git_pass,
            docker_image,
            resource,
            budget,
            extra_vm_bash_script,
            extra_clearml_conf,
            max_idle_time_min,
            polling_interval_time_min,
            advertise_address,
        } = self;
        Given {
            load: load_config_file,
            yes,
            access_key: aws_access_key_id,
            secret_key: secret(aws_secret_access_key),
            session_token: secret(aws_session_token),
            chain: use_credentials_chain,
            region: aws_region,
            instance_profile,
            git_user,
            git_pass: secret(git_pass),
            docker_image,
            resources: resource,
            bash_script: extra_vm_bash_script,
            clearml_conf: extra_clearml_conf,
            budget,
            max_idle_time_min,
            polling_interval_time_min,
            advertise_address,
        }
    }
}
