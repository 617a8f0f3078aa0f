//! Sessions as they should go.

use engine::ports::{Gate, Standing};
use futures_util::FutureExt as _;
use planner::{Answer, Order, OrderKind};

use super::*;

const DRAIN: Order = Order { epoch: 5, generation: 1, kind: OrderKind::Drain };

#[tokio::test]
async fn a_first_attach_trades_the_launch_secret_for_a_token_and_gets_the_boot_script() {
    let world = World::new();
    let peer = world.call(first()).await.unwrap();
    let v1::Welcome { instance_token, boot_script, silent_idle_limit_ms, epoch } = peer.welcome.clone();
    assert_eq!((instance_token.len(), silent_idle_limit_ms, epoch), (32, 900_000, 5));
    assert_eq!(boot_script.unwrap().script, "echo i-0001 in-7");
    assert!(world.session(ME).is_none(), "nothing is known before the first report");

    peer.report(idle(30_000)).await;
    let session = world.until(ME, |session| session.connected).await;
    assert_eq!((session.gate, session.gate_since), (Gate::Idle, Time(970_000)));
    assert_eq!(world.gateway.sessions().detail(&ME.into()).unwrap().boot_id, "boot-1");
}

#[tokio::test]
async fn the_token_is_good_for_ever_and_across_a_restart_of_the_controller() {
    let world = World::new();
    let peer = world.call(first()).await.unwrap();
    let token = peer.welcome.instance_token;
    let world = world.restart().await;
    let peer = world.call(with_token(&token)).await.unwrap();
    assert!(peer.welcome.instance_token.is_empty());
    assert!(peer.welcome.boot_script.is_none());
    let rebooted = v1::Hello { boot_id: "boot-2".into(), ..with_token(&token) };
    world.call(rebooted).await.unwrap();
}

#[tokio::test]
async fn the_sidecars_own_link_attaches_to_the_pinned_key_and_no_other() {
    let world = World::new();
    let dial = |pin: &str| {
        let pin = sidecar::link::Pin::parse(pin).unwrap();
        let target = sidecar::link::Target::parse(&format!("https://{}", world.address()), pin).unwrap();
        sidecar::link::Dialer::new(target).unwrap()
    };
    let session = dial(world.gateway.pin()).connect(first()).await.unwrap();
    assert_eq!(session.welcome.boot_script.unwrap().files[0].content.len(), 1 << 20);
    let other = Identity::generate().unwrap();
    assert!(dial(other.pin()).connect(first()).await.is_err());
}

#[tokio::test]
async fn the_journal_keeps_the_key_across_restarts() {
    let store = crate::journal::Store::in_memory(Time(1));
    let pin = Identity::of(&store).await.unwrap().pin().to_owned();
    assert_eq!(Identity::of(&store).await.unwrap().pin(), pin);
}

