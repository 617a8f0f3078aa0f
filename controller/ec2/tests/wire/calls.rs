//! Describe, terminate, console; and what errors mean.

use std::collections::BTreeSet;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ec2::{InstanceState, Market, Meaning, StateReason, meaning};

use crate::launch::spec;
use crate::server::{Server, client, ids, launched, page, refusal};

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn bare(id: &str) -> String {
    format!("<item><instanceId>{id}</instanceId><instanceState><name>running</name></instanceState></item>")
}

#[test]
fn every_code_that_matters_has_its_meaning() {
    let table = [
        ("InsufficientInstanceCapacity", Meaning::NoCapacity),
        ("Server.InsufficientInstanceCapacity", Meaning::NoCapacity),
        ("InsufficientHostCapacity", Meaning::NoCapacity),
        ("InsufficientReservedInstanceCapacity", Meaning::NoCapacity),
        ("Unsupported", Meaning::NoCapacity),
        ("MaxSpotInstanceCountExceeded", Meaning::NoCapacity),
        ("SpotMaxPriceTooLow", Meaning::NoCapacity),
        ("VcpuLimitExceeded", Meaning::NoCapacity),
        ("InstanceLimitExceeded", Meaning::NoCapacity),
        ("InsufficientFreeAddressesInSubnet", Meaning::NoCapacity),
        ("RequestLimitExceeded", Meaning::Throttled),
        ("EC2ThrottledException", Meaning::Throttled),
        ("InvalidInstanceID.NotFound", Meaning::Gone),
        ("IdempotentInstanceTerminated", Meaning::Gone),
        ("UnauthorizedOperation", Meaning::Denied),
        ("AuthFailure", Meaning::Denied),
        ("InvalidClientTokenId", Meaning::Denied),
        ("OptInRequired", Meaning::Denied),
        ("InvalidAMIID.NotFound", Meaning::Invalid),
        ("InvalidAMIID.Malformed", Meaning::Invalid),
        ("InvalidInstanceID.Malformed", Meaning::Invalid),
        ("IdempotentParameterMismatch", Meaning::Invalid),
        ("MissingParameter", Meaning::Invalid),
        ("UnsupportedOperation", Meaning::Invalid),
        ("InternalError", Meaning::Other),
        ("Unavailable", Meaning::Other),
        ("SomethingOfNextYear", Meaning::Other),
    ];
    for (code, expected) in table {
        assert_eq!(meaning(code), expected, "{code}");
    }
}

#[tokio::test]
async fn no_capacity_is_told_at_once_though_its_status_is_500() {
    let message = "We currently do not have sufficient g4dn.xlarge capacity in us-east-1b.";
    let server = Server::start(move |_| refusal(500, "InsufficientInstanceCapacity", message)).await;
    let error = server.client().await.run_instances(&spec()).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::NoCapacity);
    assert_eq!(
        error.to_string(),
        "run instances: InsufficientInstanceCapacity: we currently do not have sufficient g4dn.xlarge capacity in \
         us-east-1b."
    );
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_throttled_launch_is_tried_again_with_the_same_token() {
    let server = Server::start(|_| refusal(503, "RequestLimitExceeded", "Request limit exceeded.")).await;
    let error = server.client().await.run_instances(&spec()).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Throttled);
    let tokens: Vec<_> = server.calls().iter().map(|call| call["ClientToken"].clone()).collect();
    assert_eq!(tokens, ["t-1", "t-1", "t-1"]);
}

#[tokio::test]
async fn a_fault_of_the_server_is_outlived() {
    let first = Mutex::new(true);
    let server = Server::start(move |_| {
        if std::mem::take(&mut *first.lock().unwrap()) {
            refusal(500, "InternalError", "An internal error has occurred")
        } else {
            launched(&["i-0a", "i-0b"])
        }
    })
    .await;
    assert_eq!(server.client().await.run_instances(&spec()).await.unwrap(), ["i-0a", "i-0b"]);
}

