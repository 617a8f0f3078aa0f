//! A machine of the living fleet: what it is, how it obeys, and what a controller makes of it.

use std::time::Duration;

use planner::{
    Answer, InstanceId, IntentId, LostReason, Offering, Order, OrderKind, Policy, QueueName, ResourceName,
    SidecarMode, Signal, State, TaskId, Time, Worker, WorkerId,
};

/// How long a gate stays open without a word of its sidecar.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Closed behind a task.
    Finishing,
    Drained,
    Retired,
}

/// A machine as it is.
pub(crate) struct Machine {
    pub(crate) resource: ResourceName,
    pub(crate) queue: QueueName,
    pub(crate) offering: Offering,
    pub(crate) intent: IntentId,
    pub(crate) launched_at: Time,
    pub(crate) visible_at: Time,
    /// When its agent is up; `None`: never.
    pub(crate) up_at: Option<Time>,
    pub(crate) ended_at: Option<Time>,
    pub(crate) gate: Gate,
    pub(crate) gate_at: Time,
    pub(crate) task: Option<(TaskId, Time)>,
    pub(crate) task_at: Time,
    pub(crate) newest: (u64, u64),
    pub(crate) inbox: Vec<Order>,
    pub(crate) attached_at: Option<Time>,
    pub(crate) silent_since: Option<Time>,
    pub(crate) memory: Memory,
}

/// What the controller's run remembers of it.
pub(crate) struct Memory {
    /// EC2's list has shown it.
    pub(crate) listed: bool,
    pub(crate) adopted_at: Option<Time>,
    pub(crate) ready_at: Option<Time>,
    pub(crate) order: Option<(Order, Time, Answer)>,
    pub(crate) state: State,
    pub(crate) since: Time,
}

impl Memory {
    pub(crate) fn blank() -> Self {
        Self {
            listed: false,
            adopted_at: None,
            ready_at: None,
            order: None,
            state: State::Requested,
            since: Time(0),
        }
    }
}

impl Machine {
    pub(crate) fn worker(&self, policy: &Policy, id: &InstanceId) -> WorkerId {
        WorkerId::of(&policy.prefix, &self.resource, &self.offering.instance_type, id)
    }

    /// As the sidecar does: older orders are refused, a held task refuses the closing of the gate.
    pub(crate) fn obey(&mut self, order: Order, now: Time, unsure: bool) {
        let number = (order.epoch, order.generation);
        let answer =
            if number < self.newest || (self.gate == Gate::Retired && order.kind != OrderKind::Retire) {
                Answer::RefusedStale
            } else {
                self.newest = number;
                match order.kind {
                    OrderKind::Undrain => {
                        (self.gate, self.gate_at) = (Gate::Open, now);
                        Answer::Done
                    }
                    OrderKind::Drain | OrderKind::Retire if self.task.is_some() => {
                        Answer::RefusedBusy(self.task.as_ref().map(|(task, _)| task.clone()))
                    }
                    OrderKind::Drain | OrderKind::Finish if unsure => Answer::RefusedUnsure,
                    OrderKind::Retire if self.gate != Gate::Drained && self.gate != Gate::Retired => {
                        Answer::RefusedUnsure
                    }
                    OrderKind::Drain | OrderKind::Finish | OrderKind::Retire => {
                        let closed = match order.kind {
                            OrderKind::Retire => Gate::Retired,
                            OrderKind::Finish if self.task.is_some() => Gate::Finishing,
                            OrderKind::Drain | OrderKind::Finish | OrderKind::Undrain => Gate::Drained,
                        };
                        if self.gate != closed {
                            (self.gate, self.gate_at) = (closed, now);
                        }
                        Answer::Done
                    }
                }
            };
        if let Some((last, _, last_answer)) = &mut self.memory.order
            && *last == order
        {
            *last_answer = answer;
        }
    }

    /// One state of all that is known, as the engine makes it. A state that goes on keeps its beginning.
    pub(crate) fn merged(
        &mut self,
        policy: &Policy,
        listed: Option<&Worker>,
        adopted_at: Time,
        now: Time,
    ) -> (State, Time, Signal) {
        if let Some(ended) = self.ended_at {
            let gone = now.since(ended) > LEASE;
            return (if gone { State::Gone } else { State::Terminating }, now, Signal::None);
        }
        let booting = || match (self.visible_at <= now, self.up_at) {
            (false, _) => State::Requested,
            (true, None) => State::Pending,
            (true, Some(_)) => State::Booting { phase: "script".to_owned() },
        };
        if policy.sidecar == SidecarMode::Off {
            return match listed {
                Some(worker) => {
                    self.memory.ready_at.get_or_insert(now);
                    let state = match &worker.task {
                        Some(task) => State::Busy { task: Some(task.clone()) },
                        None => State::Idle,
                    };
                    (state, now, Signal::Clearml)
                }
                None if self.memory.ready_at.is_some() => {
                    (State::Lost { reason: LostReason::SessionLost }, now, Signal::None)
                }
                None => (booting(), now, Signal::None),
            };
        }
        let up = self.up_at.is_some_and(|at| at <= now);
        if !up || self.attached_at.is_some_and(|at| at > now) {
            if self.attached_at.is_some() && up && now.since(adopted_at) >= LEASE {
                return (State::Lost { reason: LostReason::NeverAttached }, adopted_at, Signal::None);
            }
            return (booting(), now, Signal::None);
        }
        if let Some(since) = self.silent_since
            && now.since(since) >= LEASE
            && self.gate != Gate::Retired
        {
            if self.memory.ready_at.is_none() {
                return (State::Booting { phase: "silent".to_owned() }, now, Signal::None);
            }
            return (State::Lost { reason: LostReason::SessionLost }, since, Signal::None);
        }
        self.memory.ready_at.get_or_insert(now);
        let awaited = match &self.memory.order {
            Some((order, _, Answer::Awaited)) => Some(order.kind),
            Some(_) | None => None,
        };
        let (state, since) = match (self.gate, awaited, &self.task) {
            (Gate::Finishing, _, Some((task, _))) => (State::Busy { task: Some(task.clone()) }, self.task_at),
            (Gate::Finishing, _, None) => (State::Idle, self.task_at),
            (Gate::Retired, _, _) => (State::Retired, self.gate_at),
            (Gate::Drained, Some(OrderKind::Retire), _) => (State::Retiring, now),
            (Gate::Drained, _, _) => (State::Drained, now),
            (Gate::Open, Some(OrderKind::Drain), _) => (State::Draining, now),
            (Gate::Open, _, Some((task, _))) => (State::Busy { task: Some(task.clone()) }, self.task_at),
            (Gate::Open, _, None) => (State::Idle, self.task_at.max(self.up_at.unwrap_or(now))),
        };
        (state, since, Signal::Sidecar)
    }
}
