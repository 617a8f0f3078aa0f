//! Logging in, and staying logged in.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Mutex;
use std::time::Duration;

use clearml::{Credentials, Error};
use common::{Reply, Server, keys, token};
use serde_json::json;

fn no_queues() -> Reply {
    Reply::Data(json!({"queues": []}))
}

#[tokio::test]
async fn keys_are_shown_once_and_the_token_ever_after() {
    let server = Server::start(|_| no_queues()).await;
    let client = server.client();
    client.queues().await.unwrap();
    client.queues().await.unwrap();
    let seen = server.seen();
    let order: Vec<_> = seen.iter().map(|seen| seen.endpoint.as_str()).collect();
    assert_eq!(order, ["auth.login", "queues.get_all", "queues.get_all"]);
    assert_eq!(seen[0].authorization, "Basic QUNDRVNTOlNFQ1JFVA==");
    assert_eq!(seen[1].authorization, format!("Bearer {}", token(1, 2_592_000)));
    assert_eq!(seen[1].content_type, "application/json");
}

#[tokio::test]
async fn the_token_tells_about_the_server() {
    let server = Server::start(|_| no_queues()).await;
    let info = server.client().login().await.unwrap();
    assert_eq!(info.server_version.as_deref(), Some("2.3.0"));
    assert_eq!(info.api_version.as_deref(), Some("2.34"));
    assert_eq!(info.feature_set.as_deref(), Some("basic"));
    assert_eq!(info.company.as_deref(), Some("d1bd92a3"));
    assert_eq!(info.user.as_deref(), Some("__real_user__"));
}

#[tokio::test]
async fn many_calls_at_once_share_one_login() {
    let server = Server::start(|_| no_queues()).await;
    let client = server.client();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.queues().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.calls("auth.login"), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_and_the_call_repeated() {
    let revoked = format!("Bearer {}", token(1, 2_592_000));
    let server = Server::start(move |seen| match seen.authorization == revoked {
        true => Reply::Fault(401, 30, "Invalid token (invalid jwt token)"),
        false => Reply::Data(json!({"entry": {"task": "t1", "added": "2026-11-23T18:51:25+00:00"}})),
    })
    .await;
    let client = server.client();
    // Even a pop: a server that refuses the token has done nothing.
    let entry = client.next_task("q").await.unwrap().unwrap();
    assert_eq!(entry.task, "t1");
    assert_eq!((server.calls("auth.login"), server.calls("queues.get_next_task")), (2, 2));
    client.next_task("q").await.unwrap();
    assert_eq!(server.calls("auth.login"), 2);
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_too_is_the_operators_business() {
    let server = Server::start(|_| Reply::Fault(401, 30, "Invalid token")).await;
    let error = server.client().queues().await.unwrap_err();
    assert_eq!(error.to_string(), "clearml queues.get_all: unauthorized (401/30): Invalid token");
    assert_eq!((server.calls("auth.login"), server.calls("queues.get_all")), (2, 2));
}

#[tokio::test]
async fn keys_that_are_refused_are_not_tried_again() {
    let server = Server::bare(|_| Reply::Fault(401, 22, "Unauthorized (invalid credentials)")).await;
    let error = server.client().queues().await.unwrap_err();
    assert!(
        matches!(error, Error::Unauthorized { endpoint: "auth.login", code: 401, subcode: 22, .. }),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_given_token_is_traded_for_a_fresh_one() {
    let server = Server::start(|_| no_queues()).await;
    server.client_with(Credentials::Token("GIVEN".into())).queues().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].authorization, "Bearer GIVEN");
    assert_eq!(seen[1].authorization, format!("Bearer {}", token(1, 2_592_000)));
}

#[tokio::test]
async fn a_token_is_renewed_in_time_and_serves_on_while_that_fails() {
    let logins = Mutex::new(0);
    let server = Server::bare(move |seen| {
        if seen.endpoint != "auth.login" {
            return no_queues();
        }
        let mut logins = logins.lock().unwrap();
        *logins += 1;
        match *logins {
            2 => Reply::Fault(500, 0, "out of order"),
            number => Reply::Data(json!({"token": token(number, 3600)})),
        }
    })
    .await;
    let client = server.client_with(Credentials::Token("GIVEN".into()));
    let later = async |minutes: u64| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
        tokio::time::resume();
        client.queues().await.unwrap();
        server.last("queues.get_all").authorization
    };
    assert_eq!(later(0).await, format!("Bearer {}", token(1, 3600)));
    assert_eq!((later(29).await, server.calls("auth.login")), (format!("Bearer {}", token(1, 3600)), 1));
    assert_eq!((later(2).await, server.calls("auth.login")), (format!("Bearer {}", token(1, 3600)), 2));
    assert_eq!((later(2).await, server.calls("auth.login")), (format!("Bearer {}", token(3, 3600)), 3));
    assert_eq!(server.last("auth.login").authorization, format!("Bearer {}", token(1, 3600)));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let server = Server::start(|_| Reply::Fault(400, 12, "Validation error")).await;
    let client = server.client();
    let error = client.queues().await.unwrap_err();
    let shown =
        format!("{client:?} {error:?} {error} {:?} {:?}", keys(), Credentials::Token("SECRET".into()));
    for secret in ["SECRET", "ACCESS", "QUND", &token(1, 2_592_000)[4..]] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
