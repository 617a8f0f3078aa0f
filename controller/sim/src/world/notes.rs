//! The journal: what survives a crash of the controller.

use std::collections::{BTreeMap, BTreeSet};

use engine::ports::{JournalError, Prepared};
use planner::{Boots, InstanceId, Intent, IntentId, ResourceName, Time};

/// Intent numbers of a run.
const BLOCK: u64 = 1_000_000;

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) born_at: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) intent_block: u64,
    pub(crate) open: BTreeMap<IntentId, (Intent, Prepared)>,
    pub(crate) known: BTreeSet<IntentId>,
    pub(crate) boots: BTreeMap<ResourceName, Boots>,
    pub(crate) ready: BTreeMap<InstanceId, Time>,
}

impl Notes {
    /// A new run's number, by its own clock.
    pub(crate) fn next_epoch(&mut self, now: Time) -> u64 {
        self.epoch = (self.epoch + 1).max(now.0 / 1000);
        self.epoch
    }

    /// The number of a new run's first intent.
    pub(crate) fn next_intent(&mut self) -> u64 {
        let first = self.intent_block + 1;
        self.intent_block += BLOCK;
        first
    }

    pub(crate) fn begin(
        &mut self,
        id: &IntentId,
        intent: &Intent,
        request: &Prepared,
    ) -> Result<(), JournalError> {
        if !self.known.insert(id.clone()) {
            return Err(JournalError(format!("intent {id} was begun before")));
        }
        self.open.insert(id.clone(), (intent.clone(), request.clone()));
        Ok(())
    }

    pub(crate) fn change(
        &mut self,
        id: &IntentId,
        change: impl FnOnce(&mut Intent),
    ) -> Result<(), JournalError> {
        let (intent, _) =
            self.open.get_mut(id).ok_or_else(|| JournalError(format!("intent {id} is not open")))?;
        change(intent);
        Ok(())
    }
}
