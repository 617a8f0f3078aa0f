//! What is remembered of the fleet: each instance's life in stretches, and what changed since the last look.
//!
//! Pure: it learns from what the loop publishes, of which it may miss passes, and from nothing else. A
//! state's own beginning is in the snapshot, so a missed pass costs no precision.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Published;
use planner::{
    Instance, InstanceId, InstanceType, Market, Offering, ResourceName, Signal, State, TaskId, Time,
};

use super::waits::Waits;

/// Instances that are gone and still shown, the newest ones.
const GONE_KEPT: usize = 200;
/// Stretches kept of one instance, the newest ones.
const STRETCHES: usize = 200;

/// What an instance does, as a person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    /// From the launch until its agent is up.
    Booting,
    /// Holding no task.
    Idle,
    /// Holding one.
    Busy,
    /// Told to take no more tasks: draining, drained, retiring, retired.
    Draining,
    /// Being terminated or powering off.
    Leaving,
    /// It should be reporting and is not.
    Lost,
}

impl Phase {
    /// All, in the order of a life.
    pub(super) const ALL: [Self; 6] =
        [Self::Booting, Self::Idle, Self::Busy, Self::Draining, Self::Leaving, Self::Lost];

    /// `None` if the instance is gone.
    pub(super) fn of(state: &State) -> Option<Self> {
        Some(match state {
            State::Requested | State::Pending | State::Booting { .. } => Self::Booting,
            State::Idle => Self::Idle,
            State::Busy { .. } => Self::Busy,
            State::Draining | State::Drained | State::Retiring | State::Retired => Self::Draining,
            State::Terminating => Self::Leaving,
            State::Lost { .. } => Self::Lost,
            State::Gone => return None,
        })
    }

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Lost => "lost",
        }
    }
}

/// The life of an instance, as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Track {
    /// Its resource.
    pub(super) resource: ResourceName,
    /// Its type.
    pub(super) instance_type: InstanceType,
    /// How it is paid.
    pub(super) market: Market,
    /// By EC2's clock.
    pub(super) launched_at: Time,
    /// What it did from when, until the next or `gone_at`. Never empty.
    pub(super) stretches: Vec<(Time, Phase)>,
    /// When it was first seen gone.
    pub(super) gone_at: Option<Time>,
    ready: bool,
    attached: bool,
    task: Option<TaskId>,
}

impl Track {
    /// What it does, and since when.
    pub(super) fn last(&self) -> (Time, Phase) {
        self.stretches.last().copied().unwrap_or((self.launched_at, Phase::Booting))
    }
}

/// Something that happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Its agent is up, so long after the launch.
    Ready(InstanceId, Duration),
    /// It works on a task that was first seen waiting so long before, if it was.
    Working(InstanceId, Option<TaskId>, Option<Duration>),
    /// It holds no task any more, after so long.
    Finished(InstanceId, Duration),
    /// It is on its way out and its agent never was up; whether its sidecar ever attached.
    NeverReady(InstanceId, bool),
    /// It is gone, so long after the launch.
    Gone(InstanceId, Duration),
}

/// Counts since this run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Instances launched by this run.
    pub(super) launched: u64,
    /// Launches that EC2 refused.
    pub(super) refused: u64,
    /// Instances that went without ever being ready.
    pub(super) never_ready: u64,
    /// Instances that were lost.
    pub(super) lost: u64,
}

/// Remembers the fleet.
#[derive(Debug, Default)]
pub(super) struct Observer {
    pub(super) tracks: BTreeMap<InstanceId, Track>,
    /// What is over of each resource's time, by phase.
    pub(super) uptime: BTreeMap<ResourceName, BTreeMap<Phase, Duration>>,
    pub(super) counts: Counts,
    pub(super) waits: Waits,
    /// An instance came, went or does something else since this was last set to false.
    pub(super) has_changed: bool,
    refusals: BTreeMap<Offering, Time>,
}

impl Observer {
    /// Takes a pass in; what it changed, instance by instance.
    pub(super) fn observe(&mut self, published: &Published) -> Vec<News> {
        let snapshot = &published.snapshot;
        let now = snapshot.now;
        let mut news = Vec::new();
        let started = self.waits.observe(published);
        for (id, instance) in &snapshot.instances {
            if !self.tracks.contains_key(id) {
                self.begin(published, id, instance);
                continue;
            }
            self.follow(id, instance, &started, now, &mut news);
        }
        for (id, track) in &mut self.tracks {
            if track.gone_at.is_none() && !snapshot.instances.contains_key(id) {
                self.has_changed = true;
                end(&mut self.uptime, id, track, now, &mut news, &mut self.counts);
            }
        }
        self.count_refusals(published);
        self.forget();
        news
    }

