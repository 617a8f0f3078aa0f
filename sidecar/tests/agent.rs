//! The state machine under a virtual clock, with agents that the test moves.

use std::time::Duration;

use sidecar::agent::{
    Agent, Answer, Boot, Effect, Event, Machine, Order, OrderKind, Outcome, PowerOff, Reading, Saved,
    Standing,
};

const LIMIT: Duration = Duration::from_secs(600);

/// A machine, its clock, and gates that do what they are told.
struct World {
    now: Duration,
    machine: Machine,
    agents: Vec<Agent>,
    lease: Duration,
    closing: bool,
    disk_full: bool,
    saved: Saved,
    effects: Vec<(Duration, Effect)>,
}

impl World {
    fn new() -> Self {
        Self::with(Saved::default())
    }

    fn with(saved: Saved) -> Self {
        let now = seconds(1000);
        let machine = Machine::new(now, saved.clone());
        let (agents, effects) = (vec![Agent::ABSENT], Vec::new());
        let mut world =
            Self { now, machine, agents, lease: now, closing: false, disk_full: false, saved, effects };
        world.look();
        world
    }

    /// One whose agent has been idle since now, attached.
    fn working() -> Self {
        let mut world = Self::new();
        world.attach(1);
        world.tell(Event::Boot(Boot::Ready));
        world.idle();
        world
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.machine.handle(self.now, event) {
                match &effect {
                    Effect::RenewLeases { until } => self.lease = *until,
                    Effect::CloseGates => self.closing = true,
                    Effect::StopClosing => self.closing = false,
                    Effect::Save(saved) => {
                        if !self.disk_full {
                            self.saved = saved.clone();
                        }
                        events.push(Event::Saved(!self.disk_full));
                    }
                    Effect::Disarm => events.push(Event::Disarmed),
                    Effect::Shut => self.lease = Duration::ZERO,
                    Effect::Kill => events.push(Event::Killed),
                    Effect::Answer(_) | Effect::Report | Effect::PowerOff(_) => {}
                }
                self.effects.push((self.now, effect));
            }
        }
    }

    /// The lock was free: the gates are closed and read.
    fn close(&mut self) {
        assert!(std::mem::take(&mut self.closing), "nobody asked for it");
        self.lease = Duration::ZERO;
        let readings = self.agents.iter().map(|agent| agent.reading.clone()).collect();
        self.tell(Event::Closed(readings));
    }

    fn attach(&mut self, epoch: u64) {
        let heartbeat_in = seconds(2);
        self.tell(Event::Attached { epoch, silent_idle_limit: LIMIT, heartbeat_in });
    }

    fn order(&mut self, kind: OrderKind, generation: u64) -> Order {
        let order = Order { kind, epoch: 1, generation };
        self.tell(Event::Order(order));
        order
    }

    fn look(&mut self) {
        self.tell(Event::Agents(self.agents.clone()));
    }

    fn set(&mut self, reading: Reading) {
        self.agents[0] = Agent { reading, alive: true, ungated: false };
        self.look();
    }

    fn idle(&mut self) {
        self.set(Reading::Idle { since: self.now });
    }

    fn busy(&mut self) {
        self.set(Reading::Busy { task: Some("t".to_owned()), since: self.now });
    }

    /// Lets time pass as the runner would: waking when the machine asks for it.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let wake = self.machine.wake_at(self.now);
            if wake > end {
                break;
            }
            assert!(wake > self.now, "it would spin");
            self.now = wake;
            self.tell(Event::Tick);
            if self.closing {
                self.close();
            }
        }
        self.now = end;
    }

    fn open(&self) -> bool {
        self.lease > self.now
    }

    fn answers(&self) -> Vec<&Answer> {
        let answers = self.effects.iter().map(|(_, effect)| match effect {
            Effect::Answer(answer) => Some(answer),
            _ => None,
        });
        answers.flatten().collect()
    }

    fn last_outcome(&self) -> &Outcome {
        &self.answers().last().expect("an answer").outcome
    }

    fn powered_off(&self) -> Option<(Duration, PowerOff)> {
        self.effects.iter().find_map(|(at, effect)| match effect {
            Effect::PowerOff(reason) => Some((*at, *reason)),
            _ => None,
        })
    }

    fn reports(&self) -> usize {
        self.effects.iter().filter(|(_, effect)| *effect == Effect::Report).count()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_attached_idle_agent_is_held_open() {
    let mut world = World::working();
    for _ in 0..100 {
        world.pass(seconds(7));
        assert!(world.lease >= world.now + seconds(20));
    }
    assert_eq!(world.powered_off(), None);
}

#[test]
fn an_idle_agent_is_drained_retired_and_ends_itself_if_nobody_does() {
    let mut world = World::working();
    let drain = world.order(OrderKind::Drain, 1);
    assert!(world.answers().is_empty(), "not before the gate is closed");
    world.close();
    assert_eq!(world.answers(), [&Answer { order: drain, outcome: Outcome::Done }]);
    assert_eq!((world.machine.standing(), world.open()), (Standing::Drained, false));
    world.pass(seconds(300));
    assert!(!world.open(), "it stays closed");

    world.order(OrderKind::Retire, 2);
    assert_eq!((world.last_outcome(), world.saved.standing), (&Outcome::Done, Standing::Retired));
    let retired = world.now;
    world.pass(seconds(90));
    assert_eq!(world.powered_off(), Some((retired + seconds(60), PowerOff::Retired)));
    world.order(OrderKind::Undrain, 3);
    assert_eq!(world.last_outcome(), &Outcome::RefusedStale);
    assert!(!world.open());
}

#[test]
fn a_busy_agent_refuses_and_keeps_its_gate() {
    let mut world = World::working();
    world.busy();
    world.order(OrderKind::Drain, 1);
    world.close();
    assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t".to_owned())));
    assert_eq!((world.machine.standing(), world.open()), (Standing::Open, true));
    world.order(OrderKind::Retire, 2);
    assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t".to_owned())));
}

#[test]
fn what_cannot_be_told_is_refused() {
    for reading in [Reading::Unknown { since: seconds(900) }, Reading::Polling { since: seconds(900) }] {
        let mut world = World::working();
        world.set(reading);
        world.order(OrderKind::Drain, 1);
        world.close();
        assert_eq!((world.last_outcome(), world.open()), (&Outcome::RefusedUnsure, true));
    }
    let mut world = World::working();
    world.order(OrderKind::Drain, 1);
    world.closing = false;
    world.lease = Duration::ZERO;
    world.tell(Event::NotClosed);
    assert_eq!((world.last_outcome(), world.open()), (&Outcome::RefusedUnsure, true));
    world.order(OrderKind::Retire, 2);
    assert_eq!(world.last_outcome(), &Outcome::RefusedUnsure, "never without a drain before it");
}

#[test]
fn an_ungated_agent_is_never_called_drained() {
    let mut world = World::working();
    world.agents[0].ungated = true;
    world.look();
    world.order(OrderKind::Drain, 1);
    world.close();
    assert_eq!((world.last_outcome(), world.open()), (&Outcome::RefusedUnsure, true));
}

#[test]
fn several_agents_are_drained_together_or_not_at_all() {
    let mut world = World::working();
    let free = world.agents[0].clone();
    let busy = Reading::Busy { task: Some("t2".to_owned()), since: world.now };
    world.agents = vec![free.clone(), Agent { reading: busy, ..free }, Agent::ABSENT];
    world.look();
    world.order(OrderKind::Drain, 1);
    world.close();
    assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t2".to_owned())));
    assert!(world.open());
    world.agents[1] = world.agents[0].clone();
    world.look();
    world.order(OrderKind::Drain, 2);
    world.close();
    assert_eq!((world.last_outcome(), world.open()), (&Outcome::Done, false));
}

#[test]
fn demand_that_came_back_opens_the_gate_again() {
    let mut world = World::working();
    world.order(OrderKind::Drain, 1);
    world.close();
    world.order(OrderKind::Undrain, 2);
    assert_eq!((world.last_outcome(), world.open()), (&Outcome::Done, true));
    world.order(OrderKind::Retire, 3);
    assert_eq!(world.last_outcome(), &Outcome::RefusedUnsure);
}

#[test]
fn older_orders_are_refused_and_the_same_one_is_answered_alike() {
    let mut world = World::working();
    world.busy();
    world.order(OrderKind::Drain, 5);
    world.close();
    let refusal = world.last_outcome().clone();
    world.idle();
    world.order(OrderKind::Drain, 4);
    assert_eq!(world.last_outcome(), &Outcome::RefusedStale);
    world.order(OrderKind::Undrain, 5);
    assert_eq!(world.last_outcome(), &Outcome::RefusedStale, "the number was another order's");
    world.order(OrderKind::Drain, 5);
    assert_eq!(world.last_outcome(), &refusal, "the answer of then, not of now");
    assert!(!world.closing);

    world.attach(2);
    world.order(OrderKind::Drain, 6);
    assert_eq!(world.last_outcome(), &Outcome::RefusedStale, "a new run of the controller has begun");
}

#[test]
fn an_undrain_overtakes_a_drain_that_waits_for_the_lock() {
    let mut world = World::working();
    world.order(OrderKind::Drain, 1);
    world.order(OrderKind::Drain, 1);
    world.order(OrderKind::Undrain, 2);
    let outcomes: Vec<_> = world.answers().iter().map(|answer| answer.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::RefusedStale, Outcome::Done]);
    assert!(!world.closing && world.open());
}

