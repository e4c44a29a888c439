//! Blobs and their copies.

use crate::telemetry::{Label, describe_metrics};

const STATE: Label = Label::listed("state", &[&["accepted", "readable", "failed", "lost", "deleted"]]);

/// Those that rows name; a service of blobs writes the names of its own settings alone.
const UPSTREAM: Label =
    Label::configured("upstream", "the URLs in `services.blossom.upstreams`, now or earlier");

describe_metrics! { Observer;
    KEPT: Gauge = "quipu_blossom_kept_blobs" [], "Blobs that have an owner";
    KEPT_BYTES: Gauge = "quipu_blossom_kept_bytes" [], "Their sizes, each once whatever the number of its copies";
    UNDER_REPLICATED: Gauge = "quipu_blossom_under_replicated_blobs" [],
        "Kept blobs with fewer readable or accepted copies than `services.blossom.replicas_target`; copies at upstreams that left the settings count";
    UNAVAILABLE: Gauge = "quipu_blossom_unavailable_blobs" [], "Kept blobs without any readable or accepted copy";
    OWNERS: Gauge = "quipu_blossom_known_owners" [], "Keys that own a blob";
    OLDEST_UNVERIFIED: Gauge = "quipu_blossom_oldest_unverified_seconds" [],
        "Age of the oldest copy that an upstream accepted and that was not read back yet; 0 when there is none";
    REPLICAS: Gauge = "quipu_blossom_recorded_replicas" [UPSTREAM, STATE], "Copies by upstream and state";
}
