//! Plain HTTP to neighbours: the admin socket and the metadata service.

use std::time::Duration;

/// A client without proxies that gives up after `patience`.
pub(crate) fn client(patience: Duration) -> reqwest::ClientBuilder {
    // reqwest wants a provider even where no TLS is spoken; whoever installed one first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(patience).no_proxy()
}
