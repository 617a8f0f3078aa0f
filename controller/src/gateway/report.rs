//! From a sidecar's words to the loop's: agents taken together, durations counted back to instants.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::ports::{Gate, Session, Standing};
use planner::{Answer, Notice, Order, OrderKind, TaskId, Time, Word};
use proto::v1;

/// An instant that is reckoned from a duration wavers by the network's delay: less than this is no news.
const WAVER: Duration = Duration::from_secs(2);
/// The same of AWS's time, which is told to the second.
const NOTICE_WAVER: Duration = Duration::from_secs(5);
const MAX_AGENTS: usize = 64;
const MAX_TASKS: usize = 1024;
const MAX_NAME: usize = 256;

/// A report that no sidecar of ours sends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed message: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// The first report of an instance.
pub(super) fn session(report: &v1::Report, now: Time) -> Result<Session, Malformed> {
    let (gate, task, held) = merge(&report.agents)?;
    Ok(Session {
        connected: true,
        last_seen: now,
        boot_phase: phase(&report.boot_phase)?.to_owned(),
        boot_failure: None,
        gate: gate.with(task),
        gate_since: before(now, held),
        alive: alive(&report.agents),
        standing: standing(report.standing())?,
        standing_since: now,
        last_answer: None,
        word: word(report, None, now)?,
    })
}

/// Takes a report in; whether anything but `last_seen` is news.
pub(super) fn update(session: &mut Session, report: &v1::Report, now: Time) -> Result<bool, Malformed> {
    let (gate, task, held) = merge(&report.agents)?;
    let phase = phase(&report.boot_phase)?;
    let standing = standing(report.standing())?;
    let mut news = !session.connected;
    session.connected = true;
    session.last_seen = now;
    if session.boot_phase != phase {
        phase.clone_into(&mut session.boot_phase);
        news = true;
    }
    let since = before(now, held);
    if !gate.is(task, &session.gate) {
        session.gate = gate.with(task);
        session.gate_since = since;
        news = true;
    } else if since < session.gate_since {
        // Delay only ever makes an instant look later, so the earlier reckoning is the better one.
        news |= session.gate_since.since(since) > WAVER;
        session.gate_since = since;
    } else if since.since(session.gate_since) > WAVER {
        session.gate_since = since;
        news = true;
    }
    let alive = alive(&report.agents);
    if session.alive != alive {
        session.alive = alive;
        news = true;
    }
    if session.standing != standing {
        session.standing = standing;
        session.standing_since = now;
        news = true;
    }
    let word = word(report, Some(&session.word), now)?;
    // That nothing has changed is said with every heartbeat.
    news |= Word { settled_at: session.word.settled_at, ..word.clone() } != session.word;
    news |= word.settled_at.is_some() != session.word.settled_at.is_some();
    session.word = word;
    Ok(news)
}

/// Whether a report shows that an order was obeyed whose answer was lost with its stream.
pub(super) fn shows_obeyed(report: &v1::Report, order: &Order) -> bool {
    let standing = report.standing();
    let obeyed = match order.kind {
        OrderKind::Drain => standing == v1::Standing::Drained,
        OrderKind::Finish => matches!(standing, v1::Standing::Finishing | v1::Standing::Drained),
        OrderKind::Undrain => standing == v1::Standing::Open,
        OrderKind::Retire => standing == v1::Standing::Retired,
    };
    report.epoch == order.epoch && report.generation == order.generation && obeyed
}

/// The order that is answered, and how.
pub(super) fn answer(answer: &v1::OrderAnswer) -> Result<(Order, Answer), Malformed> {
    let kind = match answer.kind() {
        v1::OrderKind::Drain => OrderKind::Drain,
        v1::OrderKind::Finish => OrderKind::Finish,
        v1::OrderKind::Undrain => OrderKind::Undrain,
        v1::OrderKind::Retire => OrderKind::Retire,
        v1::OrderKind::Unspecified => return Err(Malformed("an answer to no kind of order")),
    };
    let outcome = match answer.outcome() {
        v1::Outcome::Done => Answer::Done,
        v1::Outcome::RefusedBusy => Answer::RefusedBusy(task(name(&answer.task_id)?)),
        v1::Outcome::RefusedUnsure => Answer::RefusedUnsure,
        v1::Outcome::RefusedStale => Answer::RefusedStale,
        v1::Outcome::Unspecified => return Err(Malformed("an answer without an outcome")),
    };
    Ok((Order { epoch: answer.epoch, generation: answer.generation, kind }, outcome))
}

