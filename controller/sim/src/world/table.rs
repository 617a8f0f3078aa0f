//! The controller's table of sessions, by the gateway's rules.

use std::collections::{BTreeMap, BTreeSet};

use engine::ports::{Admission, Gate, Session, Standing};
use planner::{Answer, InstanceId, Notice, Order, OrderKind, TaskId, Time, Word};
use sidecar::agent::{self, Reading, Report};

/// An instant that is reckoned from a duration wavers by the network's delay: less than this is no news.
const WAVER: u64 = 2000;

/// One instance's place.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) session: Option<Session>,
    /// Which stream this is, of all that there were.
    pub(crate) serial: u64,
    pub(crate) stands: bool,
    pub(crate) last_heard: Time,
    /// The stream's first report is still to come.
    fresh: bool,
}

/// All of them. Lost with the controller.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: BTreeMap<InstanceId, Entry>,
    pub(crate) admission: Admission,
}

impl Table {
    pub(crate) fn sessions(&self) -> BTreeMap<InstanceId, Session> {
        self.entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.session.clone()?))).collect()
    }

    /// Seats a stream in place of an older one.
    pub(crate) fn seat(&mut self, id: &InstanceId, serial: u64, now: Time) {
        let entry = self.entries.entry(id.clone()).or_insert(Entry {
            session: None,
            serial,
            stands: true,
            last_heard: now,
            fresh: true,
        });
        (entry.serial, entry.stands, entry.last_heard, entry.fresh) = (serial, true, now, true);
    }

    /// The stream that takes messages, if this is it.
    pub(crate) fn of(&mut self, id: &InstanceId, serial: u64) -> Option<&mut Entry> {
        self.entries.get_mut(id).filter(|entry| entry.serial == serial && entry.stands)
    }
}

/// A report, and what the sidecar's look at the processes found.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) report: Report,
    pub(crate) at_work: BTreeSet<TaskId>,
}

impl Entry {
    pub(crate) fn end(&mut self, now: Time) {
        self.stands = false;
        self.last_heard = now;
        if let Some(session) = &mut self.session {
            session.connected = false;
            session.last_seen = now;
        }
    }

    /// Takes a report in; whether it is news.
    pub(crate) fn report(&mut self, said: &Said, now: Time) -> bool {
        self.last_heard = now;
        let report = &said.report;
        let first = std::mem::take(&mut self.fresh);
        let Some(session) = &mut self.session else {
            let mut session = new_session(report, now);
            session.word = word(said, &session.word, now);
            self.session = Some(session);
            return true;
        };
        let mut news = update(session, report, now);
        let word = word(said, &session.word, now);
        let settled = Word { settled_at: session.word.settled_at, ..word.clone() };
        news |= settled != session.word;
        session.word = word;
        if first
            && let Some((order, answer @ Answer::Awaited)) = &mut session.last_answer
            && shows_obeyed(report, order)
        {
            *answer = Answer::Done;
            news = true;
        }
        news
    }

    /// Takes the answer to the newest order in.
    pub(crate) fn answer(&mut self, answered: &agent::Answer, now: Time) -> bool {
        self.last_heard = now;
        let order = order_of(answered.order);
        match self.session.as_mut().and_then(|session| session.last_answer.as_mut()) {
            Some((sent, known)) if *sent == order => {
                *known = match &answered.outcome {
                    agent::Outcome::Done => Answer::Done,
                    agent::Outcome::RefusedBusy(task) => Answer::RefusedBusy(task.clone().map(TaskId)),
                    agent::Outcome::RefusedUnsure => Answer::RefusedUnsure,
                    agent::Outcome::RefusedStale => Answer::RefusedStale,
                };
                true
            }
            Some(_) | None => false,
        }
    }
}

/// From the sidecar's words to the controller's.
pub(crate) fn order_of(order: agent::Order) -> Order {
    let kind = match order.kind {
        agent::OrderKind::Drain => OrderKind::Drain,
        agent::OrderKind::Undrain => OrderKind::Undrain,
        agent::OrderKind::Retire => OrderKind::Retire,
        agent::OrderKind::Finish => OrderKind::Finish,
    };
    Order { epoch: order.epoch, generation: order.generation, kind }
}

