//! Runs all checks of one relay. Each check and all checks together have a timeout; every failure is a
//! finding.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nostr_sdk::{Keys, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::geo::{GeoFiles, filled};
use super::session::{SessionCheck, SessionFindings};
use crate::base::{Network, RelayUrl};
use crate::config;
use crate::net::relay::Timeouts;
use crate::net::{Certificate, DialError, DnsRecords, Egress, Fetched, Get, Trust};
use crate::services::archive::decide::{Checked, Document, Failure, Findings, document, steady};

/// Media type required by NIP-11.
const ACCEPT: &str = "application/nostr+json";

/// Most redirects for a document.
const REDIRECTS_MAX: usize = 3;

/// Factor on timeouts outside clearnet: a circuit has six hops, and each may be slow.
const HIDDEN_TIMEOUT_FACTOR: u32 = 4;

/// Headers that identify the server software and are the same in every answer.
const HEADERS: [&str; 2] = ["server", "x-powered-by"];

fn scaled_timeout(network: Network, seconds: u32) -> Duration {
    let factor = if network == Network::Clearnet { 1 } else { HIDDEN_TIMEOUT_FACTOR };
    Duration::from_secs(u64::from(seconds) * u64::from(factor))
}

/// Settings and resources of the checks.
#[derive(Debug)]
pub(super) struct Checker {
    pub(super) outside: Egress,
    pub(super) settings: config::Monitor,
    pub(super) networks: config::Networks,
    pub(super) geo_files: GeoFiles,
    /// Key for authentication (NIP-42): the monitor's key, or one generated for this process.
    pub(super) visitor: Keys,
}

impl Checker {
    /// Timeout of all checks of one relay of this network.
    pub(super) fn relay_timeout(&self, network: Network) -> Duration {
        scaled_timeout(network, self.settings.relay_timeout_s.get())
    }

    /// Timeout of an information document.
    pub(super) fn document_timeout(&self, network: Network) -> Duration {
        scaled_timeout(network, self.settings.nip11_timeout_s.get())
    }

    /// Checks one relay. `now` is the time of the write check's event.
    pub(super) async fn check(&self, url: &RelayUrl, trust: Trust, now: Timestamp) -> Findings {
        let network = url.network();
        let limit = self.relay_timeout(network);
        let session = SessionCheck {
            outside: &self.outside,
            url,
            trust,
            timeouts: Timeouts::from(self.networks.get(network)),
            deadline: Instant::now() + limit,
            limit,
            keys: &self.visitor,
            writes: self.settings.write_check,
            now,
        };
        let (document, names, session) = tokio::join!(
            self.document(url, trust),
            self.names(url, trust, session.deadline, limit),
            session.run()
        );
        self.findings(url, &document, names.as_ref(), session)
    }

    async fn document(&self, url: &RelayUrl, trust: Trust) -> Checked<Fetched> {
        // ws becomes http, wss becomes https.
        let address = url.as_str().replacen("ws", "http", 1);
        let get = Get {
            url: &address,
            trust,
            accept: ACCEPT,
            bytes_max: self.settings.nip11_bytes_max.get(),
            timeout: self.document_timeout(url.network()),
            redirects_max: REDIRECTS_MAX,
        };
        self.outside.get(get).await.map_err(|error| Failure::new(error.reason(), &error.to_string()))
    }

    /// Resolves the relay's name. `None` when there is nothing to resolve: an IP address, a hidden service,
    /// or a local name that the operator did not give.
    async fn names(
        &self,
        url: &RelayUrl,
        trust: Trust,
        deadline: Instant,
        limit: Duration,
    ) -> Option<Checked<DnsRecords>> {
        let is_untrusted_local = trust == Trust::Discovered && url.is_local_address();
        if url.network() != Network::Clearnet || literal(url).is_some() || is_untrusted_local {
            return None;
        }
        let found = timeout_at(deadline, self.outside.lookup(url.host())).await;
        let found = found.unwrap_or(Err(DialError::Timeout(limit)));
        Some(found.map_err(|error| Failure::new(error.reason(), &error.to_string())))
    }

    fn findings(
        &self,
        url: &RelayUrl,
        fetched: &Checked<Fetched>,
        names: Option<&Checked<DnsRecords>>,
        session: SessionFindings,
    ) -> Findings {
        let known = names.and_then(|names| names.as_ref().ok());
        let address = literal(url).or_else(|| known.and_then(first_address));
        let answer = fetched.as_ref().ok();
        let certificate = session.certificate.or_else(|| answer.and_then(|answer| answer.tls.clone()));
        let headers = answer.map(|answer| &answer.headers).into_iter().chain([&session.headers]);
        Findings {
            http: identifying_headers(headers),
            document: Some(fetched.as_ref().map_err(Failure::clone).and_then(read)),
            open: Some(session.open),
            read: session.read,
            auth: session.auth,
            write: session.write,
            dns: names.map(|names| names.as_ref().map(facts).map_err(Failure::clone)),
            tls: certificate.filter(|_| url.as_str().starts_with("wss")).map(|found| tls(&found)),
            geo: address.and_then(|ip| self.geo_files.geo(ip)),
            net: address.and_then(|ip| self.geo_files.net(ip)),
        }
    }
}

/// The IP address in a URL whose host is one.
fn literal(url: &RelayUrl) -> Option<IpAddr> {
    url.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The same address at every check, because addresses are sorted.
fn first_address(names: &DnsRecords) -> Option<IpAddr> {
    names.a.first().map(|ip| IpAddr::V4(*ip)).or_else(|| names.aaaa.first().map(|ip| IpAddr::V6(*ip)))
}

fn read(answer: &Fetched) -> Checked<Document> {
    document(answer.status, answer.headers.get("content-type").map(String::as_str), &answer.body)
}

fn facts(names: &DnsRecords) -> (Value, Option<u32>) {
    let found =
        json!({ "a": names.a, "aaaa": names.aaaa, "cname": names.cname, "ns": names.ns, "ptr": names.ptr });
    (filled(&found).unwrap_or_else(|| json!({})), names.ttl_s)
}

fn tls(certificate: &Certificate) -> Value {
    let problem = certificate.problem.as_deref().map(|problem| steady(problem).to_owned());
    json!(Certificate { problem, ..certificate.clone() })
}

fn identifying_headers<'a>(
    answers: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    answers
        .flatten()
        .filter(|(name, _)| HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
