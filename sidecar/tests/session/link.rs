//! The link against a controller that the test plays.

use crate::controller::{Controller, LIMIT};
use proto::v1::to_sidecar::Body;
use proto::v1::{Hello, Order, Welcome};
use sidecar::link::{Dialer, Incoming, LinkError, Pin, Target, keep};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status};

fn hello() -> Hello {
    Hello { protocol_version: sidecar::PROTOCOL_VERSION, instance_id: "i-1".to_owned(), ..Hello::default() }
}

#[tokio::test]
async fn another_key_than_the_pinned_one_gets_no_hello() {
    let controller = Controller::start().await;
    let target = Target::parse(&format!("https://{}", controller.address), Pin::new([7; 32])).unwrap();
    let error = Dialer::new(target).unwrap().connect(hello()).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn older_tls_is_not_spoken() {
    let controller = Controller::start_old().await;
    let error = Dialer::new(controller.target()).unwrap().connect(hello()).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn a_refusal_comes_through_with_its_code() {
    let mut controller = Controller::start().await;
    let dialer = Dialer::new(controller.target()).unwrap();
    let dial = tokio::spawn(async move { dialer.connect(hello()).await });
    controller.session().await.refuse(Status::permission_denied("not ours")).await;
    match dial.await.unwrap().unwrap_err() {
        LinkError::Refused(status) => assert_eq!(status.code(), Code::PermissionDenied),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_that_ends_is_followed_by_another() {
    let mut controller = Controller::start().await;
    let (ours, mut incoming) = mpsc::channel(4);
    let link = tokio::spawn(keep(Dialer::new(controller.target()).unwrap(), hello, ours));
    for round in 0..2 {
        let session = controller.session().await;
        session.say(Body::Welcome(Welcome { epoch: 7, ..Welcome::default() })).await;
        session.say(Body::Order(Order { generation: round, ..Order::default() })).await;
        let welcomed = timeout(LIMIT, incoming.recv()).await.unwrap();
        assert!(matches!(&welcomed, Some(Incoming::Attached { welcome, .. }) if welcome.epoch == 7));
        let order = timeout(LIMIT, incoming.recv()).await.unwrap();
        assert!(matches!(order, Some(Incoming::Order(order)) if order.generation == round));
        drop(session);
        if round == 0 {
            controller = controller.restart().await;
        }
        let end = timeout(LIMIT, incoming.recv()).await.unwrap();
        assert!(matches!(end, Some(Incoming::Detached)));
    }
    link.abort();
}
