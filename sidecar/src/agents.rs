//! The agents of this instance, read together: gates, processes, and for an ungated one its children.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use futures_util::future::select_all;

use crate::agent::{Agent, Reading};
use crate::config::Layout;
use crate::gate::{self, Gate};
use crate::log;
use crate::probe::{Proc, Process};

/// One entry per agent that the boot script starts.
#[derive(Default)]
pub(crate) struct Agents {
    proc: Proc,
    gates: Vec<Gate>,
    followed: Vec<Followed>,
}

#[derive(Default)]
struct Followed {
    process: Option<Process>,
    /// Since when an ungated agent has had children, or none.
    children: Option<(bool, Duration)>,
}

impl Agents {
    /// Makes a gate for each agent; all closed until they are renewed.
    pub(crate) fn open(&mut self, layout: &Layout, count: usize) -> io::Result<()> {
        self.gates = (0..count).map(|index| layout.gate(index)).collect();
        self.followed = (0..count).map(|_| Followed::default()).collect();
        self.gates.iter().try_for_each(Gate::create)
    }

    pub(crate) fn gates(&self) -> &[Gate] {
        &self.gates
    }

    pub(crate) fn read(&mut self, now: Duration) -> Vec<Agent> {
        self.gates
            .iter()
            .zip(&mut self.followed)
            .map(|(gate, followed)| one(gate, followed, &self.proc, now))
            .collect()
    }

    pub(crate) fn renew(&self, until: Duration) {
        for gate in &self.gates {
            if let Err(error) = gate.renew(until) {
                log::warn(format_args!("cannot renew the lease of {}: {error}", gate.directory().display()));
            }
        }
    }

    /// Takes the leases away at once.
    pub(crate) fn shut(&self) {
        for gate in &self.gates {
            if let Err(error) = gate.close() {
                log::warn(format_args!("cannot take the lease of {}: {error}", gate.directory().display()));
            }
        }
    }

    /// The daemons' pids, and the tasks that their gates hold.
    pub(crate) fn work(&self, now: Duration) -> (Vec<i32>, BTreeSet<String>) {
        let held = self.gates.iter().filter_map(|gate| match gate.read(now) {
            Reading::Busy { task, .. } => task,
            Reading::Absent | Reading::Idle { .. } | Reading::Polling { .. } | Reading::Unknown { .. } => {
                None
            }
        });
        (self.gates.iter().filter_map(Gate::pid).collect(), held.collect())
    }

    /// See [`gate::try_close`].
    pub(crate) fn try_close(&self, now: Duration) -> io::Result<Option<Vec<Reading>>> {
        gate::try_close(&self.gates, now)
    }

    /// Resolves when the process of one of them ends.
    pub(crate) async fn ended(&mut self) {
        let processes = self.followed.iter_mut().filter_map(|followed| followed.process.as_mut());
        let ends: Vec<_> = processes.map(|process| Box::pin(process.ended())).collect();
        if ends.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(ends).await;
    }
}

fn one(gate: &Gate, followed: &mut Followed, proc: &Proc, now: Duration) -> Agent {
    let reading = gate.read(now);
    let pid = gate.pid();
    if followed.process.as_ref().map(Process::pid) != pid {
        followed.process = pid.map(Process::follow);
    }
    let alive = followed.process.as_mut().is_some_and(|process| process.is_alive(proc));
    let ungated = gate.is_ungated();
    let reading = match (ungated, pid) {
        (true, Some(pid)) if reading != Reading::Absent => {
            let has_children = alive && proc.has_children(pid);
            let (_, since) = *match &mut followed.children {
                Some(seen) if seen.0 == has_children => seen,
                seen => seen.insert((has_children, now)),
            };
            if has_children { Reading::Busy { task: None, since } } else { Reading::Idle { since } }
        }
        _ => reading,
    };
    Agent { reading, alive, ungated }
}
