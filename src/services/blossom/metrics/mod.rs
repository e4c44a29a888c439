//! Metrics of the room.
//!
//! Uploads, downloads and refusals are counted by the room's edge, requests to upstreams by `upstream/`, entries of
//! `blob_log` after their commit, repairs and adoptions by `react/`. The label `upstream` has the servers in the
//! settings and no others: [`BlobMetrics::upstream`] is called once for each when they are opened.

mod labels;
mod upstream;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::telemetry::{Label, describe_metrics};

pub use labels::{
    AdoptionOutcome, CallOutcome, DownloadOutcome, LookupSource, Operation, RepairOutcome, UploadOutcome, Way,
};
pub use upstream::UpstreamMetrics;
use upstream::{CallLabels, REPLICA_KINDS, ReplicaLabels, UpstreamLabel};

const WAY: Label = Label::listed("how", &[Way::WORDS]);
const UPLOAD_OUTCOME: Label = Label::listed("outcome", &[UploadOutcome::WORDS]);
const DOWNLOAD_OUTCOME: Label = Label::listed("outcome", &[DownloadOutcome::WORDS]);
const SOURCE: Label = Label::listed("how", &[LookupSource::WORDS]);
const OPERATION: Label = Label::listed("operation", &[Operation::WORDS]);
const CALL_OUTCOME: Label = Label::listed("outcome", &[CallOutcome::WORDS]);
const REPAIR_OUTCOME: Label = Label::listed("outcome", &[RepairOutcome::WORDS]);
const ADOPTION_OUTCOME: Label = Label::listed("outcome", &[AdoptionOutcome::WORDS]);
const KIND: Label = Label::listed("kind", &[REPLICA_KINDS]);

/// Servers of `services.blossom.upstreams`, by URL. The observer's metrics have it as well.
pub(crate) const UPSTREAM: Label =
    Label::configured("upstream", "the URLs in `services.blossom.upstreams`, or that of the built-in store");

const REASON: Label = Label::constants(
    "reason",
    "what is wrong with the request: `no_token`, `bad_token`, `expired_token`, `wrong_verb`, `wrong_blob`, \
     `wrong_server`, `not_allowed`, `bad_hash`, `hash_mismatch`, `bad_length`, `too_large`, `bad_type`, `bad_range`, \
     `bad_url`, `bad_report`, `bad_query`, `not_owner`, `other_site`, `banned`, `over_bytes`, `over_blobs`, `too_many`, `absent`; \
     what the upstreams did: `no_quorum`, `no_upstream`, `not_deleted`, `unavailable`; or the store's failure: `store_data`, \
     `no_space`, `store_busy`, `store_broken`",
);