/// The order as it goes over the wire.
pub(super) fn order(order: Order) -> v1::ToSidecar {
    let kind = match order.kind {
        OrderKind::Drain => v1::OrderKind::Drain,
        OrderKind::Finish => v1::OrderKind::Finish,
        OrderKind::Undrain => v1::OrderKind::Undrain,
        OrderKind::Retire => v1::OrderKind::Retire,
    };
    let order = v1::Order { kind: kind.into(), epoch: order.epoch, generation: order.generation };
    v1::ToSidecar { body: Some(v1::to_sidecar::Body::Order(order)) }
}

/// A phase as the boot script or the sidecar names it.
pub(super) fn phase(text: &str) -> Result<&str, Malformed> {
    name(text)
}

/// What the agents do, the most weighty first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Merged {
    Idle,
    Absent,
    Unknown,
    Busy,
}

impl Merged {
    fn of(state: v1::GateState) -> Self {
        match state {
            v1::GateState::Absent => Self::Absent,
            // Being asked is not having: a drain waits for the poll in flight under the gate's lock.
            v1::GateState::Idle | v1::GateState::Polling => Self::Idle,
            v1::GateState::Busy => Self::Busy,
            v1::GateState::Unknown | v1::GateState::Unspecified => Self::Unknown,
        }
    }

    fn is(self, task: &str, gate: &Gate) -> bool {
        match gate {
            Gate::Absent => self == Self::Absent,
            Gate::Idle => self == Self::Idle,
            Gate::Unknown => self == Self::Unknown,
            Gate::Busy(held) => self == Self::Busy && held.as_ref().map_or("", |held| held.as_str()) == task,
        }
    }

    fn with(self, held: &str) -> Gate {
        match self {
            Self::Absent => Gate::Absent,
            Self::Idle => Gate::Idle,
            Self::Unknown => Gate::Unknown,
            Self::Busy => Gate::Busy(task(held)),
        }
    }
}

/// The state of all agents together, the task of the one that has been busy longest, and for how long
/// it has been so: idle only since the last of them is.
fn merge(agents: &[v1::Agent]) -> Result<(Merged, &str, Duration), Malformed> {
    if agents.len() > MAX_AGENTS {
        return Err(Malformed("too many agents"));
    }
    let merged = agents.iter().map(|agent| Merged::of(agent.gate())).max().unwrap_or(Merged::Absent);
    let mut held: Option<(u64, &str)> = None;
    for agent in agents.iter().filter(|agent| Merged::of(agent.gate()) == merged) {
        let better = held.is_none_or(|(best, _)| match merged {
            Merged::Idle => agent.for_ms < best,
            Merged::Absent | Merged::Unknown | Merged::Busy => agent.for_ms > best,
        });
        if better {
            held = Some((agent.for_ms, name(&agent.task_id)?));
        }
    }
    let (for_ms, task) = held.unwrap_or((0, ""));
    Ok((merged, task, Duration::from_millis(for_ms)))
}

/// What the report says of the tasks there.
fn word(report: &v1::Report, before: Option<&Word>, now: Time) -> Result<Word, Malformed> {
    let mut held = BTreeSet::new();
    let mut settled = true;
    for agent in &report.agents {
        settled &= !agent.ungated;
        match agent.gate() {
            v1::GateState::Idle | v1::GateState::Absent => {}
            v1::GateState::Busy => match task(name(&agent.task_id)?) {
                Some(task) => drop(held.insert(task)),
                None => settled = false,
            },
            v1::GateState::Polling | v1::GateState::Unknown | v1::GateState::Unspecified => settled = false,
        }
    }
    let at_work = match &report.at_work {
        None => None,
        Some(seen) if seen.task_ids.len() > MAX_TASKS => return Err(Malformed("too many tasks")),
        Some(seen) => {
            Some(seen.task_ids.iter().map(|id| name(id).map(TaskId::from)).collect::<Result<_, _>>()?)
        }
    };
    Ok(Word {
        held,
        settled_at: if settled { Some(now) } else { before.and_then(|before| before.settled_at) },
        at_work,
        notice: report.notice.as_ref().map(|notice| of_notice(notice, before.and_then(|it| it.notice), now)),
    })
}

