//! What this run has learned and no source repeats: when it first saw an instance, when that was
//! ready, what it told its sidecar, which launches are open. Lost with the run, rebuilt by adoption.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use planner::{
    Boots, Instance, InstanceId, Intent, IntentId, LAUNCHES_KEPT, LostReason, Offering, Order, ResourceName,
    Signal, State, Time, Word,
};

use crate::history::{Event, EventKind};
use crate::ports::{CloudInstance, CloudState, Launch, Prepared};

/// An offering that was not refused for so long begins anew with the shortest pause.
const REFUSALS_KEPT: Duration = Duration::from_secs(2 * 3600);

/// An instance, as this run knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) seen: CloudInstance,
    /// A describe has shown it.
    pub(crate) visible: bool,
    pub(crate) adopted_at: Time,
    /// This run got it in a launch's reply.
    pub(crate) launched_here: bool,
    pub(crate) ready_at: Option<Time>,
    /// The journal has `ready_at`.
    pub(crate) ready_marked: bool,
    /// Its gate is closed behind its task.
    pub(crate) finishing: bool,
    pub(crate) last_order: Option<(Order, Time)>,
    /// It went by an operator's word, or as an orphan: that says nothing of its boot.
    pub(crate) ended_by_operator: bool,
    /// It counted as a boot that succeeded or failed.
    pub(crate) boot_judged: bool,
    /// The history has what came of `last_order`.
    pub(crate) answer_noted: bool,
    /// Our own call to end it went through.
    pub(crate) terminated_at: Option<Time>,
    pub(crate) state: State,
    pub(crate) since: Time,
    pub(crate) signal: Signal,
    /// What its sidecar said last of the tasks there; outlives the session.
    pub(crate) word: Word,
}

/// Everything remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) started_at: Time,
    pub(crate) epoch: u64,
    pub(crate) next_intent: u64,
    pub(crate) journal_is_new: bool,
    pub(crate) instances: BTreeMap<InstanceId, Known>,
    pub(crate) intents: BTreeMap<IntentId, (Intent, Prepared)>,
    pub(crate) unavailable: BTreeMap<Offering, (Time, String)>,
    /// How often in a row EC2 refused an offering, and when it did so last.
    pub(crate) refusals: BTreeMap<Offering, (u32, Time)>,
    pub(crate) boots: BTreeMap<ResourceName, Boots>,
    /// Pools whose boots the journal does not know yet.
    pub(crate) unnoted_boots: BTreeSet<ResourceName>,
    /// What was asked for lately: when, and how many instances.
    pub(crate) launches: BTreeMap<IntentId, (Time, u32)>,
    /// From the journal: when instances of earlier runs were ready.
    pub(crate) ready_marks: BTreeMap<InstanceId, Time>,
    /// What is to go into the history.
    pub(crate) events: Vec<Event>,
}

impl Memory {
    /// The instances of a launch's reply, before any describe shows them.
    pub(crate) fn remember_launch(&mut self, launch: &Launch, ids: &BTreeSet<InstanceId>, now: Time) {
        for id in ids {
            let seen = CloudInstance {
                resource: launch.resource.clone(),
                queue: launch.queue.clone(),
                intent: Some(launch.intent.clone()),
                offering: launch.offering.clone(),
                zone: None,
                state: CloudState::Pending,
                launched_at: now,
                kept: false,
                ended_at: None,
            };
            let new = || Known { launched_here: true, ..Known::new(seen, false, now) };
            self.instances.entry(id.clone()).or_insert_with(new);
        }
    }

    /// Takes what a describe shows.
    pub(crate) fn observe(&mut self, described: &BTreeMap<InstanceId, CloudInstance>, now: Time) {
        for (id, seen) in described {
            match self.instances.get_mut(id) {
                Some(known) => {
                    // Launched by this run: by our own clock it knows better when.
                    let launched_at =
                        if known.launched_here { known.seen.launched_at } else { seen.launched_at };
                    known.visible = true;
                    known.seen = CloudInstance { launched_at, ..seen.clone() };
                }
                // A machine that was gone before we looked is nobody's concern.
                None if is_gone(seen.state) => {}
                None => {
                    let mut known = Known::new(seen.clone(), true, now);
                    known.ready_at = self.ready_marks.get(id).copied();
                    known.ready_marked = known.ready_at.is_some();
                    known.boot_judged = known.ready_marked;
                    tracing::info!(instance = %id, resource = %seen.resource, "adopted");
                    self.instances.insert(id.clone(), known);
                }
            }
        }
    }

