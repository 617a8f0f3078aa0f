//! From a task to the launch of its instance.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::figures::Samples;
use crate::stage::{Line, Stage};

/// The launch of an instance follows the reply that shows a task: how soon, while 1,000 others live?
pub(crate) async fn reply_to_launch() -> anyhow::Result<()> {
    const LIVE: u32 = 1_000;
    const SAMPLES: u32 = 150;
    /// On a slow machine there are fewer samples.
    const STRETCH: Duration = Duration::from_secs(150);
    let lines = [Line::new("steady", LIVE), Line::new("probe", SAMPLES)];
    let stage = Stage::open(&lines, "  queue_polling_interval_sec: 0.5\n").await?;
    let _peers = stage.busy_fleet("steady", LIVE).await?;
    let clearml = stage.sandbox.clearml.handle();
    let probe = stage.queue_id("probe")?;
    eprintln!("{LIVE} instances are at work");
    let began = Instant::now();
    for number in 0..SAMPLES {
        if began.elapsed() > STRETCH {
            break;
        }
        sleep(Duration::from_millis(700).mul_f64(0.5 + rand::random::<f64>())).await;
        clearml.create_task(&format!("probe {number}"), 3600.0, Some(&probe))?;
        stage.launched(u64::from(LIVE + number + 1)).await?;
    }
    let requests = clearml.requests();
    let replies: Vec<SystemTime> = requests
        .iter()
        .filter(|request| request.endpoint == "queues.get_all")
        .map(|request| request.at)
        .collect();
    let launches = stage.calls_for("probe");
    let samples: Samples = launches
        .iter()
        .filter_map(|call| {
            let sent = wall(call.at);
            let reply = replies.iter().rev().find(|reply| **reply <= sent)?;
            sent.duration_since(*reply).ok()
        })
        .collect();
    println!("queue reply -> launch request, 1,000 live instances: {samples}");
    stage.close().await;
    Ok(())
}

/// Everything as it is by default: the wait for the next poll of the queues is most of it.
pub(crate) async fn task_to_launch() -> anyhow::Result<()> {
    const QUEUES: usize = 100;
    const WINDOW: Duration = Duration::from_secs(50);
    let names: Vec<String> = (0..QUEUES).map(|number| format!("queue-{number:03}")).collect();
    let lines: Vec<Line> = names.iter().map(|name| Line::new(name.clone(), 1)).collect();
    let stage = Stage::open(&lines, "").await?;
    let clearml = stage.sandbox.clearml.handle();
    let began = Instant::now();
    let mut instants: Vec<(Duration, &String)> =
        names.iter().map(|name| (WINDOW.mul_f64(rand::random()), name)).collect();
    instants.sort_unstable();
    let mut enqueued = Vec::new();
    for (after, name) in instants {
        tokio::time::sleep_until(began + after).await;
        let queue = stage.queue_id(name)?;
        let at = Instant::now();
        clearml.create_task("task", 3600.0, Some(&queue))?;
        enqueued.push((name, at));
    }
    stage.launched(QUEUES as u64).await?;
    let mut samples = Samples::default();
    for (name, at) in enqueued {
        let call = stage.calls_for(name).into_iter().next().with_context(|| format!("launch for {name}"))?;
        samples.push(call.at - at);
    }
    println!("task enqueued -> launch request, at defaults: {samples}");
    stage.close().await;
    Ok(())
}

/// 500 tasks at once, at defaults, some rounds of it, each with a queue of its own.
pub(crate) async fn burst() -> anyhow::Result<()> {
    const TASKS: u32 = 500;
    const ROUNDS: u32 = 8;
    let names: Vec<String> = (0..ROUNDS).map(|round| format!("burst-{round}")).collect();
    let lines: Vec<Line> = names.iter().map(|name| Line::new(name.clone(), TASKS)).collect();
    let stage = Stage::open(&lines, "").await?;
    let clearml = stage.sandbox.clearml.handle();
    let mut launched = Samples::default();
    let mut since_reply = Samples::default();
    let mut calls = 0;
    for (round, name) in names.iter().enumerate() {
        let queue = stage.queue_id(name)?;
        let tasks: Vec<String> = (0..TASKS)
            .map(|number| clearml.create_task(&format!("task {number}"), 3600.0, None))
            .collect::<Result<_, _>>()?;
        sleep(Duration::from_secs(5).mul_f64(rand::random())).await;
        let began = Instant::now();
        for task in &tasks {
            clearml.enqueue(task, &queue)?;
        }
        let wanted = u64::from(TASKS) * (round as u64 + 1);
        let done = stage.launched(wanted).await?;
        launched.push(done - began);
        let all = stage.calls_for(name);
        calls = calls.max(all.len());
        let first = all.first().map(|call| wall(call.at)).context("a launch")?;
        let requests = clearml.requests();
        let reply = requests
            .iter()
            .rev()
            .find(|request| request.endpoint == "queues.get_all" && request.at <= first)
            .context("a reply")?;
        since_reply.push(wall(done).duration_since(reply.at)?);
    }
    println!(
        "500 tasks at once, maximum 500, at defaults: all launched after {launched}, since the first reply that showed \
         one {since_reply}; at most {calls} RunInstances calls a round"
    );
    stage.close().await;
    Ok(())
}

/// The wall clock's time of an instant: the ClearML half keeps no other.
fn wall(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}
