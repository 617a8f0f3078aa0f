//! A simulated sidecar: the sidecar's own link, and an agent that is as it is told.

use std::time::Duration;

use anyhow::Context as _;
use proto::v1::{self, from_sidecar, hello::Credential, to_sidecar};
use sidecar::link::{Dialer, Pin, Session, Target};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

const HEARTBEAT: Duration = Duration::from_secs(5);
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(2);

/// What the agent does, and since when.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Idle { since: Instant },
    Busy { task: String, since: Instant },
}

/// Who attaches, and by what right.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) instance: String,
    pub(crate) intent: String,
    pub(crate) secret: Vec<u8>,
}

pub(crate) fn dialer(url: &str, pin: &str) -> anyhow::Result<Dialer> {
    let pin = Pin::parse(pin).context("read the pin")?;
    let target = Target::parse(url, pin).context("read the controller's address")?;
    Ok(Dialer::new(target)?)
}

/// Attaches; from then on the peer reports and obeys until the stream ends or `changes` is dropped.
pub(crate) async fn attach(
    dialer: &Dialer,
    birth: Birth,
    doing: Doing,
    changes: mpsc::Receiver<Doing>,
) -> anyhow::Result<()> {
    let Birth { instance, intent, secret } = birth;
    let hello = v1::Hello {
        protocol_version: sidecar::PROTOCOL_VERSION,
        sidecar_version: sidecar::VERSION.to_owned(),
        boot_id: format!("boot-of-{instance}"),
        credential: Some(Credential::LaunchSecret(secret)),
        intent_id: intent,
        wants_boot_script: false,
        instance_id: instance.clone(),
    };
    let mut tries = 1;
    let session = loop {
        match dialer.connect(hello.clone()).await {
            Ok(session) => break session,
            // As a sidecar does: the machine may be busy with all the others.
            Err(error) if tries < TRIES => eprintln!("{instance}, try {tries}: {error}"),
            Err(error) => return Err(error.into()),
        }
        tries += 1;
        sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
    };
    let mut peer = Peer {
        worker: format!("bench:resource:g4dn.xlarge:{instance}"),
        doing,
        standing: v1::Standing::Open,
        epoch: session.welcome.epoch,
        generation: 0,
        sequence: 0,
    };
    session.sender.send(peer.report()).await.context("report")?;
    tokio::spawn(live(session, peer, changes));
    Ok(())
}

async fn live(session: Session, mut peer: Peer, mut changes: mpsc::Receiver<Doing>) {
    let Session { welcome: _, sender, mut receiver } = session;
    // Thousands that attached in one second do not beat in one second.
    let first = Instant::now() + HEARTBEAT.mul_f64(rand::random());
    let mut heartbeat = interval_at(first, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let answer = tokio::select! {
            _ = heartbeat.tick() => None,
            change = changes.recv() => match change {
                Some(doing) => {
                    peer.doing = doing;
                    None
                }
                None => return,
            },
            message = receiver.message() => match message {
                Ok(Some(v1::ToSidecar { body: Some(to_sidecar::Body::Order(order)) })) => {
                    Some(peer.obey(&order))
                }
                Ok(Some(_)) => None,
                Ok(None) | Err(_) => return,
            },
        };
        if let Some(answer) = answer
            && sender.send(answer).await.is_err()
        {
            return;
        }
        if sender.send(peer.report()).await.is_err() {
            return;
        }
    }
}

struct Peer {
    worker: String,
    doing: Doing,
    standing: v1::Standing,
    epoch: u64,
    generation: u64,
    sequence: u64,
}

impl Peer {
    fn report(&mut self) -> v1::FromSidecar {
        self.sequence += 1;
        let (gate, task_id, since) = match &self.doing {
            Doing::Idle { since } => (v1::GateState::Idle, String::new(), since),
            Doing::Busy { task, since } => (v1::GateState::Busy, task.clone(), since),
        };
        let agent = v1::Agent {
            worker_id: self.worker.clone(),
            gate: gate.into(),
            task_id,
            for_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            alive: true,
            ungated: false,
        };
        let report = v1::Report {
            sequence: self.sequence,
            boot_phase: "ready".to_owned(),
            agents: vec![agent],
            standing: self.standing.into(),
            epoch: self.epoch,
            generation: self.generation,
            gpus: vec![v1::Gpu {
                index: 0,
                name: "Tesla T4".to_owned(),
                utilisation_percent: 93,
                memory_used_bytes: 11 << 30,
                memory_total_bytes: 15 << 30,
            }],
            free_disk_bytes: 61 << 30,
            notice: None,
            at_work: None,
        };
        v1::FromSidecar { body: Some(from_sidecar::Body::Report(report)) }
    }

    fn obey(&mut self, order: &v1::Order) -> v1::FromSidecar {
        self.epoch = order.epoch;
        self.generation = order.generation;
        let (standing, outcome, task_id) = match (order.kind(), &self.doing) {
            (v1::OrderKind::Drain | v1::OrderKind::Retire, Doing::Busy { task, .. }) => {
                (self.standing, v1::Outcome::RefusedBusy, task.clone())
            }
            (v1::OrderKind::Finish, Doing::Busy { .. }) => {
                (v1::Standing::Finishing, v1::Outcome::Done, String::new())
            }
            (v1::OrderKind::Drain | v1::OrderKind::Finish, Doing::Idle { .. }) => {
                (v1::Standing::Drained, v1::Outcome::Done, String::new())
            }
            (v1::OrderKind::Retire, Doing::Idle { .. }) => {
                (v1::Standing::Retired, v1::Outcome::Done, String::new())
            }
            (v1::OrderKind::Undrain, _) => (v1::Standing::Open, v1::Outcome::Done, String::new()),
            (v1::OrderKind::Unspecified, _) => (self.standing, v1::Outcome::RefusedUnsure, String::new()),
        };
        self.standing = standing;
        let answer = v1::OrderAnswer {
            kind: order.kind,
            epoch: order.epoch,
            generation: order.generation,
            outcome: outcome.into(),
            task_id,
        };
        v1::FromSidecar { body: Some(from_sidecar::Body::Answer(answer)) }
    }
}
