//! Real clearml-agents of three lines, gated: they take work only while they may, and every task runs once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::clearml::{Fault, Handle, Options, Server, Status};
use tests::agent::Agent;
use tests::python;

const LIMIT: Duration = Duration::from_secs(240);
const LEASE: Duration = Duration::from_secs(3600);
/// A daemon asks for its queues' tags before each poll, gate or no gate: so often is a gate proved closed.
/// The oldest agent takes five seconds a round, whatever it is told.
const ROUNDS: u64 = 4;
const WORKER: &str = "fleet:small:t3.small:i-0001";

#[tokio::test(flavor = "multi_thread")]
async fn agent_3_0_runs_tasks_only_while_its_gate_is_open() -> anyhow::Result<()> {
    runs_tasks_only_while_its_gate_is_open("clearml", "clearml-requirements.txt").await
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_2_0_runs_tasks_only_while_its_gate_is_open() -> anyhow::Result<()> {
    runs_tasks_only_while_its_gate_is_open("agent-2.0", "agent-2.0-requirements.txt").await
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_1_9_runs_tasks_only_while_its_gate_is_open() -> anyhow::Result<()> {
    runs_tasks_only_while_its_gate_is_open("agent-1.9", "agent-1.9-requirements.txt").await
}

async fn runs_tasks_only_while_its_gate_is_open(venv: &str, requirements: &str) -> anyhow::Result<()> {
    let venv = python::venv(venv, &python::file(requirements))?;
    let home = tempfile::tempdir()?;
    let (server, queue, mut agent) = fleet(&venv, home.path()).await?;
    let handle = server.handle();

    // Without a lease the gate is closed from the start.
    let first = handle.create_task("the first task", 0.5, Some(&queue))?;
    stays_in_queue(&handle, &agent, &first).await?;

    agent.open_gate(LEASE)?;
    completes(&handle, &agent, &first).await?;
    agent.wait_for_state("idle", LIMIT).or_else(|_| agent.wait_for_state("polling", LIMIT))?;

    let state = agent.close_gate()?;
    ensure!(state == "idle", "drained while it holds nothing, but the gate says {state}");
    let second = handle.create_task("the second task", 0.5, Some(&queue))?;
    stays_in_queue(&handle, &agent, &second).await?;

    agent.open_gate(LEASE)?;
    completes(&handle, &agent, &second).await?;

    agent.terminate()?;
    handle.wait(LIMIT, |handle| handle.workers().is_empty()).await.context("it unregisters")?;
    let known = ["tasks.dequeue", "workers.get_runtime_properties"];
    let failed: Vec<_> = handle
        .requests()
        .into_iter()
        .filter(|request| request.status != 200 && !known.contains(&request.endpoint.as_str()))
        .collect();
    ensure!(failed.is_empty(), "the agent's calls were answered: {failed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_agent_finishes_its_task_behind_a_closed_gate() -> anyhow::Result<()> {
    let venv = python::venv("clearml", &python::file("clearml-requirements.txt"))?;
    let home = tempfile::tempdir()?;
    let (server, queue, agent) = fleet(&venv, home.path()).await?;
    let handle = server.handle();

    agent.open_gate(LEASE)?;
    let held = handle.create_task("held over the drain", 4.0, Some(&queue))?;
    handle
        .wait(LIMIT, |handle| handle.task(&held).is_some_and(|task| task.status == Status::InProgress))
        .await
        .with_context(|| agent.process.tail())?;
    let state = agent.close_gate()?;
    ensure!(state == format!("busy:{held}"), "refused with its task, but the gate says {state}");

    let waiting = handle.create_task("must wait", 0.5, Some(&queue))?;
    completes(&handle, &agent, &held).await?;
    agent.wait_for_state("idle", LIMIT)?;
    stays_in_queue(&handle, &agent, &waiting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_leaves_the_task_in_limbo_until_it_is_enqueued_again() -> anyhow::Result<()> {
    let venv = python::venv("clearml", &python::file("clearml-requirements.txt"))?;
    let home = tempfile::tempdir()?;
    let (server, queue, agent) = fleet(&venv, home.path()).await?;
    let handle = server.handle();

    let lost = handle.create_task("popped by nobody", 0.5, Some(&queue))?;
    handle.inject("queues.get_next_task", Fault::DropReply, Some(1));
    agent.open_gate(LEASE)?;
    // The agent's HTTP layer asks again and is told that the queue is empty.
    handle
        .wait(LIMIT, |handle| handle.pops().iter().any(|pop| pop.task.is_none()))
        .await
        .with_context(|| agent.process.tail())?;
    let limbo = handle.task(&lost).context("the task is known")?;
    ensure!(limbo.status == Status::Queued && limbo.starts == 0, "nobody runs it: {limbo:?}");
    ensure!(handle.queues().iter().all(|queue| queue.entries.is_empty()), "and it is in no queue");

    handle.enqueue(&lost, &queue)?;
    completes(&handle, &agent, &lost).await
}

/// A server with a queue, and a registered agent behind a closed gate.
async fn fleet(venv: &Path, home: &Path) -> anyhow::Result<(Server, String, Agent)> {
    let server = Server::start(Options::default()).await?;
    let handle = server.handle();
    let queue = handle.create_queue("agents")?;
    let agent = Agent::start(venv, home, &server, WORKER, "agents")?;
    handle
        .wait(LIMIT, |handle| handle.workers().iter().any(|worker| worker.id == WORKER))
        .await
        .with_context(|| agent.process.tail())?;
    ensure!(!agent.is_ungated(), "the shim must know this agent");
    Ok((server, queue, agent))
}

async fn completes(handle: &Handle, agent: &Agent, task: &str) -> anyhow::Result<()> {
    handle
        .wait(LIMIT, |handle| handle.task(task).is_some_and(|task| task.status == Status::Completed))
        .await
        .with_context(|| format!("{:?}; {}", handle.task(task), agent.process.tail()))?;
    let info = handle.task(task).context("the task is known")?;
    ensure!(info.starts == 1, "it ran once: {:?}", info.history);
    ensure!(info.last_worker.as_deref() == Some(WORKER), "on this worker: {info:?}");
    let pops = handle.pops().into_iter().filter(|pop| pop.task.as_deref() == Some(task)).count();
    ensure!(pops >= 1, "it came out of the queue");
    handle
        .wait(LIMIT, |handle| handle.console(task).iter().any(|lines| lines.contains("done")))
        .await
        .with_context(|| format!("its output reached the console; {}", agent.process.tail()))
}

/// The daemon goes its rounds and pops nothing.
async fn stays_in_queue(handle: &Handle, agent: &Agent, task: &str) -> anyhow::Result<()> {
    let pops = handle.pops().len();
    let rounds = handle.count("queues.get_all");
    handle
        .wait(LIMIT, |handle| handle.count("queues.get_all") >= rounds + ROUNDS)
        .await
        .with_context(|| agent.process.tail())?;
    ensure!(handle.pops().len() == pops, "nothing is polled behind a closed gate");
    let waits = handle.queues().iter().any(|queue| queue.entries.iter().any(|entry| entry == task));
    ensure!(waits, "the task waits in its queue");
    Ok(())
}