describe_metrics! { Process;
    UPLOADS: Counter = "quipu_blossom_uploads_total" [WAY, UPLOAD_OUTCOME], "Requests to store a blob, by how they ended";
    UPLOAD_TIME: Histogram = "quipu_blossom_upload_seconds" [],
        "Time from the request to the answer of uploads that stored a blob";
    UPLOADING: Gauge = "quipu_blossom_upload_requests" [], "Uploads in progress";
    REPLICATING: Gauge = "quipu_blossom_background_requests" [],
        "Requests to upstreams that go on after the upload was answered";
    RECEIVED: Counter = "quipu_blossom_received_bytes_total" [], "Bytes of blobs received from clients";
    SENT: Counter = "quipu_blossom_sent_bytes_total" [], "Bytes of blobs sent to clients";
    DOWNLOADS: Counter = "quipu_blossom_downloads_total" [DOWNLOAD_OUTCOME],
        "Requests for a blob (GET and HEAD), by how they ended";
    LOOKUPS: Counter = "quipu_blossom_lookups_total" [SOURCE], "Look-ups of the replicas of a blob, by where they ended";
    REFUSALS: Counter = "quipu_blossom_refusals_total" [REASON], "Requests refused";
    CALLS: Counter = "quipu_blossom_upstream_requests_total" [UPSTREAM, OPERATION, CALL_OUTCOME],
        "Requests to an upstream, by how they ended";
    CALL_TIME: Histogram = "quipu_blossom_upstream_answer_seconds" [UPSTREAM],
        "Time until an upstream answered a HEAD, or began to answer a GET";
    UPSTREAM_SENT: Counter = "quipu_blossom_upstream_sent_bytes_total" [UPSTREAM], "Bytes of blobs sent to an upstream";
    UPSTREAM_RECEIVED: Counter = "quipu_blossom_upstream_received_bytes_total" [UPSTREAM],
        "Bytes of blobs received from an upstream";
    HEALTHY: Gauge = "quipu_blossom_upstream_healthy" [UPSTREAM],
        "1 when requests are sent to the upstream, 0 while its circuit is open after failures";
    OTHER_BYTES: Counter = "quipu_blossom_upstream_other_bytes_total" [UPSTREAM],
        "Blobs that an upstream gave with bytes of another hash";
    REPLICAS: Counter = "quipu_blossom_replica_entries_total" [UPSTREAM, KIND],
        "Entries of `blob_log` about a replica that this process committed";
    REPAIRS: Counter = "quipu_blossom_repairs_total" [REPAIR_OUTCOME],
        "Attempts to make another replica of a blob that has too few";
    REPAIRED: Counter = "quipu_blossom_repaired_bytes_total" [], "Bytes of replicas made by repair";
    ADOPTIONS: Counter = "quipu_blossom_adoptions_total" [ADOPTION_OUTCOME],
        "Attempts to adopt a blob to which an event of a followed key refers";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabels {
    how: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabel {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Metrics of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct BlobMetrics {
    uploads: Family<WayLabels, Counter>,
    upload_time: Histogram,
    uploading: Gauge,
    replicating: Gauge,
    received: Counter,
    sent: Counter,
    downloads: Family<OutcomeLabel, Counter>,
    lookups: Family<HowLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    calls: Family<CallLabels, Counter>,
    call_time: Family<UpstreamLabel, Histogram>,
    upstream_sent: Family<UpstreamLabel, Counter>,
    upstream_received: Family<UpstreamLabel, Counter>,
    healthy: Family<UpstreamLabel, Gauge>,
    other_bytes: Family<UpstreamLabel, Counter>,
    replicas: Family<ReplicaLabels, Counter>,
    repairs: Family<OutcomeLabel, Counter>,
    repaired: Counter,
    adoptions: Family<OutcomeLabel, Counter>,
}

impl Default for BlobMetrics {
    fn default() -> Self {
        Self {
            uploads: Family::default(),
            // From 10 ms to an hour.
            upload_time: Histogram::new(exponential_buckets(0.01, 3.0, 12)),
            uploading: Gauge::default(),
            replicating: Gauge::default(),
            received: Counter::default(),
            sent: Counter::default(),
            downloads: Family::default(),
            lookups: Family::default(),
            refused: Family::default(),
            calls: Family::default(),
            // From 1 ms to 33 s, beyond the time limit of such a request.
            call_time: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            upstream_sent: Family::default(),
            upstream_received: Family::default(),
            healthy: Family::default(),
            other_bytes: Family::default(),
            replicas: Family::default(),
            repairs: Family::default(),
            repaired: Counter::default(),
            adoptions: Family::default(),
        }
    }
}

impl BlobMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        for &how in Way::WORDS {
            for &outcome in UploadOutcome::WORDS {
                drop(self.uploads.get_or_create(&WayLabels { how, outcome }));
            }
        }
        UPLOADS.register(registry, self.uploads.clone());
        UPLOAD_TIME.register(registry, self.upload_time.clone());
        UPLOADING.register(registry, self.uploading.clone());
        REPLICATING.register(registry, self.replicating.clone());
        RECEIVED.register(registry, self.received.clone());
        SENT.register(registry, self.sent.clone());
        for &outcome in DownloadOutcome::WORDS {
            drop(self.downloads.get_or_create(&OutcomeLabel { outcome }));
        }
        DOWNLOADS.register(registry, self.downloads.clone());
        for &how in LookupSource::WORDS {
            drop(self.lookups.get_or_create(&HowLabel { how }));
        }
        LOOKUPS.register(registry, self.lookups.clone());
        REFUSALS.register(registry, self.refused.clone());
        CALLS.register(registry, self.calls.clone());
        CALL_TIME.register(registry, self.call_time.clone());
        UPSTREAM_SENT.register(registry, self.upstream_sent.clone());
        UPSTREAM_RECEIVED.register(registry, self.upstream_received.clone());
        HEALTHY.register(registry, self.healthy.clone());
        OTHER_BYTES.register(registry, self.other_bytes.clone());
        REPLICAS.register(registry, self.replicas.clone());
        for &outcome in RepairOutcome::WORDS {
            drop(self.repairs.get_or_create(&OutcomeLabel { outcome }));
        }
        REPAIRS.register(registry, self.repairs.clone());
        REPAIRED.register(registry, self.repaired.clone());
        for &outcome in AdoptionOutcome::WORDS {
            drop(self.adoptions.get_or_create(&OutcomeLabel { outcome }));
        }
        ADOPTIONS.register(registry, self.adoptions.clone());
    }

    /// Counts an upload that begins, until the guard is dropped.
    #[must_use]
    pub fn upload_began(&self) -> Running {
        Running::begin(&self.uploading)
    }

    /// Counts a request to an upstream that outlives the answer to its upload, until the guard is dropped.
    #[must_use]
    pub fn background_began(&self) -> Running {
        Running::begin(&self.replicating)
    }

    /// Counts the end of an upload, and for one that stored a blob the time that it took.
    pub fn uploaded(&self, way: Way, outcome: UploadOutcome, took: Duration) {
        self.uploads.get_or_create(&WayLabels { how: way.as_str(), outcome: outcome.as_str() }).inc();
        if outcome == UploadOutcome::Stored {
            self.upload_time.observe(took.as_secs_f64());
        }
    }

    /// Counts bytes of a blob that a client sent.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Counts bytes of a blob that a client got.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Counts the end of a request for a blob.
    pub fn downloaded(&self, outcome: DownloadOutcome) {
        self.downloads.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// Counts a look-up of the replicas of a blob.
    pub fn looked_up(&self, source: LookupSource) {
        self.lookups.get_or_create(&HowLabel { how: source.as_str() }).inc();
    }

    /// Counts a refused request. `reason` is one of a fixed list, so that the number of time series is bounded.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts an attempt to make another replica, and its bytes if it was made.
    pub fn repaired(&self, outcome: RepairOutcome, bytes: u64) {
        self.repairs.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
        if matches!(outcome, RepairOutcome::Copied | RepairOutcome::Mirrored) {
            self.repaired.inc_by(bytes);
        }
    }

    /// Counts an attempt to adopt a blob.
    pub fn adopted(&self, outcome: AdoptionOutcome) {
        self.adoptions.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }
}

/// Counts one as running until it is dropped, however it ends.
#[derive(Debug)]
pub struct Running(Gauge);

impl Running {
    fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
