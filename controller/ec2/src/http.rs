//! The HTTP client below the SDK: rustls with ring and the machine's trusted certificates, through the proxy that
//! the environment names.

use std::env;

use aws_sdk_ec2::config::{RuntimeComponents, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};

/// A client with pooled connections. Only `https` goes through a proxy: the metadata service and other plain
/// endpoints are near by.
///
/// # Errors
/// The name of the variable that holds no proxy's address.
pub(crate) fn client() -> Result<SharedHttpClient, &'static str> {
    let proxy = proxy()?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector
            .set_connector_settings(settings.cloned())
            .set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl))
            .set_proxy_config(proxy.clone());
        connector.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build()
    }))
}

fn proxy() -> Result<Option<ProxyConfig>, &'static str> {
    let variables = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let Some((variable, address)) = variables.iter().find_map(|name| Some((*name, value(name)?))) else {
        return Ok(None);
    };
    // `proxy:3128` is what many write.
    let address = if address.contains("://") { address } else { format!("http://{address}") };
    // The address may hold a password: the error must not repeat it.
    let proxy = ProxyConfig::https(address).map_err(|_| variable)?;
    Ok(Some(match value("NO_PROXY").or_else(|| value("no_proxy")) {
        Some(exceptions) => proxy.no_proxy(exceptions),
        None => proxy,
    }))
}

fn value(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
