//! The words that the state machine hears and speaks. Times are durations since boot.

use std::time::Duration;

/// What a gate's state file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The agent has not started.
    Absent,
    /// Holds no task.
    Idle {
        /// The end of its last task, or its start.
        since: Duration,
    },
    /// Holds no task, and is asking for one.
    Polling {
        /// As for `Idle`.
        since: Duration,
    },
    /// Holds a task.
    Busy {
        /// Unknown if the agent is not gated.
        task: Option<String>,
        /// Its pop.
        since: Duration,
    },
    /// A poll failed: the server may have popped a task for it.
    Unknown {
        /// The failure.
        since: Duration,
    },
}

impl Reading {
    pub(crate) fn since(&self) -> Option<Duration> {
        match self {
            Reading::Absent => None,
            Reading::Idle { since }
            | Reading::Polling { since }
            | Reading::Busy { since, .. }
            | Reading::Unknown { since } => Some(*since),
        }
    }
}

/// One agent as the sidecar sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its gate's state; of an ungated one, what its children tell.
    pub reading: Reading,
    /// Its daemon's process runs. False before it has started.
    pub alive: bool,
    /// Its version could not be gated.
    pub ungated: bool,
}

impl Agent {
    /// One that has not started.
    pub const ABSENT: Agent = Agent { reading: Reading::Absent, alive: false, ungated: false };
}

/// How far the boot script is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It was not received yet.
    Waiting,
    /// This phase runs.
    Running(String),
    /// The agents were started.
    Ready,
    /// This phase failed.
    Failed(String),
}

impl Boot {
    /// The word of the protocol.
    pub fn phase(&self) -> &str {
        match self {
            Boot::Waiting => "waiting",
            Boot::Running(phase) => phase,
            Boot::Ready => "ready",
            Boot::Failed(_) => "failed",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The agents as they are now, in the order of their gates.
    Agents(Vec<Agent>),
    /// The boot script went on.
    Boot(Boot),
    /// The controller's Welcome came.
    Attached {
        /// Of this run of the controller: orders of an earlier one are refused.
        epoch: u64,
        /// How long the agent may be idle while the controller is silent.
        silent_idle_limit: Duration,
        /// When the first heartbeat is due after this, so that ten thousand sidecars don't beat at once.
        heartbeat_in: Duration,
    },
    /// The session ended.
    Detached,
    /// The controller says so.
    Order(Order),
    /// [`Effect::CloseGates`] succeeded: every gate was closed while no poll was in flight, and the agents held
    /// this at that instant.
    Closed(Vec<Reading>),
    /// [`Effect::CloseGates`] failed, or took too long. Gates may be closed.
    NotClosed,
    /// [`Effect::Save`] was carried out, durably or (`false`) not.
    Saved(bool),
    /// [`Effect::Disarm`] succeeded.
    Disarmed,
    /// AWS takes the machine then, on CLOCK_BOOTTIME.
    Notice(Duration),
    /// [`Effect::Kill`] was carried out.
    Killed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Let the agents poll until then.
    RenewLeases {
        /// On CLOCK_BOOTTIME.
        until: Duration,
    },
    /// Close all gates at an instant at which none is polling, trying for at most ten seconds. Answered by
    /// `Closed` or `NotClosed`; goes on while other events are handled.
    CloseGates,
    /// Give that up. No answer is expected any more.
    StopClosing,
    /// Write this where it survives a restart. Answered by `Saved`, before anything else is handled.
    Save(Saved),
    /// Send the answer, if the session still stands.
    Answer(Answer),
    /// Send a report, if the session still stands.
    Report,
    /// Cancel the shutdown that the machine's first command armed. Answered by `Disarmed`, tried until it works.
    Disarm,
    /// End the machine. Said again until it has ended.
    PowerOff(PowerOff),
    /// Take every lease away at once. A poll in flight may still bring a task.
    Shut,
    /// Freeze the agents and kill what they run. Answered by `Killed`.
    Kill,
}

/// Why the sidecar ends its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerOff {
    /// It was retired, and not terminated in time.
    Retired,
    /// An agent's process ended.
    AgentEnded,
    /// The boot script failed.
    BootFailed,
    /// The controller was silent past the idle limit.
    Silent,
    /// AWS had said that it takes the machine back, and did not.
    Interrupted,
}

impl std::fmt::Display for PowerOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PowerOff::Retired => "retired",
            PowerOff::AgentEnded => "the agent's process ended",
            PowerOff::BootFailed => "the boot script failed",
            PowerOff::Silent => "idle, and the controller silent",
            PowerOff::Interrupted => "AWS was to take it back by now",
        })
    }
}

/// How orders left the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Held open.
    #[default]
    Open,
    /// Closed behind a task that is held: drained once that has ended.
    Finishing,
    /// Closed; can be undone.
    Drained,
    /// Closed for good.
    Retired,
}

/// What survives a restart of the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// See there.
    pub standing: Standing,
    /// Of the newest order, or of the newest Welcome.
    pub epoch: u64,
    /// Of the newest order.
    pub generation: u64,
    /// From the newest Welcome.
    pub silent_idle_limit: Option<Duration>,
    /// The shutdown armed at boot was cancelled.
    pub disarmed: bool,
}

/// What the controller can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Close the gate, or refuse.
    Drain,
    /// Close the gate behind the task that is held, if one is.
    Finish,
    /// Open it again.
    Undrain,
    /// Never open it again.
    Retire,
}

/// An order with its number. Numbers are compared by epoch, then by generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub kind: OrderKind,
    /// The controller's run.
    pub epoch: u64,
    /// Counts up within the run.
    pub generation: u64,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, epoch, generation } = self;
        write!(f, "{kind:?} {epoch}.{generation}")
    }
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub order: Order,
    /// What.
    pub outcome: Outcome,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As told.
    Done,
    /// An agent holds this task.
    RefusedBusy(Option<String>),
    /// It could not be told whether an agent holds a task; or, of a retirement, it was not drained before.
    RefusedUnsure,
    /// A newer order or a retirement came before it.
    RefusedStale,
}

/// The machine's part of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// See there.
    pub boot: Boot,
    /// In the order of their gates.
    pub agents: Vec<AgentReport>,
    /// See there.
    pub standing: Standing,
    /// Of the newest order.
    pub epoch: u64,
    /// Of the newest order.
    pub generation: u64,
    /// How long until AWS takes the machine, and whether what ran there was killed.
    pub notice: Option<(Duration, bool)>,
}

/// One agent in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentReport {
    /// See there. A poll shows only if it lasts.
    pub agent: Agent,
    /// How long the reading has stood.
    pub lasted: Duration,
}
