//! Queues.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::client::{Client, Repeat};
use crate::error::{Error, subcode};
use crate::paging::Page;
use crate::types::{Entry, Queue, or_default};

impl Client {
    /// Every queue with its waiting tasks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn queues(&self) -> Result<Vec<Queue>, Error> {
        self.list_queues(&["id", "name", "entries"]).await
    }

    /// One queue with its waiting tasks.
    ///
    /// # Errors
    /// `Refused` with [`subcode::NO_SUCH_QUEUE`].
    pub async fn queue(&self, id: &str) -> Result<Queue, Error> {
        let One { queue } = self.call("queues.get_by_id", &json!({"queue": id}), Repeat::Always).await?;
        Ok(queue)
    }

    /// Puts a waiting task first.
    ///
    /// # Errors
    /// `Refused` if it does not wait there, or there is no such queue.
    pub async fn move_task_to_front(&self, queue: &str, task: &str) -> Result<(), Error> {
        let body = json!({"queue": queue, "task": task});
        self.call::<IgnoredAny>("queues.move_task_to_front", &body, Repeat::Always).await?;
        Ok(())
    }

    /// Makes a queue and returns its id.
    ///
    /// # Errors
    /// `Refused` with [`subcode::NOT_UNIQUE`] if there is one of that name, with [`subcode::INVALID_DATA`]
    /// for a name of fewer than 3 characters.
    pub async fn create_queue(&self, name: &str) -> Result<String, Error> {
        let Created { id } = self.call("queues.create", &json!({"name": name}), Repeat::Unseen).await?;
        Ok(id)
    }

    /// The ids of these queues, by name; those that are missing are made.
    ///
    /// # Errors
    /// As [`Client::create_queue`], of the first name that fails; one made by somebody else meanwhile is none.
    pub async fn ensure_queues(&self, names: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let mut ids = self.queue_ids(names).await?;
        for name in names {
            if ids.contains_key(*name) {
                continue;
            }
            let id = match self.create_queue(name).await {
                Err(error) if error.is_refusal(subcode::NOT_UNIQUE) => {
                    self.queue_ids(&[name]).await?.remove(*name).ok_or(error)?
                }
                outcome => outcome?,
            };
            ids.insert((*name).to_owned(), id);
        }
        Ok(ids)
    }

    /// Takes the next task out of a queue; `None` if it is empty. Nothing but the caller's memory then says
    /// who has it, so it is never repeated once the server may have seen it.
    ///
    /// # Errors
    /// `Unavailable` may have taken a task.
    pub async fn next_task(&self, queue: &str) -> Result<Option<Entry>, Error> {
        let Popped { entry } =
            self.call("queues.get_next_task", &json!({"queue": queue}), Repeat::Unseen).await?;
        Ok(entry)
    }

    async fn queue_ids(&self, names: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let queues = self.list_queues(&["id", "name"]).await?;
        let wanted = queues.into_iter().filter_map(|queue| Some((queue.name?, queue.id)));
        Ok(wanted.filter(|(name, _)| names.contains(&name.as_str())).collect())
    }

    async fn list_queues(&self, fields: &[&str]) -> Result<Vec<Queue>, Error> {
        let query = json!({"only_fields": fields, "order_by": ["created"]});
        self.pages::<Listing>("queues.get_all", &query).await
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "or_default")]
    queues: Vec<Queue>,
}

impl Page for Listing {
    type Row = Queue;

    fn rows(self) -> Vec<Queue> {
        self.queues
    }

    fn id(row: &Queue) -> &str {
        &row.id
    }
}

#[derive(Deserialize)]
struct One {
    queue: Queue,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[derive(Deserialize)]
struct Popped {
    entry: Option<Entry>,
}
