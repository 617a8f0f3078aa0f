//! ClearML's own SDK, from PyPI, against the sandbox's server: its wire is right if the SDK can't tell.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use sandbox::clearml::{Fault, Options, Server, Status};
use tests::agent::python as clearml_python;
use tests::process::Process;
use tests::python;

const LIMIT: Duration = Duration::from_secs(300);

fn run(server: &Server, script: &str) -> anyhow::Result<String> {
    let venv = python::venv("clearml", &python::file("clearml-requirements.txt"))?;
    let home = tempfile::tempdir()?;
    let mut command = clearml_python(&venv, home.path(), server);
    // Away from this repository, which the SDK would look through for the task's source.
    let copy = home.path().join(script);
    fs::copy(python::file(script), &copy)?;
    command.arg(copy);
    let mut process = Process::start(command, &home.path().join("log"))?;
    let status = process.wait(LIMIT)?;
    ensure!(status.success(), "{script}: {status}; {}", process.tail());
    Ok(process.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_client_meets_a_server_with_the_real_ones_answers() -> anyhow::Result<()> {
    let server = Server::start(Options::default()).await?;
    run(&server, "sdk_client.py")?;
    let unknown = server.handle().requests().into_iter().filter(|request| request.status == 404).count();
    ensure!(unknown == 0, "it asked for endpoints that are not there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reports_through_the_sdk_and_reads_it_back() -> anyhow::Result<()> {
    let server = Server::start(Options::default()).await?;
    let handle = server.handle();
    let queue = handle.create_queue("sdk-queue")?;

    let output = run(&server, "sdk_task.py")?;

    let copy = output.lines().last().unwrap_or_default();
    let info = handle.task(copy);
    ensure!(info.is_some_and(|task| task.status == Status::Queued), "the copy waits: {output}");
    let waiting: Vec<String> = handle
        .queues()
        .into_iter()
        .filter(|known| known.id == queue)
        .flat_map(|known| known.entries)
        .collect();
    ensure!(waiting == [copy], "only the copy waits: {waiting:?}");
    // It takes the queue's name for an id at first.
    let failed: Vec<_> = handle
        .requests()
        .into_iter()
        .filter(|request| request.status >= 400 && request.endpoint != "queues.get_by_id")
        .collect();
    ensure!(failed.is_empty(), "every call was answered: {failed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_outlives_a_server_that_falters() -> anyhow::Result<()> {
    let server = Server::start(Options { close_connections: true, ..Options::default() }).await?;
    let handle = server.handle();
    handle.create_queue("sdk-queue")?;
    handle.inject("projects.create", Fault::Html { code: 502 }, Some(2));
    handle.inject("events.add_batch", Fault::Drop, Some(1));
    handle.inject("events.scalar_metrics_iter_histogram", Fault::HalfBody, Some(1));
    run(&server, "sdk_task.py")?;
    Ok(())
}
