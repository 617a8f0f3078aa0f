//! Orders: drain, finish, undrain, retire; by which numbers they are obeyed, and what they are answered.

use std::time::Duration;

use super::machine::{Closing, Machine};
use super::types::{Answer, Effect, Order, OrderKind, Outcome, Reading, Standing};

impl Machine {
    pub(super) fn obey(&mut self, now: Duration, order: Order, fx: &mut Vec<Effect>) {
        if let Some(last) = self.last_answer.as_ref().filter(|last| last.order == order) {
            fx.push(Effect::Answer(last.clone()));
            return;
        }
        if self.closing == Some(Closing::Ordered(order)) {
            return;
        }
        let mut newest = (self.saved.epoch, self.saved.generation);
        let number = (order.epoch, order.generation);
        if fault!("generation-ignored") && order.epoch == newest.0 {
            newest = number;
            self.newest_kind = None;
        }
        let other = self.newest_kind.is_some_and(|kind| kind != order.kind);
        if number < newest || (number == newest && other) {
            // Not remembered: the answer to the newest order is.
            fx.push(Effect::Answer(Answer { order, outcome: Outcome::RefusedStale }));
            return;
        }
        (self.saved.epoch, self.saved.generation) = number;
        self.newest_kind = Some(order.kind);
        match order.kind {
            OrderKind::Drain | OrderKind::Finish => self.drain(order, fx),
            OrderKind::Undrain => self.undrain(now, order, fx),
            OrderKind::Retire => self.retire(now, order, fx),
        }
    }

    fn drain(&mut self, order: Order, fx: &mut Vec<Effect>) {
        match self.saved.standing {
            Standing::Retired => self.answer(order, Outcome::RefusedStale, fx),
            Standing::Drained => self.answer(order, Outcome::Done, fx),
            Standing::Finishing if order.kind == OrderKind::Finish => self.answer(order, Outcome::Done, fx),
            Standing::Open | Standing::Finishing => match self.closing.replace(Closing::Ordered(order)) {
                None => fx.push(Effect::CloseGates),
                Some(Closing::Own | Closing::Finished) => {}
                Some(Closing::Ordered(older)) => {
                    fx.push(Effect::Answer(Answer { order: older, outcome: Outcome::RefusedStale }));
                }
            },
        }
    }

    fn undrain(&mut self, now: Duration, order: Order, fx: &mut Vec<Effect>) {
        if self.saved.standing == Standing::Retired && !fault!("undrain-after-retire") {
            self.answer(order, Outcome::RefusedStale, fx);
            return;
        }
        self.give_up_closing(fx);
        self.next_renewal = now;
        self.set_standing(now, Standing::Open, fx);
        self.answer(order, Outcome::Done, fx);
    }

    fn retire(&mut self, now: Duration, order: Order, fx: &mut Vec<Effect>) {
        match self.saved.standing {
            Standing::Retired => self.answer(order, Outcome::Done, fx),
            Standing::Drained if fault!("retire-not-saved") => {
                self.retired(now);
                self.answer(order, Outcome::Done, fx);
            }
            Standing::Drained if self.held().is_none() => {
                self.retiring = Some(order);
                let mut saved = self.saved.clone();
                saved.standing = Standing::Retired;
                fx.push(Effect::Save(saved));
            }
            // Drained, yet at work: a restart forgot that it was opened in between.
            Standing::Open | Standing::Finishing | Standing::Drained => {
                self.give_up_closing(fx);
                let outcome = self.held().map_or(Outcome::RefusedUnsure, Outcome::RefusedBusy);
                self.answer(order, outcome, fx);
            }
        }
    }

    /// The task that an agent holds, if one does.
    fn held(&self) -> Option<Option<String>> {
        self.agents.iter().find_map(|agent| match &agent.reading {
            Reading::Busy { task, .. } => Some(task.clone()),
            Reading::Absent | Reading::Idle { .. } | Reading::Polling { .. } | Reading::Unknown { .. } => {
                None
            }
        })
    }

    pub(super) fn retirement_saved(&mut self, now: Duration, durably: bool, fx: &mut Vec<Effect>) {
        let Some(order) = self.retiring.take() else { return };
        if durably {
            self.retired(now);
            self.answer(order, Outcome::Done, fx);
        } else {
            self.answer(order, Outcome::RefusedUnsure, fx);
        }
    }

    /// The gates were closed and read in one.
    pub(super) fn closed(&mut self, now: Duration, fx: &mut Vec<Effect>) {
        match self.closing.take() {
            // An order that came in between wants them open.
            None => self.next_renewal = now,
            Some(Closing::Own) => self.end_if_silent(now, fx),
            Some(Closing::Finished) => {
                if self.verdict() == Outcome::Done {
                    self.set_standing(now, Standing::Drained, fx);
                } else {
                    self.put_off_own_close(now);
                }
            }
            Some(Closing::Ordered(order)) => {
                let outcome = self.verdict();
                let closed = match &outcome {
                    Outcome::Done => Some(Standing::Drained),
                    Outcome::RefusedBusy(_) if order.kind == OrderKind::Finish && self.may_finish() => {
                        Some(Standing::Finishing)
                    }
                    Outcome::RefusedBusy(_) | Outcome::RefusedUnsure | Outcome::RefusedStale => None,
                };
                match closed {
                    Some(standing) => {
                        self.set_standing(now, standing, fx);
                        self.answer(order, Outcome::Done, fx);
                    }
                    None => {
                        self.next_renewal = now;
                        self.answer(order, outcome, fx);
                    }
                }
            }
        }
    }

    pub(super) fn not_closed(&mut self, now: Duration, fx: &mut Vec<Effect>) {
        self.next_renewal = now;
        match self.closing.take() {
            None => {}
            Some(Closing::Own | Closing::Finished) => self.put_off_own_close(now),
            Some(Closing::Ordered(order)) => self.answer(order, Outcome::RefusedUnsure, fx),
        }
    }

    /// Whether agents whose gates are closed, with no poll in flight, are free: all or none.
    fn verdict(&self) -> Outcome {
        let mut verdict = Outcome::Done;
        for agent in &self.agents {
            match &agent.reading {
                Reading::Busy { task, .. } => return Outcome::RefusedBusy(task.clone()),
                // Its gate does not bind it, dead or alive: what it holds cannot be told.
                _ if agent.ungated => verdict = Outcome::RefusedUnsure,
                Reading::Polling { .. } | Reading::Unknown { .. } => verdict = Outcome::RefusedUnsure,
                Reading::Absent | Reading::Idle { .. } => {}
            }
        }
        verdict
    }

    /// Whether the closed gates bind every agent, so that each ends what it holds and takes no more.
    fn may_finish(&self) -> bool {
        self.agents.iter().all(|agent| match agent.reading {
            Reading::Absent | Reading::Idle { .. } | Reading::Busy { .. } => !agent.ungated,
            // Only another poll could tell what it holds.
            Reading::Polling { .. } | Reading::Unknown { .. } => false,
        })
    }

    fn give_up_closing(&mut self, fx: &mut Vec<Effect>) {
        match self.closing.take() {
            None => {}
            Some(Closing::Own | Closing::Finished) => fx.push(Effect::StopClosing),
            Some(Closing::Ordered(order)) => {
                fx.push(Effect::StopClosing);
                fx.push(Effect::Answer(Answer { order, outcome: Outcome::RefusedStale }));
            }
        }
    }

    fn answer(&mut self, order: Order, outcome: Outcome, fx: &mut Vec<Effect>) {
        let answer = Answer { order, outcome };
        self.last_answer = Some(answer.clone());
        fx.push(Effect::Answer(answer));
    }
}
