//! Dry runs, whose yes is an error, and the services beside EC2.

use ec2::{Bucket, Market, Meaning};

use crate::launch::spec;
use crate::server::{Server, launched, refusal};

const YES: &str = "Request would have succeeded, but DryRun flag is set.";

#[tokio::test]
async fn a_dry_run_sends_the_launch_as_it_is() {
    let server = Server::start(|_| refusal(412, "DryRunOperation", YES)).await;
    server.client().await.may_launch(&spec()).await.unwrap();
    let calls = server.calls();
    assert_eq!(calls.len(), 1, "an answer is not asked for twice");
    assert_eq!(calls[0]["DryRun"], "true");
    assert_eq!((calls[0]["InstanceType"].as_str(), calls[0]["MaxCount"].as_str()), ("g4dn.xlarge", "3"));
}

#[tokio::test]
async fn a_no_is_told_by_its_meaning() {
    for (status, code, meaning) in [
        (403, "UnauthorizedOperation", Meaning::Denied),
        (400, "AuthFailure.ServiceLinkedRoleCreationNotPermitted", Meaning::Denied),
        (400, "InvalidKeyPair.NotFound", Meaning::Invalid),
        (400, "InvalidAMIID.NotFound", Meaning::Invalid),
        (503, "RequestLimitExceeded", Meaning::Throttled),
    ] {
        let server = Server::start(move |_| refusal(status, code, "no")).await;
        assert_eq!(server.client().await.may_launch(&spec()).await.unwrap_err().meaning, meaning, "{code}");
    }
}

#[tokio::test]
async fn an_endpoint_that_launches_all_the_same_is_found_out() {
    let server = Server::start(|_| launched(&["i-0a"])).await;
    let error = server.client().await.may_launch(&spec()).await.unwrap_err();
    assert_eq!(error.to_string(), "run instances: the endpoint ignored DryRun and launched i-0a");
}

#[tokio::test]
async fn every_permit_is_a_dry_run() {
    let server = Server::start(|_| refusal(412, "DryRunOperation", YES)).await;
    let client = server.client().await;
    client.may_describe().await.unwrap();
    client.may_terminate("i-0a").await.unwrap();
    client.may_read_console("i-0a").await.unwrap();
    client.may_find_images().await.unwrap();
    client.may_read_spot_prices().await.unwrap();
    assert!(server.calls().iter().all(|call| call["DryRun"] == "true"));
    let gone = Server::start(|_| refusal(400, "InvalidInstanceID.NotFound", "no")).await;
    assert_eq!(gone.client().await.may_terminate("i-0a").await.unwrap_err().meaning, Meaning::Gone);
}

#[tokio::test]
async fn the_caller_is_told_by_sts() {
    let identity = "<Arn>arn:aws:iam::1:user/me</Arn><UserId>A</UserId><Account>1</Account>";
    let server = Server::start(move |call| {
        assert_eq!(call["Action"], "GetCallerIdentity");
        let result = format!("<GetCallerIdentityResult>{identity}</GetCallerIdentityResult>");
        (200, format!("<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>"))
    })
    .await;
    let caller = server.client().await.caller().await.unwrap();
    assert_eq!((caller.account.as_str(), caller.arn.as_str()), ("1", "arn:aws:iam::1:user/me"));

    let refused = Server::start(|_| {
        let error =
            "<Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>bad</Message></Error>";
        (403, format!("<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"))
    })
    .await;
    let error = refused.client().await.caller().await.unwrap_err();
    assert_eq!((error.meaning, error.code.as_deref()), (Meaning::Denied, Some("InvalidClientTokenId")));
}

#[tokio::test]
async fn a_quota_is_a_whole_number() {
    let server =
        Server::start(|_| (200, r#"{"Quota": {"QuotaCode": "L-DB2E81BA", "Value": 64.0}}"#.to_owned())).await;
    let client = server.client().await;
    assert_eq!(client.vcpu_quota(Bucket::Graphics, Market::OnDemand).await.unwrap(), 64);
    assert!(client.vcpu_quota(Bucket::Hpc, Market::Spot).await.is_err());
    let denied =
        Server::start(|_| (400, r#"{"__type": "AccessDeniedException", "Message": "no"}"#.to_owned())).await;
    let error = denied.client().await.vcpu_quota(Bucket::Graphics, Market::OnDemand).await.unwrap_err();
    assert_eq!(error.meaning, Meaning::Denied);
}
