//! Trust: the SHA-256 of the public key that the server must prove to hold. Names and dates don't matter.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::suite;

/// The SHA-256 of a server's subjectPublicKeyInfo, in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// From its bytes.
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// From `sha256//BASE64`, as `curl --pinnedpubkey` has it.
    pub fn parse(text: &str) -> Option<Self> {
        let digest = STANDARD.decode(text.trim().strip_prefix("sha256//")?).ok()?;
        Some(Self(digest.try_into().ok()?))
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256//{}", STANDARD.encode(self.0))
    }
}

/// Whom to dial.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    pub(super) pin: Pin,
}

impl Target {
    /// From `https://HOST:PORT`; an IPv6 address in brackets.
    pub fn parse(url: &str, pin: Pin) -> Option<Self> {
        let authority = url.trim().strip_prefix("https://")?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let name = ServerName::try_from(host.to_owned()).ok()?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()?, name, pin })
    }
}

/// TLS 1.3 with HTTP/2, to the holder of the pinned key alone.
pub(super) fn tls(pin: Pin) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(Pinned { pin });
    let mut config = ClientConfig::builder_with_provider(Arc::new(suite::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Sessions last for days: tickets would only cost memory.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Pinned {
    pin: Pin,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let digest = ring::digest::digest(&ring::digest::SHA256, key.as_ref());
        if digest.as_ref() == self.pin.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Not offered, so not to be answered.
        Err(Error::General("tls 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &suite::SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        suite::SIGNATURES.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_or_addresses_with_a_port() {
        let pin = Pin::new([0; 32]);
        for good in ["https://10.0.0.1:8790", "https://[::1]:1", "https://controller.example:443/"] {
            assert!(Target::parse(good, pin).is_some(), "{good}");
        }
        for bad in ["http://h:1", "https://h", "https://::1:8", "https://h:99999", "https:// :1"] {
            assert!(Target::parse(bad, pin).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_pin_reads_as_curl_writes_it() {
        let text = "sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(format!("{:?}", Pin::parse(text).unwrap()), text);
        assert_eq!(Pin::parse("sha256//AAEC"), None);
        assert_eq!(Pin::parse("md5//AAEC"), None);
    }
}
