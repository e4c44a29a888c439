//! TLS client: verifies servers, and records the certificate of the server whether it is trusted or not.

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

use super::remote_text::sanitize;
use super::{Certificate, DialError};

/// Trusted certificate authorities: Mozilla's roots and the operator's own (`networks.ca_file`).
#[derive(Debug, Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// What a server's certificate has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A trusted authority issued it for the dialled name.
    Name,
    /// Only that the peer holds its private key. For hidden networks: the name is, or stands for, a public
    /// key, and the network itself has verified that the peer owns it. An authority could add nothing, and
    /// hardly any issues certificates for such names.
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
                return Err(refused("the file contains no certificate".to_owned()));
            }
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| DialError::Settings(e.to_string()))?;
        Ok(Self { provider, verifier })
    }

    /// A client configuration and the verifier that records the certificate. Session resumption is off: a
    /// resumed session shows no certificate.
    pub(super) fn config(&self, proof: Proof) -> Result<(ClientConfig, Arc<RecordingVerifier>), DialError> {
        let verifier = Arc::new(RecordingVerifier {
            verifier: Arc::clone(&self.verifier),
            proof,
            recorded: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| DialError::Settings(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok((config, verifier))
    }

    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        host: &str,
        proof: Proof,
    ) -> Result<(TlsStream<TcpStream>, Option<Certificate>), DialError> {
        let (config, verifier) = self.config(proof)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|e| DialError::Tls { why: e.to_string(), certificate: None })?;
        match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Ok(stream) => Ok((stream, verifier.certificate())),
            Err(error) => Err(failure(&error, verifier.certificate())),
        }
    }
}

/// A failed handshake, with the certificate if the server has sent it.
fn failure(error: &io::Error, certificate: Option<Certificate>) -> DialError {
    let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    DialError::Tls {
        why: sanitize(&why.map_or_else(|| error.to_string(), ToString::to_string)),
        certificate: certificate.map(Box::new),
    }
}

/// Verifies certificates, and records the certificate with the verification error.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    proof: Proof,
    recorded: Mutex<Option<Certificate>>,
}

impl RecordingVerifier {
    fn certificate(&self) -> Option<Certificate> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for RecordingVerifier {
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
        let problem = verdict.as_ref().err().map(|error| sanitize(&error.to_string()));
        let certificate = Certificate::read(end_entity, problem);
        *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
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
