//! Tasks: reading them, making them, and the steps of their life.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Client, Repeat};
use crate::error::Error;
use crate::paging::{MOST_PAGES, PAGE_SIZE, Page};
use crate::params::{Configurations, Parameters};
use crate::time::Timestamp;
use crate::types::{Task, or_default};

/// What tells who runs a task, and what has been done about it.
pub const LIFE_FIELDS: &[&str] = &[
    "id",
    "status",
    "status_changed",
    "status_reason",
    "status_message",
    "last_update",
    "last_worker",
    "execution.queue",
    "runtime",
    "tags",
];

/// Which tasks are listed, and which of their fields. What is empty does not narrow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskQuery<'a> {
    /// `in_progress`, ...
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub status: &'a [&'a str],
    /// Ids.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub id: &'a [&'a str],
    /// User tags.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tags: &'a [&'a str],
    /// The server's own tags; `-archived` excludes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub system_tags: &'a [&'a str],
    /// Ids of projects.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub project: &'a [&'a str],
    /// `service`, ...
    #[serde(rename = "type", skip_serializing_if = "<[_]>::is_empty")]
    pub kind: &'a [&'a str],
    /// `execution.queue`, ...; the id always comes along.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub only_fields: &'a [&'a str],
}

/// A task to be made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewTask {
    /// At least 3 characters.
    pub name: String,
    /// `training`, `service`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The project's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// User tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The server's own tags: `development` is a task that no agent runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_tags: Vec<String>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// What it is run with.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub hyperparams: Parameters,
    /// What else it is run with.
    #[serde(skip_serializing_if = "Configurations::is_empty")]
    pub configuration: Configurations,
    /// Where it is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A task's program.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Script {
    /// `python3`, or `bash` for a program that is not Python.
    pub binary: String,
    /// Empty: the program is the text of `diff`.
    pub repository: String,
    /// The file's name.
    pub entry_point: String,
    /// Within the repository.
    pub working_dir: String,
    /// The program's text, or what is changed in the repository.
    pub diff: String,
    /// `{"pip": "clearml\n"}`; an empty object installs nothing.
    pub requirements: serde_json::Map<String, Value>,
}

/// A task's container.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Container {
    /// Its image.
    pub image: String,
    /// For `docker run`.
    pub arguments: String,
    /// Run inside before the agent.
    pub setup_shell_script: String,
}

/// What is changed in a task; what is `None` stays as it is. Each field is replaced as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskEdit {
    /// Free-form notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<serde_json::Map<String, Value>>,
    /// User tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// The user's comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// Where it is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// What it is run with: sections that are not among them go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hyperparams: Option<Parameters>,
    /// What else it is run with: objects that are not among them go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configurations>,
    /// Edit a task that is no longer a draft.
    pub force: bool,
}

/// Why a task's status changes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StatusNote<'a> {
    /// In words for a machine.
    #[serde(rename = "status_reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// In words for a user.
    #[serde(rename = "status_message", skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// Whatever the task's status is now.
    pub force: bool,
}

#[derive(Serialize)]
struct Step<'a, N> {
    task: &'a str,
    #[serde(flatten)]
    note: N,
}

