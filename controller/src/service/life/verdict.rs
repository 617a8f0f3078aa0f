//! Whether a task's user has ended it: read from its status.

use clearml::Task;

/// What the server's watchdog writes. No user does.
const NOT_RESPONSIVE: &str = "Forced stop (non-responsive)";
/// Looks in a row that must agree on anything but an abort: a status may pass by.
const AGREEING: u32 = 2;

/// What a look at the task says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On with it.
    Runs,
    /// The server took it for dead: it is to be started again.
    Revive,
    /// Its user ended it; how, in words.
    Ended(String),
}

/// Looks at a task, again and again.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ended: u32,
    missing_is_told: bool,
}

impl Watch {
    /// Takes a look in; `None` if the server has no such task.
    pub(super) fn judge(&mut self, seen: Option<&Task>) -> Verdict {
        let Some(task) = seen else {
            if !std::mem::replace(&mut self.missing_is_told, true) {
                tracing::warn!("the server has no such task any more: the autoscaler goes on without a page");
            }
            return Verdict::Runs;
        };
        self.missing_is_told = false;
        let message = task.status_message.as_deref().unwrap_or_default();
        let status = match task.status.as_deref() {
            Some("in_progress") | None => {
                self.ended = 0;
                return if message.contains("stopping") {
                    Verdict::Ended("the task was aborted".to_owned())
                } else {
                    Verdict::Runs
                };
            }
            Some("stopped") if message == NOT_RESPONSIVE => return Verdict::Revive,
            Some(status) => status,
        };
        self.ended += 1;
        if self.ended < AGREEING {
            return Verdict::Runs;
        }
        Verdict::Ended(match status {
            "stopped" => "the task was stopped".to_owned(),
            "created" => "the task was reset".to_owned(),
            other => format!("the task's status was set to {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str, message: &str) -> Task {
        Task { status: Some(status.to_owned()), status_message: Some(message.to_owned()), ..Task::default() }
    }

    #[test]
    fn an_abort_is_believed_at_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.judge(Some(&seen("in_progress", ""))), Verdict::Runs);
        let aborted = watch.judge(Some(&seen("in_progress", "stopping")));
        assert!(matches!(aborted, Verdict::Ended(_)));
    }

    #[test]
    fn a_task_that_was_stopped_from_outside_ends_the_run_when_seen_twice() {
        let mut watch = Watch::default();
        assert_eq!(watch.judge(Some(&seen("stopped", "Stopped by ann"))), Verdict::Runs);
        assert_eq!(watch.judge(Some(&seen("in_progress", ""))), Verdict::Runs);
        assert_eq!(watch.judge(Some(&seen("stopped", "Stopped by ann"))), Verdict::Runs);
        assert!(matches!(watch.judge(Some(&seen("stopped", "Stopped by ann"))), Verdict::Ended(_)));
    }

    #[test]
    fn the_watchdog_is_no_user() {
        let mut watch = Watch::default();
        for _ in 0..3 {
            assert_eq!(watch.judge(Some(&seen("stopped", NOT_RESPONSIVE))), Verdict::Revive);
        }
    }

    #[test]
    fn a_task_that_has_gone_ends_nothing() {
        let mut watch = Watch::default();
        for _ in 0..3 {
            assert_eq!(watch.judge(None), Verdict::Runs);
        }
    }
}
