//! Reads the facts of a server's TLS certificate, for error reports and for the monitor.

use std::net::IpAddr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::remote_text::sanitize;

/// Names kept per certificate. Certificates of shared hosts carry a hundred or more; the rest is dropped.
const NAMES_MAX: usize = 50;

/// A server's certificate, valid or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Certificate {
    /// Issuer, as a distinguished name.
    pub issuer: String,
    /// Subject, as a distinguished name. Often empty: clients compare `names`.
    pub subject: String,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// SHA-256 of the DER encoding, in hex.
    pub fingerprint: String,
    /// DNS names and IP addresses that the certificate is valid for.
    pub names: Vec<String>,
    /// Whether the chain is trusted and the certificate is valid for the dialled name.
    pub valid: bool,
    /// Why the certificate is not valid.
    pub problem: Option<String>,
}

impl Certificate {
    /// Parses the DER encoding. A certificate that cannot be parsed has only a fingerprint and a problem.
    pub(super) fn read(der: &[u8], problem: Option<String>) -> Self {
        let fingerprint = hex::encode(Sha256::digest(der));
        let Ok((_, read)) = parse_x509_certificate(der) else {
            let problem = Some(problem.unwrap_or_else(|| "cannot be parsed".to_owned()));
            return Self { fingerprint, problem, ..Self::default() };
        };
        let names = read.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |extension| {
            extension.value.general_names.iter().filter_map(name).take(NAMES_MAX).collect()
        });
        Self {
            issuer: sanitize(&read.issuer().to_string()),
            subject: sanitize(&read.subject().to_string()),
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            fingerprint,
            names,
            valid: problem.is_none(),
            problem,
        }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(sanitize(name)),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|ip| ip.to_string()),
        _ => None,
    }
}