impl Client {
    /// All tasks that match.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tasks(&self, query: &TaskQuery<'_>) -> Result<Vec<Task>, Error> {
        #[derive(Serialize)]
        struct Ordered<'a> {
            #[serde(flatten)]
            query: &'a TaskQuery<'a>,
            order_by: [&'a str; 1],
        }
        // A task that comes to match has just changed its status: new rows come last, as paging needs it.
        self.pages::<Listing>("tasks.get_all", &Ordered { query, order_by: ["status_changed"] }).await
    }

    /// Tasks that are `queued` and were so since `since` or later, and some more; the latest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn queued_since(&self, since: Timestamp, fields: &[&str]) -> Result<Vec<Task>, Error> {
        let mut found: Vec<Task> = Vec::new();
        for page in 0..MOST_PAGES {
            let body = json!({
                "status": ["queued"], "only_fields": fields, "order_by": ["-status_changed"],
                "page": page, "page_size": PAGE_SIZE,
            });
            let Listing { tasks } = self.call("tasks.get_all", &body, Repeat::Always).await?;
            let full = tasks.len() >= PAGE_SIZE;
            // A task without a time can't tell that the rest is older.
            let older = tasks.last().and_then(|task| task.status_changed).is_some_and(|last| last < since);
            found.extend(tasks);
            if !full || older {
                break;
            }
        }
        Ok(found)
    }

    /// Back to a draft: its events, output artifacts and draft models go.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn reset_task(&self, id: &str) -> Result<(), Error> {
        self.step("tasks.reset", id, &json!({}), Repeat::Unseen).await
    }

    /// One task, whole.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::NO_SUCH_TASK`].
    pub async fn task(&self, id: &str) -> Result<Task, Error> {
        let One { task } = self.call("tasks.get_by_id", &json!({"task": id}), Repeat::Always).await?;
        Ok(task)
    }

    /// Makes a task and returns its id.
    ///
    /// # Errors
    /// See [`Error`]; `Unavailable` may have made it.
    pub async fn create_task(&self, task: &NewTask) -> Result<String, Error> {
        let Created { id } = self.call("tasks.create", task, Repeat::Unseen).await?;
        Ok(id)
    }

    /// Changes a task.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`] if it is no draft and `force` is not set.
    pub async fn edit_task(&self, id: &str, edit: &TaskEdit) -> Result<(), Error> {
        self.step("tasks.edit", id, edit, Repeat::Always).await
    }

    /// Puts a task at the end of a queue. Not repeated once the server may have seen it: a task that was
    /// popped meanwhile would be queued twice.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`], [`crate::subcode::NO_SUCH_QUEUE`] and others.
    pub async fn enqueue_task(&self, id: &str, queue: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Into<'a> {
            queue: &'a str,
            #[serde(flatten)]
            note: &'a StatusNote<'a>,
        }
        self.step("tasks.enqueue", id, &Into { queue, note }, Repeat::Unseen).await
    }

    /// Says that a task runs.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn task_started(&self, id: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        self.step("tasks.started", id, note, Repeat::Always).await
    }

    /// Says that a task was stopped.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn task_stopped(&self, id: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        self.step("tasks.stopped", id, note, Repeat::Unseen).await
    }

    /// Says that a task ended well.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn task_completed(&self, id: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        self.step("tasks.completed", id, note, Repeat::Always).await
    }

    /// Says that a task failed.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn task_failed(&self, id: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        self.step("tasks.failed", id, note, Repeat::Unseen).await
    }

    /// Asks a task to stop: one with a live worker stays in progress, `stopping`, until its agent acts.
    ///
    /// # Errors
    /// `Refused` with [`crate::subcode::WRONG_STATUS`].
    pub async fn stop_task(&self, id: &str, note: &StatusNote<'_>) -> Result<(), Error> {
        self.step("tasks.stop", id, note, Repeat::Unseen).await
    }

    /// Keeps the server's watchdog from stopping a task that has nothing to report.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping_task(&self, id: &str) -> Result<(), Error> {
        self.step("tasks.ping", id, &json!({}), Repeat::Always).await
    }

    async fn step(
        &self,
        endpoint: &'static str,
        task: &str,
        note: &impl Serialize,
        repeat: Repeat,
    ) -> Result<(), Error> {
        self.call::<IgnoredAny>(endpoint, &Step { task, note }, repeat).await?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "or_default")]
    tasks: Vec<Task>,
}

impl Page for Listing {
    type Row = Task;

    fn rows(self) -> Vec<Task> {
        self.tasks
    }

    fn id(row: &Task) -> &str {
        &row.id
    }
}

#[derive(Deserialize)]
struct One {
    task: Task,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}
