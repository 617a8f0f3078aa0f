//! ClearML's addresses as instances are to use them. Those that a services container or a laptop sees,
//! `http://apiserver:8008` or `http://localhost:8008`, lead nowhere from an instance: it would come up, and no
//! worker would ever appear.

use std::net::IpAddr;

use serde_json::Value;

use crate::config::Document;
use crate::config::clearml::Settings;

const API: &str = "agent_api_server";
const WEB: &str = "agent_web_server";
const FILES: &str = "agent_files_server";

/// Sets `agent_api_server`, `agent_web_server` and `agent_files_server` where they are not set, to the addresses
/// that this machine uses itself. Returns warnings.
///
/// # Errors
/// If the API server's address is of no use to an instance.
pub fn fill_agent_servers(document: &mut Document, settings: &Settings) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    let own = [
        (API, Some(settings.api_server.to_string())),
        (WEB, settings.web_server.clone()),
        (FILES, settings.files_server.clone()),
    ];
    for (key, own) in own {
        let set = document.hyper_params.get(key).and_then(Value::as_str).map(str::trim).unwrap_or_default();
        if !set.is_empty() {
            if let Some(why) = useless(set) {
                warnings.push(format!("{key}: {set} {why}, so hardly any instance can reach it"));
            }
            continue;
        }
        match own.as_deref().map(|own| (own, useless(own))) {
            Some((own, None)) => {
                document.hyper_params.insert(key.to_owned(), own.into());
            }
            Some((own, Some(why))) if key == API => return Err(no_api_server(own, why)),
            Some((own, Some(why))) => {
                warnings.push(format!("{key}: is not set, and {own} {why}; instances are not told of one"));
            }
            None => {}
        }
    }
    Ok(warnings)
}

/// Whether instances can do with the API server's address that they will be given.
///
/// # Errors
/// What is wrong with it, and what to set.
pub fn check_api_server(set: Option<&str>, own: &str) -> Result<(), String> {
    match (set, useless(own)) {
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some(why)) => Err(no_api_server(own, why)),
    }
}

fn no_api_server(own: &str, why: &str) -> String {
    format!(
        "{API}: is not set, and instances can't use {own}: its host {why}; set it to the API server's address as \
         instances reach it, such as https://api.clearml.example.com"
    )
}

/// Why an instance can't use the address of this machine's.
fn useless(url: &str) -> Option<&'static str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return (ip.is_loopback() || ip.is_unspecified()).then_some("is this machine's loopback");
    }
    let host = host.to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return Some("is this machine's loopback");
    }
    if host.ends_with(".docker.internal") {
        return Some("is a name of docker's");
    }
    (!host.contains('.')).then_some("is a name without a domain, which only a local network knows")
}

#[cfg(test)]
mod tests {
    use clearml::{Address, Credentials};
    use serde_json::json;

    use super::*;

    fn settings(api: &str, web: &str) -> Settings {
        Settings {
            api_server: Address::parse(api).unwrap(),
            web_server: Some(web.to_owned()),
            files_server: None,
            credentials: Credentials::Token("token".into()),
            trust: clearml::Trust::default(),
            source: String::new(),
        }
    }

    #[test]
    fn an_operators_own_addresses_are_taken_over_and_his_choice_stays() {
        let mut document = Document {
            hyper_params: json!({"agent_web_server": "https://web.example.com"}).as_object().unwrap().clone(),
            configurations: serde_json::Map::new(),
        };
        let settings = settings("http://10.0.0.8:8008", "http://10.0.0.8:8080");
        assert_eq!(fill_agent_servers(&mut document, &settings).unwrap(), Vec::<String>::new());
        assert_eq!(document.hyper_params["agent_api_server"], "http://10.0.0.8:8008");
        assert_eq!(document.hyper_params["agent_web_server"], "https://web.example.com");
        assert!(!document.hyper_params.contains_key("agent_files_server"));
    }

    #[test]
    fn an_address_that_leads_nowhere_is_refused_with_the_key() {
        for api in
            ["http://localhost:8008", "http://127.0.0.1:8008", "http://[::1]:8008", "http://apiserver:8008"]
        {
            let mut document =
                Document { hyper_params: serde_json::Map::new(), configurations: serde_json::Map::new() };
            let error =
                fill_agent_servers(&mut document, &settings(api, "http://localhost:8080")).unwrap_err();
            assert!(error.starts_with("agent_api_server: ") && error.contains(api), "{error}");
            assert!(check_api_server(None, api).is_err());
            assert!(check_api_server(Some("https://api.example.com"), api).is_ok());
            // Somebody who sets it knows better.
            document.hyper_params.insert("agent_api_server".to_owned(), api.into());
            let warnings =
                fill_agent_servers(&mut document, &settings(api, "http://localhost:8080")).unwrap();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
        }
        assert!(check_api_server(None, "https://api.clear.ml").is_ok());
    }
}
