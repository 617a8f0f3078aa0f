//! The machine's own `shutdown`.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::config::Layout;
use crate::log;

const LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Cancels the shutdown that is armed, trying until it works: left armed it would kill a task one day.
pub(crate) async fn disarm(layout: &Layout) {
    let mut pause = FIRST_PAUSE;
    while !layout.is_gone() && !shutdown(&["-c"]).await {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ends the machine. Whether it worked shows in that nothing runs any more.
pub(crate) async fn off() {
    shutdown(&["-P", "now"]).await;
}

async fn shutdown(arguments: &[&str]) -> bool {
    let run = Command::new("shutdown")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status();
    match timeout(LIMIT, run).await {
        Ok(Ok(status)) if status.success() => true,
        Ok(Ok(status)) => {
            log::warn(format_args!("shutdown {} ended with {status}", arguments.join(" ")));
            false
        }
        Ok(Err(error)) => {
            log::warn(format_args!("cannot run shutdown: {error}"));
            false
        }
        Err(_) => {
            log::warn(format_args!("shutdown {} did not end in time", arguments.join(" ")));
            false
        }
    }
}
