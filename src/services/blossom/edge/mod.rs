//! The HTTP interface of blobs: the endpoints of Blossom (BUD-01 to BUD-12) and those of Blossom Espelhator.

mod access;
mod cors;
mod delete;
mod descriptor;
mod download;
mod info;
mod limits;
mod list;
mod refusal;
mod report;
mod turns;
mod upload;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::HOST;

use super::append::{BlobJournal, Changes};
use super::decide::authorization::host_of;
use super::metrics::BlobMetrics;
use super::upstream::Upstreams;
use crate::base::Clock;
use crate::config::Blossom;
use crate::http::{Access, Routes};
use crate::lifecycle::Lifecycle;
use crate::store::Pools;
use crate::store::append::Writer;

pub use cors::cors_rules;

use download::Lookups;
use limits::Limits;
use list::Lists;
use turns::Turns;

/// Time between the end of an upload's time limit and the answer: the commit, and the refusal with its reason.
const ANSWER_MARGIN: Duration = Duration::from_mins(1);

/// Parts that the handlers need.
#[derive(Debug)]
pub struct BlossomParts {
    /// PostgreSQL pools. Reads use the write pool or the session pool, because they must see the latest commits.
    pub pools: Pools,
    /// Writer of the journals of blobs.
    pub journal: Writer<BlobJournal>,
    /// Which blobs have changed.
    pub changes: Changes,
    /// The upstreams, and the way to servers that clients name.
    pub upstreams: Arc<Upstreams>,
    /// What goes on after an answer runs on it: the copies to the remaining upstreams.
    pub lifecycle: Lifecycle,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Metrics of blobs.
    pub metrics: BlobMetrics,
    /// Names under which the listener is reached, beside that in `services.blossom.public_url`: `http.hosts`.
    pub hosts: Vec<String>,
    /// Effective settings.
    pub settings: Blossom,
}

/// State that all routes share. Clones share it.
#[derive(Clone)]
pub struct BlossomState(Arc<Inner>);

struct Inner {
    parts: BlossomParts,
    address: SocketAddr,
    /// Names that a token's `server` tags may name, lower case.
    hosts: Vec<String>,
    /// Keys that may upload; empty: every key.
    allowed: BTreeSet<[u8; 32]>,
    limits: Limits,
    lookups: Lookups,
    lists: Lists,
    turns: Turns,
}

impl BlossomState {
    /// The state of the listener at `address`.
    #[must_use]
    pub fn new(parts: BlossomParts, address: SocketAddr) -> Self {
        let limits = Limits::new(&parts.settings);
        let lookups = Lookups::new(&parts.settings, parts.changes.clone());
        let allowed = parts.settings.allowed_keys();
        let hosts = hosts(&parts, address);
        Self(Arc::new(Inner {
            parts,
            address,
            hosts,
            allowed,
            limits,
            lookups,
            lists: Lists::default(),
            turns: Turns::default(),
        }))
    }

    /// The parts that the state was created from.
    #[must_use]
    pub fn parts(&self) -> &BlossomParts {
        &self.0.parts
    }

    /// The settings.
    fn settings(&self) -> &Blossom {
        &self.0.parts.settings
    }

    /// Rates and numbers of requests.
    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What was found out lately about the places of blobs.
    fn lookups(&self) -> &Lookups {
        &self.0.lookups
    }

    /// Lists of upstreams that were read lately.
    fn lists(&self) -> &Lists {
        &self.0.lists
    }

    /// Turns of uploads and deletions.
    fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Seconds since 1970.
    fn now_s(&self) -> i64 {
        self.0.parts.clock.now().timestamp()
    }

    /// The URL by which clients reach this listener, without a slash at its end: `services.blossom.public_url`, else the name that
    /// the client used. The guard has refused names that are not ours.
    fn base(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.settings().public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        host.map_or_else(|| format!("http://{}", self.0.address), |host| format!("http://{host}"))
    }
}

impl fmt::Debug for BlossomState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlossomState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}

/// The names of this server in tokens (BL-11.7): configured ones, and those by which only programs of this machine or network can
/// mean it.
fn hosts(parts: &BlossomParts, address: SocketAddr) -> Vec<String> {
    let public = parts.settings.public_url.as_deref().map(host_of);
    let ip = address.ip().to_canonical();
    let mut hosts: Vec<String> = parts.hosts.iter().map(|host| host_of(host)).chain(public).collect();
    if !ip.is_unspecified() {
        hosts.push(ip.to_string());
    }
    if ip.is_loopback() || ip.is_unspecified() {
        hosts.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    }
    hosts
}

/// The routes. All are at the root of the listener, as BUD-01 requires.
pub fn routes(state: BlossomState) -> Routes {
    use Access::{Anyone, Proof};
    let upload = Duration::from_secs(state.settings().upload_timeout_max_s.get().into()) + ANSWER_MARGIN;
    Routes::new()
        .get("/health", Anyone, info::health)
        .get("/stats", Anyone, info::stats)
        .put("/upload", Proof, upload::put)
        .head("/upload", Proof, upload::preflight)
        .within("/upload", upload)
        .put("/media", Proof, upload::put_media)
        .head("/media", Proof, upload::preflight_media)
        .within("/media", upload)
        .put("/mirror", Proof, upload::mirror)
        .within("/mirror", upload)
        .put("/report", Proof, report::report)
        .get("/list/{pubkey}", Anyone, list::list)
        .get("/{blob}", Anyone, download::get)
        .head("/{blob}", Anyone, download::head)
        .delete("/{blob}", Proof, delete::delete)
        .merge(info::routes())
        .with_state(state)
}