#[test]
fn a_retirement_that_cannot_be_written_down_is_none() {
    let mut world = World::working();
    world.order(OrderKind::Drain, 1);
    world.close();
    world.disk_full = true;
    world.order(OrderKind::Retire, 2);
    assert_eq!(
        (world.last_outcome(), world.machine.standing()),
        (&Outcome::RefusedUnsure, Standing::Drained)
    );
    world.disk_full = false;
    world.order(OrderKind::Retire, 3);
    assert_eq!((world.last_outcome(), world.machine.standing()), (&Outcome::Done, Standing::Retired));
}

#[test]
fn standing_survives_a_restart_of_the_sidecar() {
    let mut world = World::working();
    world.order(OrderKind::Drain, 1);
    world.close();
    let mut restarted = World::with(world.saved.clone());
    restarted.idle();
    restarted.attach(1);
    restarted.pass(seconds(60));
    assert!(!restarted.open());
    restarted.order(OrderKind::Retire, 2);
    assert_eq!(restarted.last_outcome(), &Outcome::Done);

    let mut restarted = World::with(restarted.saved.clone());
    let began = restarted.now;
    restarted.pass(seconds(100));
    assert_eq!(restarted.powered_off(), Some((began + seconds(60), PowerOff::Retired)));
}

#[test]
fn under_a_silent_controller_a_task_is_finished_and_then_the_machine_ends() {
    let mut world = World::working();
    world.busy();
    world.tell(Event::Detached);
    world.pass(LIMIT * 3);
    assert_eq!((world.open(), world.powered_off()), (false, None), "its task goes on, and it takes no other");
    world.idle();
    let idle = world.now;
    world.pass(seconds(40));
    assert!(!world.open(), "no more work");
    assert_eq!(world.powered_off(), None);
    world.pass(LIMIT + seconds(60));
    assert_eq!(world.powered_off(), Some((idle + LIMIT + seconds(60), PowerOff::Silent)));
    assert_eq!(world.saved.standing, Standing::Retired);
}

