//! The journal's contents in memory, and the changes that they go through. Both kinds of journal apply the
//! same changes to the same tables; the one on disk writes them to its file first.

use std::collections::{BTreeMap, BTreeSet};

use engine::history::Event;
use engine::ports::{JournalError, Prepared};
use planner::{Boots, FleetId, InstanceId, Intent, IntentId, Operator, Pause, ResourceName, Time};
use secrecy::SecretSlice;

use super::ledger::{Spent, Stretch};
use super::{KEPT, NEW_FOR, TokenRecord};

/// Everything that is kept.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) born_at: Time,
    pub(super) epoch: u64,
    pub(super) intent_block: u64,
    pub(super) fleet: Option<FleetId>,
    pub(super) identity: Option<SecretSlice<u8>>,
    pub(super) intents: BTreeMap<IntentId, IntentRow>,
    pub(super) tokens: BTreeMap<InstanceId, TokenRecord>,
    pub(super) ready: BTreeMap<InstanceId, Time>,
    pub(super) boots: BTreeMap<ResourceName, Boots>,
    /// Runs that may still have an entry in ClearML's list of workers.
    pub(super) runs: Vec<String>,
    /// The history's newest id. Events and stretches themselves are in the file alone.
    pub(super) last_event: u64,
    pub(super) ledger_seen: Option<Time>,
    pub(super) ledger_dropped: Spent,
    pub(super) operator: Operator,
}

/// A launch.
pub(super) struct IntentRow {
    pub(super) created_at: Time,
    pub(super) secret: Vec<u8>,
    /// The note and the request's text; `None` once the intent is closed.
    pub(super) open: Option<(Intent, String)>,
}

/// One write.
pub(super) enum Change {
    Epoch(u64),
    IntentBlock(u64),
    Fleet(FleetId),
    Identity(SecretSlice<u8>),
    Begin(IntentId, Intent, Prepared),
    Answer(IntentId, BTreeSet<InstanceId>),
    Postpone(IntentId, Time),
    Close(IntentId),
    Token(InstanceId, TokenRecord),
    Ready(InstanceId, Time),
    Boots(ResourceName, Boots),
    Forget(Stale),
    Runs(Vec<String>),
    /// With its id.
    Note(u64, Event),
    Stretches(Vec<Stretch>),
    LedgerSeen(Time),
    /// What is older, and what has no higher id.
    DropHistory(Time, u64),
    /// What ended before; the sum of everything ever dropped.
    DropLedger(Time, Spent),
    AskDrains(BTreeSet<InstanceId>, Time),
    DropDrains(BTreeSet<InstanceId>),
    Pause(Option<Pause>),
}

/// What may be forgotten.
#[derive(Default)]
pub(super) struct Stale {
    pub(super) intents: Vec<IntentId>,
    pub(super) instances: Vec<InstanceId>,
}

impl Stale {
    pub(super) fn is_empty(&self) -> bool {
        self.intents.is_empty() && self.instances.is_empty()
    }
}

impl Tables {
    /// Of a journal that is made now.
    pub(super) fn born(now: Time) -> Self {
        Self { born_at: now, ..Self::default() }
    }

    pub(super) fn is_new(&self, now: Time) -> bool {
        now < self.born_at.after(NEW_FOR)
    }

    pub(super) fn secret(&self, intent: &IntentId) -> Option<&[u8]> {
        self.intents.get(intent).map(|row| row.secret.as_slice())
    }

    /// Intents that are not closed.
    pub(super) fn open(&self) -> BTreeMap<IntentId, (Intent, Prepared)> {
        let open = self.intents.iter().filter_map(|(id, row)| {
            let (intent, request) = row.open.as_ref()?;
            let prepared = Prepared { request: request.clone(), secret: row.secret.clone() };
            Some((id.clone(), (intent.clone(), prepared)))
        });
        open.collect()
    }

    /// What [`Change::Forget`] may take.
    pub(super) fn stale(&self, now: Time, live: &BTreeSet<InstanceId>) -> Stale {
        let old = |since: Time| now.since(since) > KEPT;
        let closed = self.intents.iter().filter(|(_, row)| row.open.is_none() && old(row.created_at));
        let tokens = self.tokens.iter().filter(|(_, token)| old(token.created_at)).map(|(id, _)| id);
        let ready = self.ready.iter().filter(|(_, at)| old(**at)).map(|(id, _)| id);
        let drains = self.operator.drains.iter().filter(|(_, at)| old(**at)).map(|(id, _)| id);
        let instances: BTreeSet<&InstanceId> =
            tokens.chain(ready).chain(drains).filter(|id| !live.contains(*id)).collect();
        Stale {
            intents: closed.map(|(id, _)| id.clone()).collect(),
            instances: instances.into_iter().cloned().collect(),
        }
    }