/// The end is reckoned from a duration: it wavers by the network's delay, and the earliest reckoning is right.
fn of_notice(notice: &v1::Notice, before: Option<Notice>, now: Time) -> Notice {
    let ends_at = now.after(Duration::from_millis(notice.ends_in_ms));
    let known = before
        .filter(|before| before.ends_at.since(ends_at).max(ends_at.since(before.ends_at)) < NOTICE_WAVER);
    Notice {
        seen_at: before.map_or(now, |before| before.seen_at),
        ends_at: known.map_or(ends_at, |known| known.ends_at),
        killed: notice.killed,
    }
}

fn alive(agents: &[v1::Agent]) -> bool {
    agents.iter().all(|agent| agent.alive || agent.gate() == v1::GateState::Absent)
}

fn standing(standing: v1::Standing) -> Result<Standing, Malformed> {
    match standing {
        v1::Standing::Open => Ok(Standing::Open),
        v1::Standing::Finishing => Ok(Standing::Finishing),
        v1::Standing::Drained => Ok(Standing::Drained),
        v1::Standing::Retired => Ok(Standing::Retired),
        v1::Standing::Unspecified => Err(Malformed("a report without a standing")),
    }
}

fn task(id: &str) -> Option<TaskId> {
    (!id.is_empty()).then(|| TaskId::from(id))
}

/// Names go into logs and tables: short, and without anything that moves a cursor.
fn name(text: &str) -> Result<&str, Malformed> {
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Malformed("a name that is too long or has control characters"));
    }
    Ok(text)
}