#[test]
fn a_task_that_came_at_the_last_moment_keeps_the_machine() {
    let mut world = World::working();
    world.tell(Event::Detached);
    world.now += LIMIT + seconds(61);
    world.tell(Event::Tick);
    assert!(world.closing);
    world.agents[0].reading = Reading::Busy { task: None, since: world.now };
    world.close();
    assert_eq!((world.machine.standing(), world.powered_off()), (Standing::Open, None));
    world.look();
    world.pass(LIMIT * 5);
    assert_eq!(world.powered_off(), None);
}

#[test]
fn a_retirement_does_not_come_over_a_task() {
    // Saved as drained, and opened since: the sidecar died before that was written.
    let mut world = World::with(Saved { standing: Standing::Drained, ..Saved::default() });
    world.attach(1);
    world.busy();
    world.order(OrderKind::Retire, 2);
    assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t".to_owned())));
    world.pass(seconds(100));
    assert_eq!(world.powered_off(), None);
}

#[test]
fn a_controller_that_is_back_in_time_finds_the_idle_clock_running() {
    let mut world = World::working();
    let idle = world.now;
    world.pass(LIMIT - seconds(10));
    world.tell(Event::Detached);
    world.pass(seconds(30));
    assert_eq!(world.powered_off(), None, "the limit alone is not enough");
    world.attach(2);
    assert_eq!(world.machine.report(world.now).agents[0].lasted, world.now - idle);
    world.pass(LIMIT * 2);
    assert_eq!(world.powered_off(), None, "what becomes of it is the controller's to say");
}

