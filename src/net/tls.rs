//! TLS: whom we trust, and the certificate of whoever answered, trusted or not.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::words;
use super::{Certificate, DialError};

/// Trust in servers: Mozilla's roots, and the operator's own.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// What a certificate has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// That it was issued for the name by an authority we trust.
    Name,
    /// Only that the peer has its key. For names of hidden networks: the name is, or stands for, a public key, and the network
    /// beneath has proven that whoever answers owns it. No authority could add to that, and hardly any issues for them.
    Key,
}

impl Tls {
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, DialError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = ca_file {
            let refused =
                |why: String| DialError::Settings(format!("networks.ca_file: {}: {why}", path.display()));
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| refused(e.to_string()))? {
                let certificate = certificate.map_err(|e| refused(e.to_string()))?;
                roots.add(certificate).map_err(|e| refused(e.to_string()))?;
            }
            if roots.len() == before {
                return Err(refused("holds no certificate".to_owned()));
            }
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| DialError::Settings(e.to_string()))?;
        Ok(Self { provider, verifier })
    }

    /// A configuration that remembers what it saw. Sessions are not resumed: a resumed one shows no certificate.
    pub(super) fn config(&self, proof: Proof) -> Result<(ClientConfig, Arc<Witness>), DialError> {
        let witness =
            Arc::new(Witness { verifier: Arc::clone(&self.verifier), proof, seen: Mutex::default() });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| DialError::Settings(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok((config, witness))
    }

    /// Shakes hands as a client of `host`.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        host: &str,
        proof: Proof,
    ) -> Result<(TlsStream<TcpStream>, Option<Certificate>), DialError> {
        let (config, witness) = self.config(proof)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|e| DialError::Tls { why: e.to_string(), certificate: None })?;
        match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Ok(stream) => Ok((stream, witness.certificate())),
            Err(error) => Err(failure(&error, witness.certificate())),
        }
    }
}

/// The handshake's error with the certificate seen until then.
fn failure(error: &io::Error, certificate: Option<Certificate>) -> DialError {
    let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    DialError::Tls {
        why: words(&why.map_or_else(|| error.to_string(), ToString::to_string)),
        certificate: certificate.map(Box::new),
    }
}

/// Verifies, and remembers the certificate and what was wrong with it.
#[derive(Debug)]
pub(super) struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    proof: Proof,
    seen: Mutex<Option<Certificate>>,
}

impl Witness {
    fn certificate(&self) -> Option<Certificate> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let problem = verdict.as_ref().err().map(|error| words(&error.to_string()));
        let certificate = Certificate::read(end_entity, problem);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
        match self.proof {
            Proof::Name => verdict,
            Proof::Key => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