    fn begin(&mut self, published: &Published, id: &InstanceId, instance: &Instance) {
        let snapshot = &published.snapshot;
        let Some(phase) = Phase::of(&instance.state) else { return };
        let own = match &instance.intent {
            Some(intent) => intent.as_str().split('-').next() == Some(snapshot.epoch.to_string().as_str()),
            None => instance.launched_at >= snapshot.started_at,
        };
        self.counts.launched += u64::from(own);
        self.has_changed = true;
        let began = if phase == Phase::Booting { instance.launched_at } else { instance.since };
        let from = began.max(snapshot.started_at).min(snapshot.now);
        self.tracks.insert(
            id.clone(),
            Track {
                resource: instance.resource.clone(),
                instance_type: instance.instance_type().clone(),
                market: instance.offering.market,
                launched_at: instance.launched_at,
                stretches: vec![(from, phase)],
                gone_at: None,
                ready: instance.ready_at.is_some(),
                attached: instance.signal == Signal::Sidecar,
                task: task_of(&instance.state).cloned(),
            },
        );
    }

    fn follow(
        &mut self,
        id: &InstanceId,
        instance: &Instance,
        started: &BTreeMap<TaskId, Duration>,
        now: Time,
        news: &mut Vec<News>,
    ) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        if track.gone_at.is_some() {
            return;
        }
        track.launched_at = instance.launched_at;
        track.attached |= instance.signal == Signal::Sidecar;
        if let Some(at) = instance.ready_at
            && !std::mem::replace(&mut track.ready, true)
        {
            news.push(News::Ready(id.clone(), at.since(instance.launched_at)));
        }
        let Some(phase) = Phase::of(&instance.state) else {
            self.has_changed = true;
            end(&mut self.uptime, id, track, now, news, &mut self.counts);
            return;
        };
        let (from, before) = track.last();
        let task = task_of(&instance.state);
        if phase == Phase::Busy && (before != Phase::Busy || track.task.as_ref() != task) {
            let waited = task.and_then(|task| started.get(task)).copied();
            news.push(News::Working(id.clone(), task.cloned(), waited));
        }
        track.task = task.cloned();
        if phase == before {
            return;
        }
        self.has_changed = true;
        let at = instance.since.max(from).min(now);
        close(&mut self.uptime, &track.resource, before, from, at);
        track.stretches.push((at, phase));
        if track.stretches.len() > STRETCHES {
            track.stretches.remove(0);
        }
        match (before, phase) {
            (Phase::Busy, Phase::Idle | Phase::Draining) => {
                news.push(News::Finished(id.clone(), at.since(from)));
            }
            (_, Phase::Lost) => self.counts.lost += 1,
            (Phase::Booting, Phase::Leaving) if !track.ready => {
                self.counts.never_ready += 1;
                news.push(News::NeverReady(id.clone(), track.attached));
            }
            (
                Phase::Booting | Phase::Idle | Phase::Busy | Phase::Draining | Phase::Leaving | Phase::Lost,
                Phase::Booting | Phase::Idle | Phase::Busy | Phase::Draining | Phase::Leaving,
            ) => {}
        }
    }

    fn count_refusals(&mut self, published: &Published) {
        let current = &published.snapshot.unavailable;
        for (offering, (until, _)) in current {
            if self.refusals.insert(offering.clone(), *until) != Some(*until) {
                self.counts.refused += 1;
            }
        }
        self.refusals.retain(|offering, _| current.contains_key(offering));
    }

    fn forget(&mut self) {
        let mut gone: Vec<(Time, InstanceId)> =
            self.tracks.iter().filter_map(|(id, track)| Some((track.gone_at?, id.clone()))).collect();
        if gone.len() <= GONE_KEPT {
            return;
        }
        gone.sort_unstable();
        gone.truncate(gone.len() - GONE_KEPT);
        for (_, id) in gone {
            self.tracks.remove(&id);
        }
    }
}

fn task_of(state: &State) -> Option<&TaskId> {
    match state {
        State::Busy { task } => task.as_ref(),
        State::Requested
        | State::Pending
        | State::Booting { .. }
        | State::Idle
        | State::Draining
        | State::Drained
        | State::Retiring
        | State::Retired
        | State::Terminating
        | State::Gone
        | State::Lost { .. } => None,
    }
}

fn end(
    uptime: &mut BTreeMap<ResourceName, BTreeMap<Phase, Duration>>,
    id: &InstanceId,
    track: &mut Track,
    now: Time,
    news: &mut Vec<News>,
    counts: &mut Counts,
) {
    let (from, phase) = track.last();
    close(uptime, &track.resource, phase, from, now);
    track.gone_at = Some(now);
    track.task = None;
    if phase == Phase::Booting && !track.ready {
        counts.never_ready += 1;
        news.push(News::NeverReady(id.clone(), track.attached));
    }
    news.push(News::Gone(id.clone(), now.since(track.launched_at)));
}

fn close(
    uptime: &mut BTreeMap<ResourceName, BTreeMap<Phase, Duration>>,
    resource: &ResourceName,
    phase: Phase,
    from: Time,
    until: Time,
) {
    *uptime.entry(resource.clone()).or_default().entry(phase).or_default() += until.since(from);
}
