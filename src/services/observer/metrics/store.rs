//! The store, and the messages in it.

use crate::store::labels::{JOURNAL, LEASE_KIND};
use crate::telemetry::{Label, describe_metrics};

const PROJECTION: Label = Label::listed("projection", &[&["totals", "job_totals"]]);

/// Journals whose partitions are made in advance.
const AHEAD: Label = Label::listed("journal", &[&["events", "message_payloads"]]);

describe_metrics! { Observer;
    LEASES: Gauge = "quipu_store_held_leases" [LEASE_KIND], "Leases that have not expired";
    LAG_TICKS: Gauge = "quipu_store_projection_lag_ticks" [PROJECTION],
        "Ticks that the projection has to read; 0 when it has read every batch";
    LAG_SECONDS: Gauge = "quipu_store_projection_lag_seconds" [PROJECTION],
        "Age of the oldest batch that the projection has not read";
    TICK_AGE: Gauge = "quipu_store_tick_age_seconds" [],
        "Age of the newest tick; an idle database takes none";
    ROWS: Gauge = "quipu_store_journal_rows" [JOURNAL], "Rows of a journal, by PostgreSQL's estimate";
    BYTES: Gauge = "quipu_store_journal_bytes" [JOURNAL],
        "Bytes of a journal on disk, with indexes and TOAST, over all partitions";
    DATABASE: Gauge = "quipu_store_database_bytes" [], "Bytes of the whole database on disk";
    PARTITIONS_AHEAD: Gauge = "quipu_store_ahead_partitions" [AHEAD],
        "Partitions that begin in the future: months of events, hours of message_payloads";
    VERIFIED: Gauge = "quipu_store_verify_timestamp_seconds" [],
        "End of the newest run of `quipu verify`, Unix time; absent if there was none";
    VERIFY_DURATION: Gauge = "quipu_store_verify_duration_seconds" [], "Duration of that run";
    VERIFY_PROBLEMS: Gauge = "quipu_store_verify_problems" [], "Problems that it found";
    STORED: Gauge = "quipu_messages_stored_messages" [], "Messages with a payload, by PostgreSQL's estimate";
    PENDING: Gauge = "quipu_messages_pending_messages" [],
        "Unexpired messages that no device has acknowledged, among the 10,000 that expire first";
    OLDEST_PENDING: Gauge = "quipu_messages_oldest_pending_seconds" [],
        "Age of the oldest of these; 0 when there is none";
    NEXT_LOSS: Gauge = "quipu_messages_next_loss_seconds" [],
        "Time until the first of these expires; absent when there is none";
}