#[tokio::test]
async fn a_lost_welcome_can_be_asked_for_again_until_the_token_is_used() {
    let world = World::new();
    let lost = world.call(first()).await.unwrap().welcome.instance_token;
    let peer = world.call(first()).await.unwrap();
    assert_ne!(lost, peer.welcome.instance_token);
    assert_eq!(refusal(world.call(with_token(&lost)).await), tonic::Code::Unauthenticated);

    peer.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;
    assert_eq!(refusal(world.call(first()).await), tonic::Code::Unauthenticated);

    let kept = async {
        while !world.vault.token(&ME.into()).await.unwrap().unwrap().used {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, kept).await.unwrap();
    let world = world.restart().await;
    assert_eq!(refusal(world.call(first()).await), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn an_attach_waits_for_an_admission_that_is_on_its_way() {
    let world = World::with(Limits { admission: PATIENCE, ..quick() });
    world.admit(&[]);
    let (called, ()) = tokio::join!(world.call(first()), async {
        tokio::task::yield_now().await;
        world.admit(&[(ME, INTENT)]);
    });
    called.unwrap();
}

#[tokio::test]
async fn an_order_reaches_the_sidecar_and_its_answer_the_loop() {
    let world = World::new();
    let sessions = world.gateway.sessions();
    assert!(!sessions.send(&ME.into(), DRAIN), "nobody is there yet");
    let mut peer = world.call(first()).await.unwrap();
    peer.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;

    assert!(sessions.send(&ME.into(), DRAIN));
    let Some(to_sidecar::Body::Order(order)) = peer.hear().await.unwrap() else { panic!("no order") };
    assert_eq!((order.kind(), order.epoch, order.generation), (v1::OrderKind::Drain, 5, 1));
    assert_eq!(world.session(ME).unwrap().last_answer, Some((DRAIN, Answer::Awaited)));

    let mut answer = v1::OrderAnswer {
        kind: v1::OrderKind::Drain.into(),
        epoch: 4,
        generation: 1,
        outcome: v1::Outcome::Done.into(),
        task_id: String::new(),
    };
    peer.say(from_sidecar::Body::Answer(answer.clone())).await;
    answer.epoch = 5;
    answer.outcome = v1::Outcome::RefusedBusy.into();
    answer.task_id = "t1".into();
    peer.say(from_sidecar::Body::Answer(answer)).await;
    let refused = Some((DRAIN, Answer::RefusedBusy(Some("t1".into()))));
    world.until(ME, |session| session.last_answer == refused).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_shows_in_the_first_report_of_the_next_stream() {
    let world = World::new();
    let peer = world.call(first()).await.unwrap();
    let token = peer.welcome.instance_token.clone();
    peer.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;
    assert!(world.gateway.sessions().send(&ME.into(), DRAIN));
    drop(peer);
    let lost = world.until(ME, |session| !session.connected).await;
    assert_eq!(lost.last_answer, Some((DRAIN, Answer::Awaited)));
    assert!(!world.gateway.sessions().send(&ME.into(), DRAIN));

    let peer = world.call(with_token(&token)).await.unwrap();
    let drained =
        v1::Report { standing: v1::Standing::Drained.into(), epoch: 5, generation: 1, ..idle(1_000) };
    peer.report(drained).await;
    let back = world.until(ME, |session| session.connected).await;
    assert_eq!((back.standing, back.last_answer), (Standing::Drained, Some((DRAIN, Answer::Done))));
}

#[tokio::test]
async fn a_reconnect_replaces_the_older_stream_without_a_gap() {
    let world = World::new();
    let mut older = world.call(first()).await.unwrap();
    older.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;
    let newer = world.call(with_token(&older.welcome.instance_token)).await.unwrap();
    assert_eq!(older.hear().await.unwrap(), None, "the older one ends");
    assert!(world.session(ME).unwrap().connected);
    newer.report(busy("t2")).await;
    world.until(ME, |session| session.gate == Gate::Busy(Some("t2".into()))).await;
    assert_eq!(world.gateway.sessions().live(), 1);
    drop(newer);
    world.until(ME, |session| !session.connected).await;
    assert_eq!(world.gateway.sessions().live(), 0);
}

#[tokio::test]
async fn a_heartbeat_is_taken_in_and_wakes_nobody() {
    let world = World::new();
    let sessions = world.gateway.sessions();
    let peer = world.call(first()).await.unwrap();
    peer.report(idle(0)).await;
    world.until(ME, |session| session.connected).await;
    while sessions.changed().now_or_never().is_some() {}

    world.pass(Duration::from_secs(5));
    peer.report(idle(5_000)).await;
    let taken_in = async {
        while world.session(ME).unwrap().last_seen != world.clock.now() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken_in).await.unwrap();
    assert!(sessions.changed().now_or_never().is_none());
}

#[tokio::test]
async fn a_silent_session_is_lost_and_remembered() {
    let world = World::new();
    let mut peer = world.call(first()).await.unwrap();
    peer.report(busy("t1")).await;
    world.until(ME, |session| session.connected).await;
    world.pass(Duration::from_secs(21));
    let lost = world.until(ME, |session| !session.connected).await;
    assert_eq!((lost.gate, lost.last_seen), (Gate::Busy(Some("t1".into())), Time(1_021_000)));
    assert_eq!(peer.hear().await.unwrap(), None);
    assert!(world.session("i-0002").is_none(), "who never attached is not lost");
}

#[tokio::test]
async fn a_failed_boot_phase_is_kept_for_status() {
    let world = World::new();
    let peer = world.call(first()).await.unwrap();
    peer.report(agent(v1::GateState::Absent, 0, "")).await;
    let log_tail = format!("{}the last line\x1b[2J", "ü".repeat(8_000));
    peer.say(from_sidecar::Body::BootLog(v1::BootLog { phase: "agent".into(), failed: true, log_tail }))
        .await;
    let sessions = world.gateway.sessions();
    let kept = async {
        loop {
            if let Some(tail) = sessions.detail(&ME.into()).and_then(|detail| detail.boot_failure) {
                return tail;
            }
            sessions.changed().await;
        }
    };
    let tail = timeout(PATIENCE, kept).await.unwrap();
    let log = tail.strip_prefix("phase agent failed: ").unwrap();
    assert!(log.ends_with("the last line[2J") && log.len() <= 8 * 1024);
}

fn refusal(called: Result<Peer, Status>) -> tonic::Code {
    called.map(|_| ()).unwrap_err().code()
}