    /// Instances whose readiness the journal does not know yet.
    pub(crate) fn take_unmarked(&mut self) -> Vec<(InstanceId, Time)> {
        let unmarked = self.instances.iter_mut().filter(|(_, known)| !known.ready_marked);
        unmarked
            .filter_map(|(id, known)| {
                let at = known.ready_at?;
                known.ready_marked = true;
                Some((id.clone(), at))
            })
            .collect()
    }

    /// Pools whose boots the journal does not know yet.
    pub(crate) fn take_unnoted_boots(&mut self) -> Vec<(ResourceName, Boots)> {
        let unnoted = std::mem::take(&mut self.unnoted_boots);
        unnoted.into_iter().filter_map(|name| Some((name.clone(), self.boots.get(&name)?.clone()))).collect()
    }

    /// EC2 was asked for so many instances; a question that is asked again counts once.
    pub(crate) fn asked_for(&mut self, intent: &IntentId, count: u32, at: Time) {
        self.launches.entry(intent.clone()).or_insert((at, count)).1 = count;
    }

    /// What was asked for lately, oldest first.
    pub(crate) fn launches(&self) -> Vec<(Time, u32)> {
        let mut launches: Vec<(Time, u32)> = self.launches.values().copied().collect();
        launches.sort_unstable();
        launches
    }

    /// Drops what has been gone for a while and what is over.
    pub(crate) fn forget(&mut self, is_named: impl Fn(&InstanceId) -> bool, now: Time) {
        const KEPT: Duration = Duration::from_secs(600);
        self.instances
            .retain(|id, known| known.state != State::Gone || is_named(id) || now.since(known.since) < KEPT);
        self.unavailable.retain(|_, (until, _)| *until > now);
        self.refusals.retain(|_, (_, last)| now.since(*last) < REFUSALS_KEPT);
        self.launches.retain(|_, (at, _)| now.since(*at) < LAUNCHES_KEPT);
    }
}

impl Known {
    /// Something that happened to it now.
    pub(crate) fn event(&self, id: &InstanceId, at: Time, kind: EventKind, reason: String) -> Event {
        Event::new(at, kind, reason).of_instances([id]).in_pool(&self.seen.resource, &self.seen.queue)
    }

    fn new(seen: CloudInstance, visible: bool, now: Time) -> Self {
        Self {
            seen,
            visible,
            adopted_at: now,
            launched_here: false,
            ready_at: None,
            ready_marked: false,
            finishing: false,
            last_order: None,
            ended_by_operator: false,
            boot_judged: false,
            answer_noted: false,
            terminated_at: None,
            state: State::Requested,
            since: now,
            signal: Signal::None,
            word: Word::default(),
        }
    }

    /// Enters a state; the clock of the state runs on if it is the same one.
    pub(crate) fn enter(&mut self, state: State, signal: Signal, now: Time) {
        self.signal = signal;
        if !same_state(&self.state, &state) {
            self.since = now;
        }
        self.state = state;
    }

    /// Enters a state that is known to have begun earlier.
    pub(crate) fn enter_since(&mut self, state: State, signal: Signal, since: Time) {
        self.signal = signal;
        self.state = state;
        self.since = since;
    }

    /// As the planner sees it.
    pub(crate) fn instance(
        &self,
        worker: planner::WorkerId,
        answer: planner::Answer,
        accounted: bool,
    ) -> Instance {
        Instance {
            resource: self.seen.resource.clone(),
            queue: self.seen.queue.clone(),
            offering: self.seen.offering.clone(),
            zone: self.seen.zone.clone(),
            worker,
            intent: self.seen.intent.clone(),
            kept: self.seen.kept,
            accounted,
            launched_at: self.seen.launched_at,
            adopted_at: self.adopted_at,
            ready_at: self.ready_at,
            state: self.state.clone(),
            since: self.since,
            signal: self.signal,
            finishing: self.finishing,
            last_order: self.last_order.map(|(order, sent_at)| (order, sent_at, answer)),
            word: self.word.clone(),
        }
    }

    /// Lost since `since`, for this reason.
    pub(crate) fn lose(&mut self, reason: LostReason, since: Time) {
        if !matches!(self.state, State::Lost { .. }) {
            self.enter_since(State::Lost { reason }, Signal::None, since);
        }
    }
}

/// Whether EC2's state means that nothing runs there any more.
pub(crate) fn is_gone(state: CloudState) -> bool {
    match state {
        CloudState::Terminated | CloudState::Stopped => true,
        CloudState::Pending | CloudState::Running | CloudState::ShuttingDown | CloudState::Stopping => false,
    }
}

/// Whether two states are the same place in an instance's life, whatever they carry: another phase
/// of booting is not another state, another task is.
fn same_state(one: &State, other: &State) -> bool {
    match (one, other) {
        (State::Booting { .. }, State::Booting { .. }) => true,
        _ => one == other,
    }
}
