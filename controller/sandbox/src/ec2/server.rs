//! The wire: connections, signatures, actions by name, the log, and faults.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

use super::error::ApiError;
use super::instance::millis;
use super::ledger::{Call, Fault};
use super::params::Params;
use super::world::Done;
use super::xml::Xml;
use super::{Ec2, Inner, beside, life, xml};

const BODY_LIMIT: usize = 1024 * 1024;
const CONNECTIONS: usize = 8192;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Marks an answer that the caller never gets.
#[derive(Clone, Copy)]
struct Lost;

/// Serves until the sandbox closes; open connections end with it.
pub(super) async fn serve(listener: TcpListener, ec2: Ec2) {
    let mut closing = ec2.inner.closing.subscribe();
    let router = Router::new()
        .route("/", post(call))
        .merge(crate::imds::router())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(ec2);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = closing.changed() => return,
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be slow");
    }
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move {
            let answered: Result<Response, Infallible> = router.oneshot(request.map(Body::new)).await;
            let response = match answered {
                Ok(response) => response,
                Err(never) => match never {},
            };
            // An error from the service closes the connection with nothing on it.
            match response.extensions().get::<Lost>() {
                Some(Lost) => Err(io::Error::other("reply lost on purpose")),
                None => Ok(response),
            }
        }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn call(Shared(ec2): Shared<Ec2>, headers: HeaderMap, body: Bytes) -> Response {
    let inner = ec2.inner();
    let (at, time) = (Instant::now(), Timestamp::now());
    let target = headers.get(beside::TARGET).and_then(|value| value.to_str().ok());
    let params = if target.is_some() { Params::default() } else { Params::parse(&body) };
    let action = params.get("Action").unwrap_or_default().to_owned();
    let other = match target {
        Some(target) => {
            let signed = is_signed(inner, &headers, "servicequotas");
            Some(beside::quota(&inner.world(), target, &body, signed))
        }
        None if action == beside::WHO => Some(beside::who(is_signed(inner, &headers, "sts"))),
        None => None,
    };
    if let Some(beside::Answer { response, action, permissions, error }) = other {
        let (params, instances) = (params.into_map(), Vec::new());
        inner.world().ledger.record(Call { action, at, time, params, instances, error, permissions });
        inner.changed();
        return response;
    }
    let fault = inner.world().ledger.next_fault(&action);
    if let Some(Fault::Delay(delay)) = &fault {
        tokio::time::sleep(*delay).await;
    }
    let mut permissions = BTreeSet::new();
    let outcome = match &fault {
        Some(Fault::Refuse(error)) => Err(error.clone()),
        Some(Fault::LoseReply | Fault::Delay(_)) | None => check_signature(inner, &headers)
            .and_then(|()| inner.world().authorize(&action, &params))
            .and_then(|needed| {
                permissions = needed;
                perform(inner, &action, &params)
            }),
    };
    let (response, instances, error) = match outcome {
        Ok(done) => {
            let text = xml::success(&action, &done.xml);
            let response = (StatusCode::OK, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], text);
            (response.into_response(), done.instances, None)
        }
        Err(error) => {
            let code = error.code.clone();
            (error.into_response(), Vec::new(), Some(code))
        }
    };
    let params = params.into_map();
    inner.world().ledger.record(Call { action, at, time, params, instances, error, permissions });
    inner.changed();
    match fault {
        Some(Fault::LoseReply) => lost(response),
        Some(Fault::Refuse(_) | Fault::Delay(_)) | None => response,
    }
}

fn lost(mut response: Response) -> Response {
    response.extensions_mut().insert(Lost);
    response
}

fn check_signature(inner: &Inner, headers: &HeaderMap) -> Result<(), ApiError> {
    if is_signed(inner, headers, "ec2") { Ok(()) } else { Err(ApiError::auth()) }
}

/// The key of the signature must be ours, and for this service; the signature itself is taken on trust.
fn is_signed(inner: &Inner, headers: &HeaderMap, service: &str) -> bool {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scope = authorization
        .and_then(|text| text.strip_prefix("AWS4-HMAC-SHA256"))
        .filter(|rest| rest.contains("SignedHeaders=") && rest.contains("Signature="))
        .and_then(|rest| rest.split("Credential=").nth(1))
        .and_then(|credential| credential.split([',', ' ']).next());
    let scope: Vec<&str> = scope.unwrap_or_default().split('/').collect();
    match scope.as_slice() {
        [key, _date, _region, signed_for, "aws4_request"] => {
            *signed_for == service && *key == inner.world().options.access_key_id
        }
        _ => false,
    }
}

fn perform(inner: &Arc<Inner>, action: &str, params: &Params) -> Result<Done, ApiError> {
    let now = Instant::now();
    let mut world = inner.world();
    for id in world.forget_old(now) {
        let inner = inner.clone();
        tokio::task::spawn_blocking(move || inner.machines.forget(&id));
    }
    if let Some(rate) = world.options.call_rates.get(action).copied()
        && !world.ledger.spend(action, rate, 1.0, now)
    {
        return Err(ApiError::throttled());
    }
    if action.starts_with("Describe") && params.flag("DryRun")? {
        return Err(ApiError::dry_run());
    }
    match action {
        "RunInstances" => {
            let (done, new) = world.run_instances(params, now)?;
            for id in new {
                tokio::spawn(life::live(inner.clone(), id));
            }
            Ok(done)
        }
        "DescribeInstances" => world.describe_instances(params, now),
        "TerminateInstances" => world.terminate_instances(params),
        "StopInstances" => world.stop_instances(params),
        "CreateTags" => world.create_tags(params),
        "GetConsoleOutput" => {
            let id = params.need("InstanceId")?;
            world.check_ids(&[id], |_| true)?;
            if params.flag("DryRun")? {
                return Err(ApiError::dry_run());
            }
            let mut xml = Xml::default();
            xml.leaf("instanceId", id).leaf("timestamp", millis(Timestamp::now()));
            xml.leaf("output", STANDARD.encode(inner.machines.console(id)));
            Ok(Done { xml, instances: Vec::new() })
        }
        "DescribeImages" => world.describe_images(params),
        "DescribeInstanceTypes" => world.describe_instance_types(params),
        "DescribeInstanceTypeOfferings" => world.describe_instance_type_offerings(params),
        "DescribeSpotPriceHistory" => world.describe_spot_price_history(params),
        "DescribeSubnets" => world.describe_subnets(params),
        "DescribeSecurityGroups" => world.describe_security_groups(params),
        "DescribeKeyPairs" => world.describe_key_pairs(params),
        "DescribeAvailabilityZones" => Ok(world.describe_availability_zones()),
        "DescribeRegions" => world.describe_regions(params),
        "DescribeAccountAttributes" => Ok(world.describe_account_attributes()),
        "" => Err(ApiError::bad("MissingAction", "The request must contain the parameter Action")),
        other => {
            let message = format!("The action {other} is not valid for this web service.");
            Err(ApiError::bad("InvalidAction", message))
        }
    }
}