fn before(now: Time, duration: Duration) -> Time {
    Time(now.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(gate: v1::GateState, for_ms: u64, task: &str) -> v1::Agent {
        v1::Agent { gate: gate.into(), for_ms, task_id: task.into(), alive: true, ..Default::default() }
    }

    fn report(agents: Vec<v1::Agent>) -> v1::Report {
        v1::Report {
            boot_phase: "ready".into(),
            agents,
            standing: v1::Standing::Open.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_instance_is_idle_only_since_the_last_of_its_agents_is() {
        let both =
            report(vec![agent(v1::GateState::Idle, 60_000, ""), agent(v1::GateState::Polling, 5_000, "")]);
        let seen = session(&both, Time(100_000)).unwrap();
        assert_eq!((seen.gate, seen.gate_since), (Gate::Idle, Time(95_000)));
    }

    #[test]
    fn a_busy_agent_outweighs_all_others_and_an_unknown_one_outweighs_idle() {
        let busy = report(vec![
            agent(v1::GateState::Unknown, 1, ""),
            agent(v1::GateState::Busy, 7, "t1"),
            agent(v1::GateState::Busy, 9, "t2"),
        ]);
        assert_eq!(session(&busy, Time(10)).unwrap().gate, Gate::Busy(Some("t2".into())));
        let unknown =
            report(vec![agent(v1::GateState::Idle, 1, ""), agent(v1::GateState::Unspecified, 1, "")]);
        assert_eq!(session(&unknown, Time(10)).unwrap().gate, Gate::Unknown);
        assert_eq!(session(&report(vec![]), Time(10)).unwrap().gate, Gate::Absent);
    }

    #[test]
    fn a_heartbeat_is_no_news_and_does_not_let_the_idle_clock_waver() {
        let mut seen = session(&report(vec![agent(v1::GateState::Idle, 1_000, "")]), Time(101_000)).unwrap();
        let late = report(vec![agent(v1::GateState::Idle, 6_000, "")]);
        assert!(!update(&mut seen, &late, Time(106_300)).unwrap());
        assert_eq!((seen.gate_since, seen.last_seen), (Time(100_000), Time(106_300)));
        let early = report(vec![agent(v1::GateState::Idle, 11_000, "")]);
        assert!(!update(&mut seen, &early, Time(110_990)).unwrap());
        assert_eq!(seen.gate_since, Time(99_990));
    }

    #[test]
    fn a_task_between_two_reports_restarts_the_idle_clock() {
        let mut seen = session(&report(vec![agent(v1::GateState::Idle, 50_000, "")]), Time(100_000)).unwrap();
        assert!(
            update(&mut seen, &report(vec![agent(v1::GateState::Idle, 100, "")]), Time(105_000)).unwrap()
        );
        assert_eq!(seen.gate_since, Time(104_900));
    }

    #[test]
    fn a_dead_agent_is_news_and_one_that_has_not_started_is_not_dead() {
        let absent = v1::Agent { alive: false, ..agent(v1::GateState::Absent, 0, "") };
        assert!(session(&report(vec![absent]), Time(1)).unwrap().alive);
        let mut seen = session(&report(vec![agent(v1::GateState::Idle, 0, "")]), Time(1)).unwrap();
        let dead = v1::Agent { alive: false, ..agent(v1::GateState::Idle, 0, "") };
        assert!(update(&mut seen, &report(vec![dead]), Time(1)).unwrap());
        assert!(!seen.alive);
    }

    #[test]
    fn every_task_that_a_gate_holds_is_known_and_a_gate_in_doubt_settles_nothing() {
        let two = report(vec![agent(v1::GateState::Busy, 7, "t1"), agent(v1::GateState::Busy, 9, "t2")]);
        let mut seen = session(&two, Time(10)).unwrap();
        assert_eq!(seen.word.held, ["t1".into(), "t2".into()].into());
        assert_eq!(seen.word.settled_at, Some(Time(10)));
        let doubt = report(vec![agent(v1::GateState::Idle, 7, ""), agent(v1::GateState::Polling, 9, "")]);
        update(&mut seen, &doubt, Time(20)).unwrap();
        assert_eq!((seen.word.held.len(), seen.word.settled_at), (0, Some(Time(10))));
        let ungated = v1::Agent { ungated: true, ..agent(v1::GateState::Idle, 9, "") };
        assert_eq!(session(&report(vec![ungated]), Time(1)).unwrap().word.settled_at, None);
    }

    #[test]
    fn a_notice_is_news_once_and_its_end_does_not_waver() {
        let mut seen = session(&report(vec![agent(v1::GateState::Idle, 0, "")]), Time(1_000)).unwrap();
        let notice = |ends_in_ms, killed, idle| v1::Report {
            notice: Some(v1::Notice { ends_in_ms, killed }),
            ..report(vec![agent(v1::GateState::Idle, idle, "")])
        };
        assert!(update(&mut seen, &notice(120_000, false, 1_000), Time(2_000)).unwrap());
        assert!(!update(&mut seen, &notice(115_400, false, 6_000), Time(7_000)).unwrap());
        let expected = Notice { seen_at: Time(2_000), ends_at: Time(122_000), killed: false };
        assert_eq!(seen.word.notice, Some(expected));
        assert!(update(&mut seen, &notice(25_000, true, 96_000), Time(97_000)).unwrap());
    }

    #[test]
    fn a_report_that_no_sidecar_sends_is_refused() {
        let nameless = v1::Report { standing: 0, ..report(vec![]) };
        assert!(session(&nameless, Time(1)).is_err());
        let loud = v1::Report { boot_phase: "a\x1b[2Jb".into(), ..report(vec![]) };
        assert!(session(&loud, Time(1)).is_err());
        let crowd = report(vec![agent(v1::GateState::Idle, 0, ""); MAX_AGENTS + 1]);
        assert!(session(&crowd, Time(1)).is_err());
        let endless = report(vec![agent(v1::GateState::Idle, u64::MAX, "")]);
        assert_eq!(session(&endless, Time(5)).unwrap().gate_since, Time(0));
    }
}
