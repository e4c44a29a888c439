//! TLS to PostgreSQL: `sslmode`, `sslrootcert`, `sslcert` and `sslkey` of a database URL, with the meaning
//! that libpq gives them.
//!
//! Differences from libpq: `allow` means `prefer`, TLS if the server offers it. A certificate needs a
//! `subjectAltName`; its common name is ignored. The session and read pools (sqlx) trust the operating
//! system's authorities in addition to those of `sslrootcert`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// The protection that a connection requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it; the certificate is not checked.
    Prefer,
    /// TLS; the certificate is not checked.
    Require,
    /// TLS; a trusted authority must have issued the certificate.
    VerifyCa,
    /// TLS; a trusted authority must have issued the certificate for this host name.
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => {
                return Err(format!(
                    "sslmode `{other}` is none of: disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }

    /// The name in libpq and PgBouncer.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// A certificate and its key, PEM.
type Identity = (Vec<u8>, Vec<u8>);

/// The TLS parameters of a URL, unparsed.
#[derive(Debug, Default)]
pub(super) struct TlsParameters {
    pub(super) mode: Option<String>,
    pub(super) root: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// The TLS configuration for one server, with the contents of its files.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    mode: SslMode,
    /// Certificates of authorities, PEM.
    roots: Option<Vec<u8>>,
    /// Whether the operating system's authorities are trusted.
    system_roots: bool,
    /// The client's certificate and its key, PEM.
    identity: Option<Identity>,
    connector: MakeRustlsConnectDebug,
}

/// `MakeRustlsConnect` has no `Debug`.
#[derive(Clone)]
struct MakeRustlsConnectDebug(MakeRustlsConnect);

impl std::fmt::Debug for MakeRustlsConnectDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeRustlsConnect")
    }
}

impl Tls {
    /// Reads the files that the parameters name, or libpq's default files in `~/.postgresql`.
    ///
    /// # Errors
    /// The parameter that cannot be used, the reason, and what is accepted.
    pub(super) fn resolve(parameters: &TlsParameters) -> Result<Self, String> {
        let system_roots = parameters.root.as_deref() == Some("system");
        let mut mode = match &parameters.mode {
            Some(text) => SslMode::parse(text)?,
            None if system_roots => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        if system_roots && !matches!(mode, SslMode::VerifyFull) {
            return Err(format!(
                "sslmode={} is too weak for sslrootcert=system: use verify-full",
                mode.as_str()
            ));
        }
        let (mut roots, mut identity) = (None, None);
        if mode != SslMode::Disable {
            roots = if system_roots { None } else { read_roots(parameters.root.as_deref(), mode)? };
            identity = read_identity(parameters)?;
        }
        // As in libpq: `require` with an authority's file checks the certificate, as otherwise the file would
        // be ignored.
        if mode == SslMode::Require && roots.is_some() {
            mode = SslMode::VerifyCa;
        }
        let config = client_config(mode, roots.as_deref(), system_roots, identity.as_ref())?;
        let connector = MakeRustlsConnectDebug(MakeRustlsConnect::new(config));
        Ok(Self { mode, roots, system_roots, identity, connector })
    }

    pub(super) fn disabled() -> Result<Self, String> {
        Self::resolve(&TlsParameters { mode: Some("disable".to_owned()), ..TlsParameters::default() })
    }

    pub(super) fn mode(&self) -> SslMode {
        self.mode
    }

    /// For tokio-postgres.
    pub(super) fn connector(&self) -> MakeRustlsConnect {
        self.connector.0.clone()
    }

    /// For tokio-postgres, which distinguishes only whether to use TLS.
    pub(super) fn driver_mode(&self) -> tokio_postgres::config::SslMode {
        match self.mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                tokio_postgres::config::SslMode::Require
            }
        }
    }

    /// For sqlx. Sets every value, so that no environment variable (`PGSSLROOTCERT`) has an effect.
    pub(super) fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        let options = options
            .ssl_mode(match self.mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            })
            .ssl_root_cert_from_pem(self.roots.clone().unwrap_or_default());
        match &self.identity {
            Some((certificate, key)) => {
                options.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key)
            }
            None => options,
        }
    }

    /// The trusted authorities as PEM, for PgBouncer; `None` when the certificate is not checked.
    pub(super) fn roots_pem(&self) -> Option<Vec<u8>> {
        if self.system_roots {
            let certificates = rustls_native_certs::load_native_certs().certs;
            return Some(
                certificates.iter().map(|certificate| pem(certificate)).collect::<String>().into_bytes(),
            );
        }
        self.mode.verifies().then(|| self.roots.clone()).flatten()
    }

    /// The client's certificate and its key as PEM, for PgBouncer.
    pub(super) fn identity_pem(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// libpq's default file, if it exists.
fn default_file(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(Path::new(&home).join(".postgresql").join(name)).filter(|path| path.exists())
}

fn read(parameter: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{parameter} {}: {error}", path.display()))
}

fn read_roots(named: Option<&str>, mode: SslMode) -> Result<Option<Vec<u8>>, String> {
    let path = match named {
        Some(path) => Some(PathBuf::from(path)),
        None => default_file("root.crt"),
    };
    match path {
        Some(path) if mode.verifies() || path.exists() => {
            let text = read("sslrootcert", &path)?;
            let count = CertificateDer::pem_slice_iter(&text).flatten().count();
            if count == 0 {
                return Err(format!("sslrootcert {} holds no certificate in PEM form", path.display()));
            }
            Ok(Some(text))
        }
        None if mode.verifies() => Err(format!(
            "sslmode={} needs sslrootcert: the file of the authority's certificate, or `system` for the authorities of the \
             operating system; ~/.postgresql/root.crt does not exist",
            mode.as_str()
        )),
        _ => Ok(None),
    }
}

fn read_identity(parameters: &TlsParameters) -> Result<Option<Identity>, String> {
    let named = |name: &Option<String>| name.as_ref().map(PathBuf::from);
    let certificate = named(&parameters.certificate).or_else(|| default_file("postgresql.crt"));
    let key = named(&parameters.key).or_else(|| default_file("postgresql.key"));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((read("sslcert", &certificate)?, read("sslkey", &key)?))),
        (None, None) => Ok(None),
        (Some(_), None) => Err("sslcert needs sslkey: the file of its private key".to_owned()),
        (None, Some(_)) => Err("sslkey needs sslcert: the file of its certificate".to_owned()),
    }
}

fn client_config(
    mode: SslMode,
    roots: Option<&[u8]>,
    system_roots: bool,
    identity: Option<&Identity>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let chain = if mode.verifies() {
        let store = root_store(roots, system_roots)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        Some(verifier.build().map_err(|error| format!("sslrootcert: {error}"))?)
    } else {
        None
    };
    let verifier = Verifier { chain, name: mode == SslMode::VerifyFull, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let certificates = certificates.map_err(|error| format!("sslcert: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("sslkey: {error}"))?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| format!("sslcert and sslkey: {error}"))
}

fn root_store(roots: Option<&[u8]>, system_roots: bool) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if system_roots {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err("sslrootcert=system: the operating system has no trusted authorities".to_owned());
        }
    }
    for certificate in CertificateDer::pem_slice_iter(roots.unwrap_or_default()) {
        let certificate = certificate.map_err(|error| format!("sslrootcert: {error}"))?;
        store.add(certificate).map_err(|error| format!("sslrootcert: {error}"))?;
    }
    Ok(store)
}

/// Checks the server's certificate as far as the mode requires, and always the signatures of the handshake.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verdict = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // rustls checks the name last, so after this error the chain is known to be valid.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
