//! Everything the server knows, in memory, behind one lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::auth::Credential;
use super::document::{self, Doc, new_id, now};
use super::error::ApiError;
use super::events::TaskEvents;
use super::faults::Faults;
use super::record::{Record, StatusChange};
use super::status::Status;
use super::table::Table;

pub(crate) struct State {
    pub(crate) company: String,
    pub(crate) created: String,
    /// Id and name.
    pub(crate) users: Vec<(String, String)>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) token_key: [u8; 64],
    pub(crate) worker_timeout: Duration,
    pub(crate) queues: Table<Queue>,
    pub(crate) tasks: Table<Task>,
    pub(crate) projects: Table<Doc>,
    pub(crate) models: Table<Doc>,
    /// By user and id: two users may have a worker of one name.
    pub(crate) workers: BTreeMap<(String, String), Worker>,
    pub(crate) events: HashMap<String, TaskEvents>,
    pub(crate) record: Record,
    pub(crate) faults: Faults,
}

pub(crate) struct Queue {
    /// All but the entries.
    pub(crate) doc: Doc,
    pub(crate) entries: VecDeque<Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) task: String,
    pub(crate) added: String,
}

pub(crate) struct Task {
    /// Its field `status` follows `status` below.
    pub(crate) doc: Doc,
    pub(crate) status: Status,
    /// The last sign of life, for the watchdog and for `tasks.stop`.
    pub(crate) touched: Instant,
    pub(crate) started: Option<Instant>,
    pub(crate) history: Vec<StatusChange>,
}

pub(crate) struct Worker {
    /// As `workers.get_all` shows it, less what it looks up about tasks and queues.
    pub(crate) doc: Doc,
    pub(crate) queues: Vec<String>,
    pub(crate) queue: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) seen: Instant,
}

impl State {
    pub(crate) fn new(credential: Credential, worker_timeout: Duration) -> Self {
        let user = credential.user.clone();
        let mut state = Self {
            company: new_id(),
            created: now(),
            users: vec![(user.clone(), "Sandbox".to_owned())],
            credentials: vec![credential],
            token_key: rand::random(),
            worker_timeout,
            queues: Table::new(),
            tasks: Table::new(),
            projects: Table::new(),
            models: Table::new(),
            workers: BTreeMap::new(),
            events: HashMap::new(),
            record: Record::default(),
            faults: Faults::default(),
        };
        // A fresh server has it.
        let mut doc = state.new_doc(&user, "default");
        document::set(&mut doc, "system_tags", json!(["default"]));
        state.insert_queue(doc);
        state
    }

    /// What every kind of document begins with.
    pub(crate) fn new_doc(&self, user: &str, name: &str) -> Doc {
        let mut doc = Doc::new();
        for (field, value) in [
            ("id", Value::from(new_id())),
            ("name", name.into()),
            ("company", self.company.clone().into()),
            ("user", user.into()),
            ("created", now().into()),
            ("tags", json!([])),
            ("system_tags", json!([])),
        ] {
            doc.insert(field.to_owned(), value);
        }
        doc
    }

    pub(crate) fn insert_queue(&mut self, mut doc: Doc) -> String {
        doc.remove("user");
        document::set(&mut doc, "last_update", now());
        document::set(&mut doc, "metadata", json!({}));
        let id = id_of(&doc);
        self.queues.insert(id.clone(), Queue { doc, entries: VecDeque::new() });
        id
    }

    pub(crate) fn task(&self, id: &str) -> Result<&Task, ApiError> {
        self.tasks.get(id).ok_or_else(|| ApiError::no_task(id))
    }

    pub(crate) fn task_mut(&mut self, id: &str) -> Result<&mut Task, ApiError> {
        self.tasks.get_mut(id).ok_or_else(|| ApiError::no_task(id))
    }

    pub(crate) fn queue(&self, id: &str) -> Result<&Queue, ApiError> {
        self.queues.get(id).ok_or_else(|| ApiError::no_queue(id, &self.company))
    }

    pub(crate) fn queue_mut(&mut self, id: &str) -> Result<&mut Queue, ApiError> {
        let company = &self.company;
        self.queues.get_mut(id).ok_or_else(|| ApiError::no_queue(id, company))
    }

    pub(crate) fn user_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.users.iter().find(|(known, _)| known == id).map_or(id, |(_, name)| name)
    }

    /// `{"id", "name"}`, as the `_ex` endpoints show a reference; the name is absent if nothing has that id.
    pub(crate) fn reference(id: &str, name: Option<&str>) -> Value {
        match name {
            Some(name) => json!({ "id": id, "name": name }),
            None => json!({ "id": id }),
        }
    }

    pub(crate) fn task_reference(&self, id: &str) -> Value {
        Self::reference(id, self.tasks.get(id).and_then(|task| document::text(&task.doc, "name")))
    }
}

impl Queue {
    pub(crate) fn touch(&mut self) {
        document::set(&mut self.doc, "last_update", now());
    }

    /// Removes a task's entry; false if it had none.
    pub(crate) fn remove(&mut self, task: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.task != task);
        let removed = self.entries.len() != before;
        if removed {
            self.touch();
        }
        removed
    }

    pub(crate) fn push(&mut self, task: &str) -> Result<(), ApiError> {
        if self.entries.iter().any(|entry| entry.task == task) {
            return Err(ApiError::new(
                400,
                706,
                format!("Failed adding task to queue since task is already queued: task={task}"),
            ));
        }
        self.entries.push_back(Entry { task: task.to_owned(), added: now() });
        self.touch();
        Ok(())
    }
}

impl Task {
    /// Any change counts as a sign of life.
    pub(crate) fn touch(&mut self, user: &str) {
        let now = now();
        document::set(&mut self.doc, "last_update", now.clone());
        document::set(&mut self.doc, "last_change", now);
        document::set(&mut self.doc, "last_changed_by", user);
        self.touched = Instant::now();
        if let (Status::InProgress, Some(started)) = (self.status, self.started) {
            document::set(&mut self.doc, "active_duration", started.elapsed().as_secs());
        }
    }
}

pub(crate) fn id_of(doc: &Doc) -> String {
    document::text(doc, "id").unwrap_or_default().to_owned()
}