#[test]
fn a_failed_poll_is_waited_for_longer_but_not_for_ever() {
    let mut world = World::working();
    world.tell(Event::Detached);
    let since = world.now;
    world.set(Reading::Unknown { since });
    world.pass(LIMIT + seconds(8 * 60));
    assert_eq!(world.powered_off(), None);
    world.pass(seconds(70));
    let end = since + LIMIT + seconds(9 * 60);
    assert_eq!(world.powered_off(), Some((end, PowerOff::Silent)));
}

#[test]
fn a_boot_that_hangs_under_a_silent_controller_is_ended() {
    let mut world = World::new();
    world.attach(1);
    world.tell(Event::Boot(Boot::Running("apt".to_owned())));
    world.pass(seconds(7200));
    assert_eq!(world.powered_off(), None, "its limit is the controller's while that is there");
    world.tell(Event::Detached);
    world.pass(seconds(1800 + 59));
    assert_eq!(world.powered_off(), None);
    world.pass(seconds(2));
    assert!(matches!(world.powered_off(), Some((_, PowerOff::Silent))));
}

#[test]
fn the_shutdown_armed_at_boot_is_cancelled_once_there_is_a_script() {
    let mut world = World::new();
    let disarmed =
        |world: &World| world.effects.iter().filter(|(_, effect)| *effect == Effect::Disarm).count();
    world.attach(1);
    assert_eq!(disarmed(&world), 0);
    world.tell(Event::Boot(Boot::Running("script".to_owned())));
    assert_eq!((disarmed(&world), world.saved.disarmed), (1, true));
    world.attach(1);
    assert_eq!(disarmed(&world), 1);
}

#[test]
fn a_failed_boot_stays_to_tell_and_then_ends() {
    let mut world = World::new();
    world.attach(1);
    world.tell(Event::Boot(Boot::Failed("apt".to_owned())));
    let failed = world.now;
    assert_eq!(world.machine.report(world.now).boot.phase(), "failed");
    world.pass(seconds(70));
    assert_eq!(world.powered_off(), Some((failed + seconds(60), PowerOff::BootFailed)));
}

#[test]
fn an_agent_that_ended_ends_its_machine() {
    let mut world = World::working();
    world.busy();
    let reports = world.reports();
    world.agents[0].alive = false;
    world.look();
    assert_eq!(world.reports(), reports + 1, "told at once");
    let ended = world.now;
    world.pass(seconds(9));
    assert_eq!(world.powered_off(), None);
    world.pass(seconds(20));
    assert_eq!(world.powered_off(), Some((ended + seconds(10), PowerOff::AgentEnded)));
    let times = world.effects.iter().filter(|(_, effect)| matches!(effect, Effect::PowerOff(_))).count();
    assert_eq!(times, 2, "said again after a while");
}

#[test]
fn an_agent_that_was_started_anew_in_time_goes_on() {
    let mut world = World::working();
    world.agents[0].alive = false;
    world.look();
    world.pass(seconds(5));
    world.idle();
    world.pass(seconds(100));
    assert_eq!(world.powered_off(), None);
}

#[test]
fn changes_are_reported_at_once_and_silence_every_five_seconds() {
    let mut world = World::working();
    world.pass(seconds(2));
    let reports = world.reports();
    world.pass(seconds(50));
    assert_eq!(world.reports(), reports + 10);
    world.busy();
    assert_eq!(world.reports(), reports + 11);
    world.look();
    assert_eq!(world.reports(), reports + 11, "nothing new");
}

#[test]
fn a_poll_shows_only_if_it_lasts() {
    let mut world = World::working();
    let idle = Reading::Idle { since: world.now };
    let polling = Reading::Polling { since: world.now };
    world.pass(seconds(1));
    let reports = world.reports();
    world.set(polling.clone());
    world.pass(Duration::from_millis(40));
    world.set(idle);
    world.pass(Duration::from_millis(400));
    assert_eq!(world.reports(), reports);
    world.set(polling.clone());
    world.pass(Duration::from_millis(200));
    assert_eq!(world.reports(), reports + 1);
    assert_eq!(world.machine.report(world.now).agents[0].agent.reading, polling);
}

