//! What a server's certificate says, for people and for the monitor.

use std::net::IpAddr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::error::words;

/// Most names kept of one certificate. Shared hosts have a hundred; the first ones tell enough.
const NAMES_MAX: usize = 50;

/// A server's certificate, valid or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Certificate {
    /// Who issued it, as a distinguished name.
    pub issuer: String,
    /// Whom it is for, as a distinguished name; often empty, the names count.
    pub subject: String,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// SHA-256 of its DER form, in hex.
    pub fingerprint: String,
    /// DNS names and addresses it is for.
    pub names: Vec<String>,
    /// Whether it is trusted for the name that was dialled.
    pub valid: bool,
    /// Why not.
    pub problem: Option<String>,
}

impl Certificate {
    /// Reads the DER form. One that cannot be read has a fingerprint and a problem.
    pub(super) fn read(der: &[u8], problem: Option<String>) -> Self {
        let fingerprint = hex::encode(Sha256::digest(der));
        let Ok((_, read)) = parse_x509_certificate(der) else {
            let problem = Some(problem.unwrap_or_else(|| "cannot be read".to_owned()));
            return Self { fingerprint, problem, ..Self::default() };
        };
        let names = read.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |extension| {
            extension.value.general_names.iter().filter_map(name).take(NAMES_MAX).collect()
        });
        Self {
            issuer: words(&read.issuer().to_string()),
            subject: words(&read.subject().to_string()),
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
        GeneralName::DNSName(name) => Some(words(name)),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|ip| ip.to_string()),
        _ => None,
    }
}
