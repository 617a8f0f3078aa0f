//! The services beside EC2 that a client of ours asks: who am I (STS), and how much may I run (Service Quotas).

use std::collections::BTreeSet;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::catalog;
use super::iam::{self, Question};
use super::options::Market;
use super::permissions::CALLER;
use super::world::World;
use super::xml;

/// The header that names an action of a JSON service.
pub(crate) const TARGET: &str = "x-amz-target";
/// What STS answers to by name; everything else of its kind is EC2's.
pub(crate) const WHO: &str = "GetCallerIdentity";

/// A quota that nobody reaches, for an account without limits.
const PLENTY: u32 = 100_000;

/// An answer, and what the log keeps of it.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) action: String,
    pub(crate) permissions: BTreeSet<String>,
    pub(crate) error: Option<String>,
}

/// `GetCallerIdentity`. Every caller may ask.
pub(crate) fn who(signed: bool) -> Answer {
    let (status, text, error) = if signed {
        let identity = [("Arn", CALLER), ("UserId", "AIDASANDBOX"), ("Account", catalog::OWNER)];
        (StatusCode::OK, xml::sts_success(WHO, &identity), None)
    } else {
        let code = "InvalidClientTokenId";
        let text = xml::sts_failure(code, "The security token included in the request is invalid.");
        (StatusCode::FORBIDDEN, text, Some(code.to_owned()))
    };
    let response = (status, [(header::CONTENT_TYPE, "text/xml")], text).into_response();
    Answer { response, action: WHO.to_owned(), permissions: BTreeSet::new(), error }
}

/// `GetServiceQuota` for EC2's vCPUs.
pub(crate) fn quota(world: &World, target: &str, body: &[u8], signed: bool) -> Answer {
    let action = target.rsplit('.').next().unwrap_or_default().to_owned();
    let permission = format!("servicequotas:{action}");
    let question = Question::new(permission.as_str(), "*");
    let refused = |status, code: &str, message: String| {
        let body = json!({"__type": code, "Message": message});
        (status, body, Some(code.to_owned()))
    };
    let bad = StatusCode::BAD_REQUEST;
    let (status, body, error) = if !signed {
        refused(
            bad,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.".into(),
        )
    } else if world.options.policy.as_ref().is_some_and(|policy| !iam::allows(policy, &question)) {
        let message = format!("User: {CALLER} is not authorized to perform: {permission}");
        refused(bad, "AccessDeniedException", message)
    } else {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = request["QuotaCode"].as_str().unwrap_or_default();
        match limit(world, code).filter(|_| action == "GetServiceQuota" && request["ServiceCode"] == "ec2") {
            Some(value) => {
                let quota = json!({"ServiceCode": "ec2", "QuotaCode": code, "Value": f64::from(value), "Unit": "None"});
                (StatusCode::OK, json!({"Quota": quota}), None)
            }
            None => {
                let message = "The request failed because the specified quota does not exist.".to_owned();
                refused(bad, "NoSuchResourceException", message)
            }
        }
    };
    let headers = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    let response = (status, headers, body.to_string()).into_response();
    Answer { response, action, permissions: BTreeSet::from([permission]), error }
}

/// The limit of the market that a quota's code is about.
fn limit(world: &World, code: &str) -> Option<u32> {
    const SPOT: [&str; 4] = ["L-34B43A08", "L-3819A6DF", "L-7212CCBC", "L-C4BD4855"];
    const ON_DEMAND: [&str; 3] = ["L-1216C47A", "L-DB2E81BA", "L-417A185B"];
    let market = if SPOT.contains(&code) {
        Market::Spot
    } else if ON_DEMAND.contains(&code) {
        Market::OnDemand
    } else {
        return None;
    };
    Some(world.vcpu_limit(market).unwrap_or(PLENTY))
}