#[tokio::test]
async fn a_denial_does_not_carry_the_encoded_details() {
    let message =
        "You are not authorized to perform this operation. Encoded authorization failure message: s3cr3t";
    let server = Server::start(move |_| refusal(403, "UnauthorizedOperation", message)).await;
    let error = server.client().await.run_instances(&spec()).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Denied);
    assert_eq!(
        error.to_string(),
        "run instances: UnauthorizedOperation: you are not authorized to perform this operation. (cloudtrail has \
         the encoded details)"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_leaves_it_open_what_happened() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&address).await.run_instances(&spec()).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Other);
    assert!(error.to_string().starts_with("run instances: ec2 could not be reached: "), "{error}");
    assert!(!format!("{error:?}").contains("hush-hush"));
}

#[tokio::test]
async fn an_answer_that_is_no_xml_leaves_it_open_what_happened() {
    let server = Server::start(|_| (200, "<html".to_owned())).await;
    let error = server.client().await.run_instances(&spec()).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Other);
}

#[tokio::test]
async fn describing_by_tag_reads_every_page() {
    let server = Server::start(|call| match call.get("NextToken").map(String::as_str) {
        None => page(&(bare("i-0a") + &bare("i-0b")), Some("two")),
        Some("two") => page("", Some("three")),
        Some(_) => page(&bare("i-0c"), None),
    })
    .await;
    let listed = server.client().await.describe_by_tag("clearml-autoscaler:fleet", "f1").await.unwrap();
    let found: Vec<_> = listed.iter().map(|instance| instance.id.as_str()).collect();
    assert_eq!(found, ["i-0a", "i-0b", "i-0c"]);
    let calls = server.calls();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(call["Filter.1.Name"], "tag:clearml-autoscaler:fleet");
        assert_eq!(call["Filter.1.Value.1"], "f1");
        assert_eq!(call["MaxResults"], "1000");
    }
}

#[tokio::test]
async fn a_failing_page_fails_the_whole_list() {
    let server = Server::start(|call| {
        if call.contains_key("NextToken") {
            refusal(400, "InvalidNextToken", "x")
        } else {
            page(&bare("i-0a"), Some("n"))
        }
    })
    .await;
    assert!(server.client().await.describe_by_tag("k", "v").await.is_err());
}

#[tokio::test]
async fn an_instance_is_told_in_full() {
    let item = "<item>\
        <instanceId>i-0a</instanceId><instanceType>g4dn.xlarge</instanceType>\
        <instanceState><code>48</code><name>terminated</name></instanceState>\
        <placement><availabilityZone>us-east-1b</availabilityZone></placement>\
        <subnetId>subnet-1</subnetId><privateIpAddress>10.0.0.4</privateIpAddress>\
        <instanceLifecycle>spot</instanceLifecycle><launchTime>2026-01-02T03:04:05.000Z</launchTime>\
        <reason>User initiated (2026-01-02 04:04:05 GMT)</reason>\
        <stateReason><code>Server.SpotInstanceTermination</code><message>taken back</message></stateReason>\
        <tagSet><item><key>Name</key><value>one</value></item></tagSet></item>";
    let server = Server::start(move |_| page(item, None)).await;
    let listed = server.client().await.describe_by_tag("k", "v").await.unwrap();
    let instance = &listed[0];
    assert_eq!(instance.state, InstanceState::Terminated);
    assert_eq!(instance.instance_type, "g4dn.xlarge");
    assert_eq!(instance.zone.as_deref(), Some("us-east-1b"));
    assert_eq!(instance.subnet.as_deref(), Some("subnet-1"));
    assert_eq!(instance.market, Market::Spot);
    assert_eq!(instance.launched_at_ms, Some(1_767_323_045_000));
    assert_eq!(instance.tags["Name"], "one");
    assert_eq!(instance.private_ip.as_deref(), Some("10.0.0.4"));
    let reason =
        StateReason { code: "Server.SpotInstanceTermination".to_owned(), message: "taken back".to_owned() };
    assert_eq!(instance.state_reason, Some(reason));
    assert_eq!(instance.ended_at_ms, Some(1_767_326_645_000));
}

