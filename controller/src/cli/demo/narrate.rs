//! The demo's story: one line for each instance that enters another state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use engine::Published;
use engine::status::{InstanceStatus, Status};
use tokio::sync::watch;

/// Watches the loop and tells what changes, on stderr if stdout is for the summary alone.
pub(super) struct Narrator {
    published: watch::Receiver<Arc<Published>>,
    began: Instant,
    last: BTreeMap<String, String>,
    to_stderr: bool,
}

impl Narrator {
    pub(super) fn new(published: watch::Receiver<Arc<Published>>, to_stderr: bool) -> Self {
        Self { published, began: Instant::now(), last: BTreeMap::new(), to_stderr }
    }

    /// A line, with the time since the start.
    #[allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo's own output")]
    pub(super) fn say(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        if self.to_stderr {
            eprintln!("{seconds:6.1} s  {text}");
        } else {
            println!("{seconds:6.1} s  {text}");
        }
    }

    /// Waits for the next pass and tells what it changed.
    pub(super) async fn follow(&mut self) {
        if self.published.changed().await.is_err() {
            // The loop has ended: nothing will ever change, and whoever called looks elsewhere, too.
            std::future::pending::<()>().await;
        }
        let status = Status::of(&self.published.borrow_and_update().clone());
        for instance in &status.instances {
            let InstanceStatus { instance: id, resource, state, task, .. } = instance;
            let shown = match task {
                Some(task) => format!("{state} with task {task}"),
                None => state.clone(),
            };
            // Another boot phase is not another chapter.
            if self.last.get(id) != Some(&shown) {
                self.say(&format!("{id} ({resource}) is {shown}"));
                self.last.insert(id.clone(), shown);
            }
        }
    }
}