/// And back.
pub(crate) fn order_to(order: Order) -> agent::Order {
    let kind = match order.kind {
        OrderKind::Drain => agent::OrderKind::Drain,
        OrderKind::Undrain => agent::OrderKind::Undrain,
        OrderKind::Retire => agent::OrderKind::Retire,
        OrderKind::Finish => agent::OrderKind::Finish,
    };
    agent::Order { kind, epoch: order.epoch, generation: order.generation }
}

fn standing(standing: agent::Standing) -> Standing {
    match standing {
        agent::Standing::Open => Standing::Open,
        agent::Standing::Drained => Standing::Drained,
        agent::Standing::Retired => Standing::Retired,
        agent::Standing::Finishing => Standing::Finishing,
    }
}

fn merge(report: &Report, now: Time) -> (Gate, Time, bool) {
    let Some(agent) = report.agents.first() else { return (Gate::Absent, now, true) };
    let gate = match &agent.agent.reading {
        Reading::Absent => Gate::Absent,
        // Being asked is not having.
        Reading::Idle { .. } | Reading::Polling { .. } => Gate::Idle,
        Reading::Busy { task, .. } => Gate::Busy(task.clone().map(TaskId)),
        Reading::Unknown { .. } => Gate::Unknown,
    };
    let lasted = u64::try_from(agent.lasted.as_millis()).unwrap_or(u64::MAX);
    let alive = agent.agent.alive || gate == Gate::Absent;
    (gate, Time(now.0.saturating_sub(lasted)), alive)
}

fn failure(report: &Report) -> Option<String> {
    (report.boot.phase() == "failed").then(|| "a phase failed".to_owned())
}

fn new_session(report: &Report, now: Time) -> Session {
    let (gate, gate_since, alive) = merge(report, now);
    Session {
        connected: true,
        last_seen: now,
        boot_phase: report.boot.phase().to_owned(),
        boot_failure: failure(report),
        gate,
        gate_since,
        alive,
        standing: standing(report.standing),
        standing_since: now,
        last_answer: None,
        word: Word::default(),
    }
}

/// What the sidecar says of the tasks there.
fn word(said: &Said, before: &Word, now: Time) -> Word {
    let mut word = Word { settled_at: Some(now), at_work: Some(said.at_work.clone()), ..Word::default() };
    for agent in &said.report.agents {
        match &agent.agent.reading {
            Reading::Idle { .. } | Reading::Absent => {}
            Reading::Busy { task: Some(task), .. } => drop(word.held.insert(TaskId(task.clone()))),
            Reading::Busy { task: None, .. } | Reading::Polling { .. } | Reading::Unknown { .. } => {
                word.settled_at = before.settled_at;
            }
        }
    }
    word.notice = said.report.notice.map(|(left, killed)| {
        let ends_at = now.after(left);
        let known = before.notice.filter(|known| ends_at >= known.ends_at);
        let (seen_at, ends_at) = known.map_or((now, ends_at), |known| (known.seen_at, known.ends_at));
        Notice { seen_at, ends_at, killed }
    });
    word
}

fn update(session: &mut Session, report: &Report, now: Time) -> bool {
    let (gate, since, alive) = merge(report, now);
    let mut news = !session.connected;
    session.connected = true;
    session.last_seen = now;
    if session.boot_phase != report.boot.phase() {
        report.boot.phase().clone_into(&mut session.boot_phase);
        news = true;
    }
    let failed = failure(report);
    if session.boot_failure != failed {
        session.boot_failure = failed;
        news = true;
    }
    if gate != session.gate {
        (session.gate, session.gate_since) = (gate, since);
        news = true;
    } else if since < session.gate_since {
        news |= session.gate_since.0 - since.0 > WAVER;
        session.gate_since = since;
    } else if since.0 - session.gate_since.0 > WAVER {
        session.gate_since = since;
        news = true;
    }
    if session.alive != alive {
        session.alive = alive;
        news = true;
    }
    let standing = standing(report.standing);
    if session.standing != standing {
        (session.standing, session.standing_since) = (standing, now);
        news = true;
    }
    news
}

/// Whether a report shows that an order was obeyed whose answer was lost with its stream.
fn shows_obeyed(report: &Report, order: &Order) -> bool {
    let left = match order.kind {
        OrderKind::Drain => agent::Standing::Drained,
        OrderKind::Undrain => agent::Standing::Open,
        OrderKind::Retire => agent::Standing::Retired,
        OrderKind::Finish => agent::Standing::Finishing,
    };
    report.epoch == order.epoch && report.generation == order.generation && report.standing == left
}