    /// Whether the change fits what is there.
    pub(super) fn check(&self, change: &Change) -> Result<(), JournalError> {
        match change {
            Change::Begin(id, ..) if self.intents.contains_key(id) => {
                Err(JournalError(format!("intent {id} was begun before")))
            }
            Change::Answer(id, _) | Change::Postpone(id, _)
                if self.intents.get(id).is_none_or(|row| row.open.is_none()) =>
            {
                Err(JournalError(format!("intent {id} is not open")))
            }
            Change::Begin(..)
            | Change::Answer(..)
            | Change::Postpone(..)
            | Change::Close(_)
            | Change::Epoch(_)
            | Change::IntentBlock(_)
            | Change::Fleet(_)
            | Change::Identity(_)
            | Change::Token(..)
            | Change::Ready(..)
            | Change::Boots(..)
            | Change::Forget(_)
            | Change::Runs(_)
            | Change::Note(..)
            | Change::Stretches(_)
            | Change::LedgerSeen(_)
            | Change::DropHistory(..)
            | Change::DropLedger(..) => Ok(()),
            Change::AskDrains(..) | Change::DropDrains(_) | Change::Pause(_) => Ok(()),
        }
    }

    /// Makes the change, or leaves everything as it was.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), JournalError> {
        self.check(change)?;
        match change {
            Change::Epoch(epoch) => self.epoch = *epoch,
            Change::IntentBlock(block) => self.intent_block = *block,
            Change::Fleet(fleet) => self.fleet = Some(fleet.clone()),
            Change::Identity(key) => self.identity = Some(key.clone()),
            Change::Begin(id, intent, prepared) => {
                let row = IntentRow {
                    created_at: intent.created_at,
                    secret: prepared.secret.clone(),
                    open: Some((intent.clone(), prepared.request.clone())),
                };
                self.intents.insert(id.clone(), row);
            }
            Change::Answer(id, instances) => {
                if let Some(intent) = self.open_intent(id) {
                    intent.answered = Some(instances.clone());
                }
            }
            Change::Postpone(id, retry_at) => {
                if let Some(intent) = self.open_intent(id) {
                    intent.retry_at = *retry_at;
                }
            }
            Change::Close(id) => {
                if let Some(row) = self.intents.get_mut(id) {
                    row.open = None;
                }
            }
            Change::Token(instance, token) => {
                self.tokens.insert(instance.clone(), token.clone());
            }
            Change::Ready(instance, at) => {
                self.ready.entry(instance.clone()).or_insert(*at);
            }
            Change::Boots(resource, boots) => {
                self.boots.insert(resource.clone(), boots.clone());
            }
            Change::Forget(stale) => {
                for intent in &stale.intents {
                    self.intents.remove(intent);
                }
                for instance in &stale.instances {
                    self.tokens.remove(instance);
                    self.ready.remove(instance);
                    self.operator.drains.remove(instance);
                }
            }
            Change::Runs(runs) => self.runs.clone_from(runs),
            Change::LedgerSeen(at) => self.ledger_seen = Some(*at),
            Change::DropLedger(_, dropped) => self.ledger_dropped = *dropped,
            Change::Note(..) | Change::Stretches(_) | Change::DropHistory(..) => {}
            Change::AskDrains(instances, at) => {
                for instance in instances {
                    self.operator.drains.entry(instance.clone()).or_insert(*at);
                }
            }
            Change::DropDrains(instances) => {
                self.operator.drains.retain(|instance, _| !instances.contains(instance));
            }
            Change::Pause(pause) => self.operator.paused.clone_from(pause),
        }
        Ok(())
    }

    fn open_intent(&mut self, id: &IntentId) -> Option<&mut Intent> {
        let (intent, _) = self.intents.get_mut(id)?.open.as_mut()?;
        Some(intent)
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tables({} intents, {} tokens)", self.intents.len(), self.tokens.len())
    }
}