#[tokio::test]
async fn ids_that_ec2_does_not_know_are_missing_and_the_others_found() {
    let server = Server::start(|call| {
        let asked = ids(call);
        if asked.iter().any(|id| id == "i-0b") {
            return refusal(400, "InvalidInstanceID.NotFound", "The instance IDs 'i-0b, i-0d' do not exist");
        }
        page(&asked.iter().map(|id| bare(id)).collect::<String>(), None)
    })
    .await;
    let asked = set(&["i-0a", "i-0b", "i-0c", "i-0d"]);
    let described = server.client().await.describe_ids(&asked).await.unwrap();
    assert_eq!(described.missing, set(&["i-0b", "i-0d"]));
    let found: BTreeSet<_> = described.found.into_iter().map(|instance| instance.id).collect();
    assert_eq!(found, set(&["i-0a", "i-0c"]));
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn a_message_that_names_no_id_is_searched_by_halves() {
    let server = Server::start(|call| {
        let asked = ids(call);
        if asked.iter().any(|id| id == "i-0b") {
            return refusal(400, "InvalidInstanceID.NotFound", "Some instances do not exist");
        }
        page(&asked.iter().map(|id| bare(id)).collect::<String>(), None)
    })
    .await;
    let described = server.client().await.describe_ids(&set(&["i-0a", "i-0b", "i-0c"])).await.unwrap();
    assert_eq!((described.found.len(), described.missing), (2, set(&["i-0b"])));
}

#[tokio::test]
async fn asking_for_no_ids_asks_nothing() {
    let server = Server::start(|_| page(&bare("i-0a"), None)).await;
    let client = server.client().await;
    assert!(client.describe_ids(&BTreeSet::new()).await.unwrap().found.is_empty());
    client.terminate(&BTreeSet::new()).await.unwrap();
    assert!(server.calls().is_empty());
}

fn ended() -> (u16, String) {
    (200, "<TerminateInstancesResponse><instancesSet/></TerminateInstancesResponse>".to_owned())
}

#[tokio::test]
async fn an_unknown_id_does_not_keep_the_others_alive() {
    let server = Server::start(|call| {
        if ids(call).iter().any(|id| id == "i-0b") {
            refusal(400, "InvalidInstanceID.NotFound", "The instance ID 'i-0b' does not exist")
        } else {
            ended()
        }
    })
    .await;
    server.client().await.terminate(&set(&["i-0a", "i-0b", "i-0c"])).await.unwrap();
    assert_eq!(ids(server.calls().last().unwrap()), ["i-0a", "i-0c"]);
}

#[tokio::test]
async fn a_protected_instance_is_reported_and_the_others_end() {
    let server = Server::start(|call| {
        if ids(call).iter().any(|id| id == "i-0b") {
            refusal(400, "OperationNotPermitted", "The instance 'i-0b' may not be terminated.")
        } else {
            ended()
        }
    })
    .await;
    let error = server.client().await.terminate(&set(&["i-0a", "i-0b", "i-0c", "i-0d"])).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Denied);
    let calls = server.calls();
    let gone: BTreeSet<_> =
        calls.iter().filter(|call| !ids(call).contains(&"i-0b".to_owned())).flat_map(ids).collect();
    assert_eq!(gone, set(&["i-0a", "i-0c", "i-0d"]));
}

#[tokio::test]
async fn many_are_ended_in_batches_and_without_permission_each_batch_is_tried_once() {
    let names: Vec<String> = (0..450).map(|number| format!("i-{number:04x}")).collect();
    let all: BTreeSet<String> = names.into_iter().collect();
    let server = Server::start(|_| refusal(403, "UnauthorizedOperation", "no")).await;
    let error = server.client().await.terminate(&all).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Denied);
    let sizes: BTreeSet<_> = server.calls().iter().map(|call| ids(call).len()).collect();
    assert_eq!(sizes, BTreeSet::from([50, 200]));
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn the_console_is_read_as_it_is_now_where_ec2_can() {
    let encoded = STANDARD.encode("boot\nready ✓\n");
    let server = Server::start(move |call| {
        if call.contains_key("Latest") {
            return refusal(400, "UnsupportedOperation", "This instance type does not support latest");
        }
        (200, format!("<GetConsoleOutputResponse><output>{encoded}</output></GetConsoleOutputResponse>"))
    })
    .await;
    let console = server.client().await.console_output("i-0a").await.unwrap();
    assert_eq!(console.as_deref(), Some("boot\nready ✓\n"));
    assert_eq!(server.calls()[0]["Latest"], "true");
}

#[tokio::test]
async fn a_console_without_a_word_is_none() {
    let server = Server::start(|_| (200, "<GetConsoleOutputResponse/>".to_owned())).await;
    assert_eq!(server.client().await.console_output("i-0a").await.unwrap(), None);
}
