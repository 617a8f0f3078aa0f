//! The gateway's key: ECDSA P-256, made once, kept for good.
//!
//! Sidecars pin the hash of its public key, so the certificate around it is of no account: self-signed
//! and made afresh at each start.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};

/// The name in the certificate. Nobody looks at it: the key is what is checked.
pub const SERVER_NAME: &str = "clearml-autoscaler";

/// The private key and the pin of its public half.
pub struct Identity {
    key: KeyPair,
    pin: String,
}

/// The key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Making, reading or certifying it failed.
    #[error("gateway key: {0}")]
    Key(#[from] rcgen::Error),
    /// TLS would not take it.
    #[error("gateway key: not usable for TLS")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// A new key, from the operating system's randomness.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::with(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// The key of an earlier run, as [`Identity::pkcs8`] gave it.
    ///
    /// # Errors
    /// If these bytes are no P-256 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(der);
        Ok(Self::with(KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?))
    }

    fn with(key: KeyPair) -> Self {
        let digest = Sha256::digest(key.subject_public_key_info());
        let pin = format!("sha256//{}", STANDARD.encode(digest));
        Self { key, pin }
    }

    /// The private key in PKCS#8, DER: a secret.
    pub fn pkcs8(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// `sha256//BASE64` of the public key, as curl's `--pinnedpubkey` takes it.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// TLS 1.3, and 1.2 for those who may only download. No session tickets: their stores cost memory
    /// per connection, and a sidecar reconnects too seldom to gain by them.
    pub(super) fn tls(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let certificate = CertificateParams::new([SERVER_NAME.to_owned()])?.self_signed(&self.key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.pkcs8().to_vec()));
        let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Arc::new(tls))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_read_back_has_the_same_pin() {
        let first = Identity::generate().unwrap();
        let again = Identity::from_pkcs8(first.pkcs8()).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert_eq!(first.pin().len(), "sha256//".len() + 44);
        assert_ne!(first.pin(), Identity::generate().unwrap().pin());
    }

    #[test]
    fn debug_shows_the_pin_and_not_the_key() {
        let identity = Identity::generate().unwrap();
        let shown = format!("{identity:?}");
        assert!(shown.contains(identity.pin()));
        assert!(!shown.to_lowercase().contains("key:"));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        assert!(Identity::from_pkcs8(b"not a key").is_err());
    }
}
