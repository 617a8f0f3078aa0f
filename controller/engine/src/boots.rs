//! Whether an instance's boot succeeded or failed, told once for each: what the planner's breaker rests on.

use planner::{ResourceName, State, Time};

use crate::memory::{Known, Memory};
use crate::ports::Session;

/// A boot log's end takes no more room than this in the hold and in the log.
const TAIL: usize = 600;

impl Memory {
    /// Takes the verdicts that this pass has brought.
    pub(crate) fn note_boot_ends(&mut self, ends: Vec<(ResourceName, Option<String>)>, now: Time) {
        for (resource, failure) in ends {
            let boots = self.boots.entry(resource.clone()).or_default();
            let before = boots.clone();
            match failure {
                None => boots.succeed(),
                Some(reason) => {
                    tracing::warn!(%resource, "a boot failed: {reason}");
                    boots.fail(now, reason);
                }
            }
            if *boots != before {
                self.unnoted_boots.insert(resource);
            }
        }
    }
}

/// The verdict on an instance's boot, if it has none yet: `Some(None)` for a success.
pub(crate) fn boot_end(known: &mut Known, session: Option<&Session>) -> Option<Option<String>> {
    if known.boot_judged {
        return None;
    }
    if session.is_some_and(|session| session.word.notice.is_some()) {
        // AWS takes it back: that says nothing of its boot.
        known.boot_judged = true;
        return None;
    }
    let reported = session.and_then(|session| session.boot_failure.as_ref());
    let verdict = if known.ready_at.is_some() {
        None
    } else if let Some(failure) = reported {
        Some(shortened(failure))
    } else if is_over(&known.state) && !known.ended_by_operator {
        Some("it ended before its agent was up".to_owned())
    } else {
        return None;
    };
    known.boot_judged = true;
    Some(verdict)
}

fn is_over(state: &State) -> bool {
    match state {
        State::Terminating | State::Gone => true,
        State::Requested
        | State::Pending
        | State::Booting { .. }
        | State::Idle
        | State::Busy { .. }
        | State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Lost { .. } => false,
    }
}

/// The end of a long text, on one line: the end of a log says why.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = line.char_indices().rev().nth(TAIL - 1).map_or(0, |(at, _)| at);
    if skipped == 0 { line } else { format!("...{}", &line[skipped..]) }
}
