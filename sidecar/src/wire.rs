//! Between the state machine's words and the protocol's.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::v1;

use crate::agent::{Answer, Order, OrderKind, Outcome, Reading, Report, Standing};
use crate::probe::Gpu;

/// What a report holds besides the machine's part.
pub(crate) struct Surroundings<'a> {
    pub(crate) sequence: u64,
    pub(crate) worker_ids: &'a [String],
    pub(crate) gpus: &'a [Gpu],
    pub(crate) free_disk_bytes: u64,
    pub(crate) at_work: Option<&'a BTreeSet<String>>,
}

pub(crate) fn report(report: Report, surroundings: &Surroundings<'_>) -> v1::FromSidecar {
    let Report { boot, agents, standing, epoch, generation, notice } = report;
    let Surroundings { sequence, worker_ids, gpus, free_disk_bytes, at_work } = surroundings;
    let agents = agents.into_iter().enumerate().map(|(index, entry)| {
        let (gate, task) = match entry.agent.reading {
            Reading::Absent => (v1::GateState::Absent, None),
            Reading::Idle { .. } => (v1::GateState::Idle, None),
            Reading::Polling { .. } => (v1::GateState::Polling, None),
            Reading::Busy { task, .. } => (v1::GateState::Busy, task),
            Reading::Unknown { .. } => (v1::GateState::Unknown, None),
        };
        v1::Agent {
            worker_id: worker_ids.get(index).cloned().unwrap_or_default(),
            gate: gate.into(),
            task_id: task.unwrap_or_default(),
            for_ms: milliseconds(entry.lasted),
            alive: entry.agent.alive,
            ungated: entry.agent.ungated,
        }
    });
    let standing = match standing {
        Standing::Open => v1::Standing::Open,
        Standing::Finishing => v1::Standing::Finishing,
        Standing::Drained => v1::Standing::Drained,
        Standing::Retired => v1::Standing::Retired,
    };
    let report = v1::Report {
        sequence: *sequence,
        boot_phase: boot.phase().to_owned(),
        agents: agents.collect(),
        standing: standing.into(),
        epoch,
        generation,
        gpus: gpus.iter().map(gpu).collect(),
        free_disk_bytes: *free_disk_bytes,
        notice: notice.map(|(left, killed)| v1::Notice { ends_in_ms: milliseconds(left), killed }),
        at_work: at_work.map(|tasks| v1::AtWork { task_ids: tasks.iter().cloned().collect() }),
    };
    v1::FromSidecar { body: Some(v1::from_sidecar::Body::Report(report)) }
}

pub(crate) fn answer(answer: Answer) -> v1::FromSidecar {
    let Answer { order, outcome } = answer;
    let (outcome, task) = match outcome {
        Outcome::Done => (v1::Outcome::Done, None),
        Outcome::RefusedBusy(task) => (v1::Outcome::RefusedBusy, task),
        Outcome::RefusedUnsure => (v1::Outcome::RefusedUnsure, None),
        Outcome::RefusedStale => (v1::Outcome::RefusedStale, None),
    };
    let kind = match order.kind {
        OrderKind::Drain => v1::OrderKind::Drain,
        OrderKind::Finish => v1::OrderKind::Finish,
        OrderKind::Undrain => v1::OrderKind::Undrain,
        OrderKind::Retire => v1::OrderKind::Retire,
    };
    let answer = v1::OrderAnswer {
        kind: kind.into(),
        epoch: order.epoch,
        generation: order.generation,
        outcome: outcome.into(),
        task_id: task.unwrap_or_default(),
    };
    v1::FromSidecar { body: Some(v1::from_sidecar::Body::Answer(answer)) }
}

pub(crate) fn boot_log(phase: String, failed: bool, log_tail: String) -> v1::FromSidecar {
    v1::FromSidecar { body: Some(v1::from_sidecar::Body::BootLog(v1::BootLog { phase, failed, log_tail })) }
}

/// None for a kind that this version does not know.
pub(crate) fn order(order: v1::Order) -> Option<Order> {
    let kind = match order.kind() {
        v1::OrderKind::Unspecified => return None,
        v1::OrderKind::Drain => OrderKind::Drain,
        v1::OrderKind::Finish => OrderKind::Finish,
        v1::OrderKind::Undrain => OrderKind::Undrain,
        v1::OrderKind::Retire => OrderKind::Retire,
    };
    Some(Order { kind, epoch: order.epoch, generation: order.generation })
}

fn gpu(gpu: &Gpu) -> v1::Gpu {
    let Gpu { index, name, utilisation_percent, memory_used, memory_total } = gpu;
    v1::Gpu {
        index: *index,
        name: name.clone(),
        utilisation_percent: *utilisation_percent,
        memory_used_bytes: *memory_used,
        memory_total_bytes: *memory_total,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
