//! `GET /history` and `GET /costs`: what the journal remembers.

use std::sync::{Arc, Weak};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use engine::history::History;
use engine::ports::{Clock as _, JournalError};
use planner::Time;

use super::Behind;
use super::wire::{Refused, Since};
use crate::journal::Store;
use crate::live::LiveClock;
use crate::service::ledger::Costs;

/// Events told at once.
const MOST_EVENTS: u32 = 10_000;

/// Where the journal's records are to be had.
#[derive(Clone)]
pub struct Records {
    store: Weak<Store>,
    clock: LiveClock,
}

impl Records {
    /// Of a journal, for as long as it is open.
    pub fn of(store: &Arc<Store>, clock: LiveClock) -> Self {
        Self { store: Arc::downgrade(store), clock }
    }

    async fn history(&self, since: &Since) -> Result<History, JournalError> {
        let most = since.limit.unwrap_or(MOST_EVENTS).min(MOST_EVENTS);
        self.open()?.history(self.from(since), most).await
    }

    async fn costs(&self, since: &Since) -> Result<Costs, JournalError> {
        let from = self.from(since);
        Ok(Costs::of(&self.open()?.stretches(from).await?, from, self.clock.now()))
    }

    fn open(&self) -> Result<Arc<Store>, JournalError> {
        self.store.upgrade().ok_or_else(|| JournalError("the controller ends".to_owned()))
    }

    fn from(&self, since: &Since) -> Time {
        Time(self.clock.now().0.saturating_sub(since.past_ms))
    }
}

pub(super) async fn history(State(behind): State<Behind>, Query(since): Query<Since>) -> Response {
    answer(behind.records.history(&since).await)
}

pub(super) async fn costs(State(behind): State<Behind>, Query(since): Query<Since>) -> Response {
    answer(behind.records.costs(&since).await)
}

fn answer(records: Result<impl serde::Serialize, JournalError>) -> Response {
    match records {
        Ok(records) => Json(records).into_response(),
        Err(error) => {
            let refused = Refused { faults: vec![error.to_string()] };
            (StatusCode::SERVICE_UNAVAILABLE, Json(refused)).into_response()
        }
    }
}
