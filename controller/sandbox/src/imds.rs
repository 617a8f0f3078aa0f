//! The instances' metadata service, version 2, one for each instance under `/imds/INSTANCE_ID/latest/...`.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use crate::ec2::{Ec2, Instance, State};

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const LONGEST_TTL: i64 = 21_600;

pub(crate) fn router() -> Router<Ec2> {
    Router::new()
        .route("/imds/{instance}/latest/api/token", put(token))
        .route("/imds/{instance}/latest/{*path}", get(read))
}

async fn token(Shared(ec2): Shared<Ec2>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if !is_running(&ec2, &id) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let ttl = headers.get(TTL_HEADER).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
    match ttl.filter(|seconds| (1..=LONGEST_TTL).contains(seconds)) {
        Some(seconds) => {
            let end = Timestamp::now().as_second() + seconds;
            let ttl = [(TTL_HEADER, seconds.to_string())];
            (ttl, STANDARD.encode(format!("{id} {end}"))).into_response()
        }
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn read(
    Shared(ec2): Shared<Ec2>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let world = ec2.inner().world();
    let Some(instance) = world.get(&id).filter(|instance| instance.state == State::Running) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let allowed = match headers.get(TOKEN_HEADER) {
        Some(token) => token.to_str().is_ok_and(|token| is_valid(token, &id)),
        None => !instance.metadata.token_required,
    };
    if !allowed {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if path == "user-data" && !instance.user_data.is_empty() {
        return instance.user_data.clone().into_response();
    }
    match value(instance, &world.options.region, path.trim_end_matches('/')) {
        Some(text) => text.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn is_running(ec2: &Ec2, id: &str) -> bool {
    ec2.inner().world().get(id).is_some_and(|instance| instance.state == State::Running)
}

/// A token is its instance and its end; nobody here has a reason to forge one.
fn is_valid(token: &str, id: &str) -> bool {
    let text = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = text.as_deref().and_then(|text| text.split_once(' '));
    parts.is_some_and(|(of, end)| {
        of == id && end.parse::<i64>().is_ok_and(|end| Timestamp::now().as_second() < end)
    })
}

fn value(instance: &Instance, region: &str, path: &str) -> Option<String> {
    if let Some(tag) = path.strip_prefix("meta-data/tags/instance") {
        let key = tag.strip_prefix('/');
        return instance.metadata.tags.then(|| tags(instance, key)).flatten();
    }
    match path {
        "meta-data/instance-id" => Some(instance.id.clone()),
        "meta-data/instance-type" => Some(instance.instance_type.clone()),
        "meta-data/ami-id" => Some(instance.image_id.clone()),
        "meta-data/ami-launch-index" => Some(instance.launch_index.to_string()),
        "meta-data/reservation-id" => Some(instance.reservation.clone()),
        "meta-data/placement/availability-zone" => Some(instance.zone.clone()),
        "meta-data/placement/region" => Some(region.to_owned()),
        "meta-data/local-ipv4" => Some(instance.address.to_string()),
        "meta-data/local-hostname" | "meta-data/hostname" => Some(instance.private_dns()),
        "meta-data/instance-life-cycle" => Some(instance.market.to_string()),
        "meta-data/spot/instance-action" => {
            let time = instance.interruption?;
            Some(json!({"action": "terminate", "time": seconds(time)}).to_string())
        }
        "meta-data/spot/termination-time" => instance.interruption.map(seconds),
        "meta-data/events/recommendations/rebalance" => {
            let time = instance.rebalance?;
            Some(json!({"noticeTime": seconds(time)}).to_string())
        }
        "dynamic/instance-identity/document" => Some(document(instance, region)),
        _ => None,
    }
}

fn tags(instance: &Instance, key: Option<&str>) -> Option<String> {
    match key {
        Some(key) => instance.tags.get(key).cloned(),
        None => Some(instance.tags.keys().map(String::as_str).collect::<Vec<_>>().join("\n")),
    }
}

fn document(instance: &Instance, region: &str) -> String {
    json!({
        "accountId": crate::ec2::OWNER,
        "architecture": crate::ec2::architecture(&instance.instance_type),
        "availabilityZone": instance.zone,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "pendingTime": seconds(instance.launched_at),
        "privateIp": instance.address.to_string(),
        "region": region,
        "version": "2017-09-30",
    })
    .to_string()
}

/// AWS's spelling here: UTC, whole seconds.
fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}
