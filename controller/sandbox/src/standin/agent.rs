//! The daemon: registers, polls its queues through the gate, runs tasks by sleeping, reports, unregisters.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Api, ApiError};
use super::gate::{Gate, Kind};
use super::{Gating, Settings, conf, say};

const DEFAULT_POLL: Duration = Duration::from_secs(5);
const FIRST_REPORT: Duration = Duration::from_secs(3);
const REPORT: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(60);
/// How often a running task's status is looked at, at most.
const WATCH: Duration = Duration::from_secs(5);
const START_TRIES: u32 = 30;
const START_PAUSE: Duration = Duration::from_secs(1);
const POWER_OFF_RETRY: Duration = Duration::from_secs(15);
/// An end of task is told again this often before it is given up.
const END_TRIES: u32 = 10;
/// What the real agent exits with after SIGTERM.
const TERMINATED: u8 = 254;

/// The daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error("reading the configuration file")]
    Config(#[source] io::Error),
    #[error("no {0} in the environment or the configuration file")]
    Missing(&'static str),
    #[error("no queue named {0}")]
    NoQueue(String),
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("the gate cannot be written")]
    Gate(#[from] io::Error),
}

/// Runs until SIGTERM; the exit code.
pub(super) async fn run(settings: &Settings, gating: Option<&Gating>) -> Result<u8, AgentError> {
    let mut stop = signal(SignalKind::terminate())?;
    let gate = match gating {
        Some(gating) => Some(Gate::prepare(gating.dir.clone(), gating.self_idle_limit.is_none())?),
        None => None,
    };
    let mut agent = Agent::new(settings, gate)?;
    tokio::select! {
        _ = stop.recv() => return Ok(TERMINATED),
        started = agent.start(&settings.queues) => started?,
    }
    agent.serve(gating, &mut stop).await
}

struct Agent {
    api: Api,
    worker: String,
    gate: Option<Gate>,
    /// Ids.
    queues: Vec<String>,
    poll: Duration,
    report_at: Instant,
}

/// How a task's run went.
enum Run {
    Finished,
    Aborted,
    Terminated,
}

/// What the server wants of a running task.
enum Wish {
    GoOn,
    /// A user's abort.
    Stop,
    /// Somebody gave it another status: not this run's business any more.
    NotOurs,
}

impl Agent {
    fn new(settings: &Settings, gate: Option<Gate>) -> Result<Self, AgentError> {
        let file = match &settings.config_file {
            Some(path) => conf::read(&std::fs::read_to_string(path).map_err(AgentError::Config)?),
            None => BTreeMap::new(),
        };
        let pick = |variable: &str, key: &str| {
            let value = std::env::var(variable).ok().or_else(|| file.get(key).cloned());
            value.filter(|value| !value.is_empty())
        };
        let need =
            |variable: &'static str, key: &str| pick(variable, key).ok_or(AgentError::Missing(variable));
        let api = Api::new(
            &need("CLEARML_API_HOST", "api.api_server")?,
            &need("CLEARML_API_ACCESS_KEY", "api.credentials.access_key")?,
            &need("CLEARML_API_SECRET_KEY", "api.credentials.secret_key")?,
        )?;
        let name = || pick("CLEARML_WORKER_NAME", "agent.worker_name").map(|name| format!("{name}:0"));
        let worker = pick("CLEARML_WORKER_ID", "agent.worker_id").or_else(name);
        let worker = worker.ok_or(AgentError::Missing("CLEARML_WORKER_ID"))?;
        let poll = std::env::var("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC").ok().and_then(|text| text.parse().ok());
        let poll = poll.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(DEFAULT_POLL);
        let poll = poll.max(Duration::from_millis(10));
        Ok(Self { api, worker, gate, queues: Vec::new(), poll, report_at: Instant::now() + FIRST_REPORT })
    }

    /// Finds the queues and registers, with patience for a server that is not up yet.
    async fn start(&mut self, queues: &[String]) -> Result<(), AgentError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_start(queues).await {
                Err(AgentError::Api(ApiError::Lost { .. })) if tries < START_TRIES => {
                    sleep(START_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn try_start(&mut self, queues: &[String]) -> Result<(), AgentError> {
        let known = self.api.call("queues.get_all", &json!({"only_fields": ["id", "name"]})).await?;
        let find = |wanted: &String| {
            let queues = known["queues"].as_array().into_iter().flatten();
            let mut matching = queues.filter(|queue| queue["name"] == **wanted || queue["id"] == **wanted);
            let id = matching.next().and_then(|queue| queue["id"].as_str());
            id.map(str::to_owned).ok_or_else(|| AgentError::NoQueue(wanted.clone()))
        };
        self.queues = queues.iter().map(find).collect::<Result<_, _>>()?;
        let body = json!({"worker": self.worker, "queues": self.queues, "timeout": 600, "tags": []});
        self.api.call("workers.register", &body).await?;
        Ok(())
    }

    async fn serve(&mut self, gating: Option<&Gating>, stop: &mut Signal) -> Result<u8, AgentError> {
        let limit = gating.and_then(|gating| gating.self_idle_limit.map(|limit| (limit, &*gating.power_off)));
        let mut poll_at = Instant::now();
        loop {
            tokio::select! {
                _ = stop.recv() => return self.leave().await,
                () = sleep_until(poll_at.min(self.report_at)) => {}
            }
            if Instant::now() >= self.report_at {
                self.report(None).await;
            }
            if Instant::now() < poll_at {
                continue;
            }
            if let Some((limit, power_off)) = limit
                && self.gate.as_ref().and_then(Gate::idle_for).is_some_and(|idle| idle >= limit)
            {
                return self.power_off(power_off, stop).await;
            }
            match self.next_task().await? {
                Some(task) => {
                    if let Run::Terminated = self.run_task(&task, stop).await? {
                        return self.leave().await;
                    }
                }
                None => poll_at = Instant::now() + self.poll,
            }
        }
    }

    /// The gate closes for good, and the machine goes down.
    async fn power_off(&mut self, command: &str, stop: &mut Signal) -> Result<u8, AgentError> {
        loop {
            say("idle for too long: powering off");
            if let Err(error) = Command::new("sh").arg("-c").arg(command).status().await {
                say(&format!("cannot power off: {error}"));
            }
            tokio::select! {
                _ = stop.recv() => return self.leave().await,
                () = sleep(POWER_OFF_RETRY) => {}
            }
        }
    }

    async fn leave(&mut self) -> Result<u8, AgentError> {
        if let Err(error) = self.api.call("workers.unregister", &json!({"worker": self.worker})).await {
            say(&format!("{error}"));
        }
        Ok(TERMINATED)
    }

    /// One round over the queues, each poll through the gate.
    async fn next_task(&mut self) -> Result<Option<String>, AgentError> {
        for queue in self.queues.clone() {
            let lock = match &mut self.gate {
                Some(gate) => match gate.open().await? {
                    Some(lock) => Some(lock),
                    None => return Ok(None),
                },
                None => None,
            };
            let popped = self.api.call("queues.get_next_task", &json!({"queue": queue})).await;
            let task =
                popped.as_ref().ok().and_then(|data| data["entry"]["task"].as_str()).map(str::to_owned);
            self.set_gate(match (&popped, &task) {
                (Err(_), _) => Kind::Unknown,
                (Ok(_), Some(task)) => Kind::Busy(task.clone()),
                (Ok(_), None) => Kind::Idle,
            })?;
            drop(lock);
            if let Err(error) = popped {
                say(&format!("{error}"));
                return Ok(None);
            }
            if task.is_some() {
                return Ok(task);
            }
        }
        Ok(None)
    }

    fn set_gate(&mut self, kind: Kind) -> io::Result<()> {
        self.gate.as_mut().map_or(Ok(()), |gate| gate.set(kind))
    }

    async fn run_task(&mut self, task: &str, stop: &mut Signal) -> Result<Run, AgentError> {
        let run = match self.begin(task).await {
            Ok(seconds) => self.work(task, seconds, stop).await,
            Err(error) => {
                // As the real agent: it goes on without running anything.
                say(&format!("{error}"));
                Run::Aborted
            }
        };
        match run {
            Run::Finished => self.end(task, "tasks.completed", "").await,
            Run::Aborted => {}
            Run::Terminated => self.end(task, "tasks.stopped", "user abort").await,
        }
        if let Some(gate) = &mut self.gate {
            gate.ended()?;
        }
        self.report(None).await;
        Ok(run)
    }

    /// Tells that the task runs; how long it is to take.
    async fn begin(&mut self, task: &str) -> Result<Duration, ApiError> {
        let started = json!({"task": task, "status_reason": "pulled by agent"});
        self.api.call("tasks.started", &started).await?;
        self.report(Some(task)).await;
        let worker = self.worker.clone();
        self.api.log(task, &worker, &format!("task {task} pulled by worker {worker}\n")).await?;
        self.api.call("tasks.started", &json!({"task": task})).await?;
        let read = self.api.call("tasks.get_by_id", &json!({"task": task})).await?;
        Ok(seconds_of(&read["task"]["hyperparams"]))
    }

    /// Sleeps the task's time, with pings and reports, until it is over or aborted.
    async fn work(&mut self, task: &str, length: Duration, stop: &mut Signal) -> Run {
        let end = Instant::now() + length;
        let watch = WATCH.min(self.poll.max(Duration::from_millis(200)));
        let mut ping_at = Instant::now() + PING;
        let mut watch_at = Instant::now() + watch;
        loop {
            tokio::select! {
                _ = stop.recv() => return Run::Terminated,
                () = sleep_until(end.min(ping_at).min(watch_at).min(self.report_at)) => {}
            }
            let now = Instant::now();
            if now >= end {
                return Run::Finished;
            }
            if now >= self.report_at {
                self.report(Some(task)).await;
            }
            if now >= ping_at {
                ping_at = now + PING;
                self.attempt("tasks.ping", json!({"task": task})).await;
            }
            if now >= watch_at {
                watch_at = now + watch;
                match self.wish(task).await {
                    Wish::GoOn => {}
                    Wish::Stop => {
                        self.end(task, "tasks.stopped", "user abort").await;
                        return Run::Aborted;
                    }
                    Wish::NotOurs => return Run::Aborted,
                }
            }
        }
    }

    async fn wish(&mut self, task: &str) -> Wish {
        let body = json!({"id": [task], "only_fields": ["id", "status", "status_message"]});
        match self.api.call("tasks.get_all", &body).await {
            Ok(data) => {
                let task = &data["tasks"][0];
                if task["status"] != "in_progress" {
                    Wish::NotOurs
                } else if task["status_message"] == "stopping" {
                    Wish::Stop
                } else {
                    Wish::GoOn
                }
            }
            Err(error) => {
                say(&format!("{error}"));
                Wish::GoOn
            }
        }
    }

    /// Tells the end of a task until the server has heard it.
    async fn end(&mut self, task: &str, endpoint: &str, reason: &str) {
        let body = json!({"task": task, "status_reason": reason});
        for _ in 0..END_TRIES {
            match self.api.call(endpoint, &body).await {
                Err(error @ ApiError::Lost { .. }) => {
                    say(&format!("{error}"));
                    sleep(START_PAUSE).await;
                }
                Err(error @ (ApiError::Refused { .. } | ApiError::Address)) => {
                    return say(&format!("{error}"));
                }
                Ok(_) => return,
            }
        }
    }

    async fn report(&mut self, task: Option<&str>) {
        self.report_at = Instant::now() + REPORT;
        let mut body = json!({
            "worker": self.worker,
            "queues": self.queues,
            "timestamp": jiff::Timestamp::now().as_millisecond(),
            "machine_stats": {"cpu_usage": [1.0], "memory_used": 1},
        });
        if let Some(task) = task {
            body["task"] = Value::from(task);
        }
        self.attempt("workers.status_report", body).await;
    }

    /// A call whose failure changes nothing here.
    async fn attempt(&mut self, endpoint: &str, body: Value) {
        if let Err(error) = self.api.call(endpoint, &body).await {
            say(&format!("{error}"));
        }
    }
}

/// `Args/seconds`; 1 without it.
fn seconds_of(hyperparams: &Value) -> Duration {
    let value = &hyperparams["Args"]["seconds"]["value"];
    let seconds = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Duration::from_secs(1))
}