#[test]
fn told_to_finish_a_busy_agent_ends_its_task_and_takes_no_other() {
    let mut world = World::working();
    world.busy();
    let order = world.order(OrderKind::Finish, 1);
    world.close();
    assert_eq!(world.answers(), [&Answer { order, outcome: Outcome::Done }]);
    assert_eq!((world.machine.standing(), world.open()), (Standing::Finishing, false));
    assert_eq!(world.saved.standing, Standing::Finishing, "a restart of the sidecar opens nothing");
    world.pass(seconds(3600));
    assert!(!world.open() && world.powered_off().is_none(), "the task goes on");
    world.idle();
    world.close();
    assert_eq!((world.machine.standing(), world.open()), (Standing::Drained, false));
    world.order(OrderKind::Retire, 2);
    assert_eq!(world.last_outcome(), &Outcome::Done);
}

#[test]
fn told_to_finish_an_idle_agent_is_drained_at_once() {
    let mut world = World::working();
    world.order(OrderKind::Finish, 1);
    world.close();
    assert_eq!((world.last_outcome(), world.machine.standing()), (&Outcome::Done, Standing::Drained));
}

#[test]
fn what_finishes_opens_again_if_it_is_told_to_and_is_not_retired_before() {
    let mut world = World::working();
    world.busy();
    world.order(OrderKind::Finish, 1);
    world.close();
    world.order(OrderKind::Retire, 2);
    assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t".to_owned())));
    assert_eq!(world.machine.standing(), Standing::Finishing);
    world.order(OrderKind::Undrain, 3);
    assert_eq!((world.machine.standing(), world.open()), (Standing::Open, true));
    world.idle();
    assert!(!world.closing, "nobody wants it closed any more");
}

#[test]
fn nobody_finishes_behind_a_gate_that_does_not_bind() {
    let busy = Reading::Busy { task: Some("t".to_owned()), since: seconds(900) };
    let bound = Agent { reading: busy, alive: true, ungated: false };
    let unsettled = Agent { reading: Reading::Unknown { since: seconds(900) }, ..bound };
    for agents in [vec![Agent { ungated: true, ..bound.clone() }], vec![bound, unsettled]] {
        let mut world = World::working();
        world.agents = agents;
        world.look();
        world.order(OrderKind::Finish, 1);
        world.close();
        assert_eq!(world.last_outcome(), &Outcome::RefusedBusy(Some("t".to_owned())));
        assert_eq!((world.machine.standing(), world.open()), (Standing::Open, true));
    }
}

#[test]
fn a_spot_notice_shuts_the_gate_at_once_and_an_undrain_does_not_open_it() {
    let mut world = World::working();
    world.pass(seconds(20));
    assert!(world.open());
    world.tell(Event::Notice(world.now + seconds(120)));
    assert!(!world.open(), "at once, not when its lease ends");
    assert_eq!(world.machine.report(world.now).notice, Some((seconds(120), false)));
    world.order(OrderKind::Undrain, 1);
    world.pass(seconds(60));
    assert!(!world.open());
}

#[test]
fn what_a_noticed_machine_runs_is_killed_25_s_before_its_end_and_an_idle_one_is_left() {
    let kills = |world: &World| world.effects.iter().filter(|(_, effect)| *effect == Effect::Kill).count();
    let mut world = World::working();
    world.busy();
    world.tell(Event::Notice(world.now + seconds(120)));
    world.pass(seconds(94));
    assert_eq!(kills(&world), 0);
    world.pass(seconds(2));
    assert_eq!(kills(&world), 1);
    assert!(matches!(world.machine.report(world.now).notice, Some((_, true))));
    let mut world = World::working();
    world.tell(Event::Notice(world.now + seconds(120)));
    world.pass(seconds(119));
    assert_eq!(kills(&world), 0);
}

#[test]
fn a_machine_that_aws_does_not_take_ends_itself() {
    let mut world = World::working();
    world.tell(Event::Notice(world.now + seconds(120)));
    let began = world.now;
    world.pass(seconds(200));
    let off = world.effects.iter().find(|(_, effect)| matches!(effect, Effect::PowerOff(_)));
    let (at, effect) = off.expect("it ends itself");
    assert_eq!(*effect, Effect::PowerOff(PowerOff::Interrupted));
    assert_eq!(*at - began, seconds(180));
}
