//! The user properties, which can be changed in the web page while the task runs: what becomes of the
//! instances at the end, and how much the console tells.

use std::fmt::Display;
use std::str::FromStr;

use clearml::{PROPERTIES, Property, Task};
use planner::ShutdownAction;
use tokio::sync::watch;

use crate::service::report::{ConsoleLevel, Logging};
use crate::service::task::ServiceTask;

const SHUTDOWN_ACTION: &str = "shutdown_action";
const LOG_LEVEL: &str = "log_level";

/// Follows the properties of a task.
pub(super) struct Properties {
    action: ShutdownAction,
    set_action: watch::Sender<ShutdownAction>,
    level: ConsoleLevel,
    logging: Logging,
    /// The last texts, so that nonsense is complained of once.
    seen: Option<(Option<String>, Option<String>)>,
}

impl Properties {
    pub(super) fn new(
        action: ShutdownAction,
        set_action: watch::Sender<ShutdownAction>,
        logging: Logging,
    ) -> Self {
        Self { action, set_action, level: ConsoleLevel::default(), logging, seen: None }
    }

    /// Takes a look at the task in. At the first one, properties that are not there are made.
    pub(super) async fn follow(&mut self, task: &ServiceTask, seen: &Task) {
        let text = |name| seen.parameter(PROPERTIES, name).map(str::to_owned);
        let texts = (text(SHUTDOWN_ACTION), text(LOG_LEVEL));
        if self.seen.is_none() && !self.make_missing(task, &texts).await {
            return;
        }
        if self.seen.as_ref() == Some(&texts) {
            return;
        }
        let (before_action, before_level) = self.seen.replace(texts.clone()).unwrap_or_default();
        if before_action != texts.0
            && let Some(action) = read(SHUTDOWN_ACTION, texts.0.as_deref(), self.action, ShutdownAction::name)
        {
            self.action = action;
            self.set_action.send_replace(action);
        }
        if before_level != texts.1
            && let Some(level) = read(LOG_LEVEL, texts.1.as_deref(), self.level, ConsoleLevel::name)
        {
            self.level = level;
            self.logging.set_console(level);
        }
    }

    /// Whether there is nothing left to make.
    async fn make_missing(&self, task: &ServiceTask, texts: &(Option<String>, Option<String>)) -> bool {
        let mut missing = Vec::new();
        if texts.0.is_none() {
            missing.push(Property {
                name: SHUTDOWN_ACTION,
                value: self.action.name(),
                description: "What becomes of the instances when the autoscaler ends: none (they go by \
                              themselves once idle), idle (the idle ones are ended), all",
            });
        }
        if texts.1.is_none() {
            missing.push(Property {
                name: LOG_LEVEL,
                value: self.level.name(),
                description: "How much the console tells: trace, debug, info, warning, error",
            });
        }
        if missing.is_empty() {
            return true;
        }
        match task.client.set_properties(&task.id, &missing).await {
            Ok(()) => true,
            Err(error @ clearml::Error::Refused { .. }) => {
                tracing::warn!("the task's user properties could not be made: {error}");
                true
            }
            Err(error) => {
                // Whoever looks at the task tells of an outage; the next look tries again.
                tracing::debug!("make the task's user properties: {error}");
                false
            }
        }
    }
}

/// A new value, if the text is one. Nonsense leaves the old value, and so does a property that was removed.
fn read<T: FromStr<Err: Display> + Copy + PartialEq>(
    property: &str,
    text: Option<&str>,
    old: T,
    name: fn(T) -> &'static str,
) -> Option<T> {
    match text?.parse::<T>() {
        Ok(new) if new == old => None,
        Ok(new) => {
            tracing::info!("user property {property}: {} from now on, {} before", name(new), name(old));
            Some(new)
        }
        Err(remedy) => {
            let text = text.unwrap_or_default().escape_debug();
            tracing::warn!(
                "user property {property}: \"{text}\" is not understood ({remedy}): it stays {}",
                name(old)
            );
            None
        }
    }
}
