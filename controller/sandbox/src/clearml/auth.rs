//! Who calls: keys by HTTP Basic, or a token (a JWT signed with HS256) that a login gave.

use std::time::Duration;

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::call::Call;
use super::document::{Doc, new_id};
use super::endpoints::{Endpoint, V1, open};
use super::error::ApiError;
use super::state::State;
use super::{API_VERSION, SERVER_VERSION};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("auth.login", V1, login),
    Endpoint::new("auth.create_credentials", V1, create_credentials),
    Endpoint::new("auth.get_credentials", V1, get_credentials),
    Endpoint::new("auth.revoke_credentials", V1, revoke_credentials),
    open("login.supported_modes", V1, supported_modes),
];

const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) struct Credential {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) user: String,
    label: Option<String>,
}

impl Credential {
    pub(crate) fn new(access_key: &str, secret_key: &str, user: &str) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), user: user.into(), label: None }
    }
}

/// The user behind an `Authorization` header.
pub(crate) fn caller(state: &State, header: Option<&HeaderValue>) -> Result<String, ApiError> {
    let header = header.ok_or_else(|| unauthorized(20, "missing credentials"))?;
    let text = header.to_str().map_err(|_| unauthorized(21, "malformed credentials"))?;
    match text.split_once(' ') {
        Some((kind, keys)) if kind.eq_ignore_ascii_case("basic") => basic(state, keys.trim()),
        Some((kind, token)) if kind.eq_ignore_ascii_case("bearer") => bearer(state, token.trim()),
        Some(_) | None => Err(unauthorized(10, "bad authentication header type")),
    }
}

/// The user behind a token alone, as the file server wants it.
pub(crate) fn bearer(state: &State, token: &str) -> Result<String, ApiError> {
    let mut parts = token.split('.');
    let (Some(header), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad_token("Not enough segments"));
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| bad_token("Invalid crypto padding"))?;
    let mut mac = mac(&state.token_key);
    mac.update(format!("{header}.{body}").as_bytes());
    mac.verify_slice(&signature).map_err(|_| bad_token("Signature verification failed"))?;
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| bad_token("Invalid payload padding"))?;
    let claims: Value = serde_json::from_slice(&body).map_err(|_| bad_token("Invalid payload string"))?;
    if claims["exp"].as_i64().is_none_or(|end| end <= Timestamp::now().as_second()) {
        return Err(bad_token("Signature has expired"));
    }
    claims["identity"]["user"].as_str().map(str::to_owned).ok_or_else(|| bad_token("no identity"))
}

fn basic(state: &State, keys: &str) -> Result<String, ApiError> {
    let keys = STANDARD.decode(keys).ok().and_then(|keys| String::from_utf8(keys).ok());
    let Some((access, secret)) = keys.as_deref().and_then(|keys| keys.split_once(':')) else {
        return Err(unauthorized(21, "malformed credentials"));
    };
    state
        .credentials
        .iter()
        .find(|known| known.access_key == access && known.secret_key == secret)
        .map(|known| known.user.clone())
        .ok_or_else(|| {
            ApiError::new(
                401,
                22,
                "Unauthorized (invalid credentials) (failed to locate provided credentials)",
            )
        })
}

fn unauthorized(subcode: u16, what: &str) -> ApiError {
    ApiError::new(401, subcode, format!("Unauthorized ({what})"))
}

fn bad_token(reason: &str) -> ApiError {
    ApiError::new(401, 30, format!("Invalid token (invalid jwt token): reason={reason}"))
}

fn mac(key: &[u8; 64]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new(key.into())
}

fn login(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let life = match call.number("expiration_sec") {
        None | Some(0) => DEFAULT_LIFE,
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST_LIFE),
    };
    Ok(json!({ "token": token(state, &call.user, life) }))
}

pub(crate) fn token(state: &State, user: &str, life: Duration) -> String {
    let now = Timestamp::now().as_second();
    let claims = json!({
        "env": "<unknown>",
        "iat": now,
        "identity": {
            "company": state.company,
            "user_name": state.user_name(user),
            "role": "user",
            "user": user,
            "company_name": "clearml",
        },
        "auth_type": "Bearer",
        "session_id": new_id(),
        "exp": now.saturating_add_unsigned(life.as_secs()),
        "api_version": format!("{}.{}", API_VERSION.0, API_VERSION.1),
        "server_version": SERVER_VERSION,
        "server_build": "",
        "feature_set": "basic",
    });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(&claims));
    let mut mac = mac(&state.token_key);
    mac.update(text.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{text}.{signature}")
}

fn create_credentials(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let label = call.text_or_none("label")?.map(str::to_owned);
    let access_key = new_id()[..20].to_uppercase();
    let secret_key = format!("{}{}", new_id(), new_id());
    let reply = json!({ "access_key": access_key, "secret_key": secret_key, "label": label });
    state.credentials.push(Credential { access_key, secret_key, user: call.user.clone(), label });
    Ok(json!({ "credentials": reply }))
}

fn get_credentials(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let own = state.credentials.iter().filter(|known| known.user == call.user);
    let list: Vec<Value> = own
        .map(|known| {
            let mut item = Doc::new();
            item.insert("access_key".into(), known.access_key.clone().into());
            if let Some(label) = &known.label {
                item.insert("label".into(), label.clone().into());
            }
            item.into()
        })
        .collect();
    Ok(json!({ "credentials": list }))
}

fn revoke_credentials(state: &mut State, call: &Call) -> Result<Value, ApiError> {
    let access_key = call.text("access_key")?;
    let before = state.credentials.len();
    state.credentials.retain(|known| known.access_key != access_key || known.user != call.user);
    Ok(json!({ "revoked": before - state.credentials.len() }))
}

fn supported_modes(_: &mut State, _: &Call) -> Result<Value, ApiError> {
    Ok(json!({
        "authenticated": false,
        "basic": { "enabled": true, "guest": { "enabled": false } },
        "sso": {},
        "sso_providers": [],
        "server_errors": { "missed_es_upgrade": false, "es_connection_error": false },
    }))
}
