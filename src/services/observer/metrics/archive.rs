//! The archive: what it holds, and how far it is behind its relays.

use crate::telemetry::{Label, NETWORK, describe_metrics};

const STATE: Label = Label::listed("state", &[&["active", "retired", "refused"]]);
const READABLE: Label = Label::listed("readable", &[&["yes", "no", "unchecked"]]);
const CANDIDATE: Label = Label::listed("state", &[&["untried", "due", "waiting"]]);
const HOW: Label = Label::listed("how", &[&["shown", "compared"]]);
const VANISH: Label = Label::listed("state", &[&["received", "honoured"]]);
const SHARE: Label = Label::listed("share", &[&["0.5", "0.9", "1"]]);

/// As [`GapCause`](crate::services::archive::event::GapCause), and `other` for gaps without a cause.
const CAUSE: Label = Label::listed(
    "reason",
    &[&[
        "crowded_second",
        "withheld",
        "oversized_message",
        "contradictory",
        "unusable",
        "late_events",
        "other",
    ]],
);

describe_metrics! { Observer;
    RELAYS: Gauge = "quipu_archive_relays" [NETWORK, STATE, READABLE],
        "Known relays; `readable` is the result of the latest check";
    CANDIDATES: Gauge = "quipu_archive_candidates" [NETWORK, CANDIDATE],
        "Candidates: never tried, failed and due again, or failed with the next try ahead";
    EVENTS: Gauge = "quipu_archive_stored_events" [],
        "Events in the archive, as of the projection, without erased ones";
    SIGHTINGS: Gauge = "quipu_archive_recorded_sightings" [HOW],
        "Sightings in the archive, as of the projection, without erased ones";
    DAY_EVENTS: Gauge = "quipu_archive_last_day_events" [], "Events stored in the last 24 hours";
    DAY_SIGHTINGS: Gauge = "quipu_archive_last_day_sightings" [], "Sightings recorded in the last 24 hours";
    GROWTH: Gauge = "quipu_archive_daily_growth_bytes" [],
        "Bytes that a day adds to events and sightings, as the mean of the last seven days; absent in the \
         first hour";
    VANISH_REQUESTS: Gauge = "quipu_archive_vanish_requests" [VANISH],
        "Requests to vanish (NIP-62) that were received, and that were carried out";
    GAPS: Gauge = "quipu_archive_known_gaps" [CAUSE], "Windows known to be incomplete";
    GAP_RELAYS: Gauge = "quipu_archive_gap_relays" [NETWORK], "Relays with such a window";
    PROVEN_RELAYS: Gauge = "quipu_archive_proven_relays" [NETWORK],
        "Relays with a window proven to be complete";
    UNVISITED: Gauge = "quipu_archive_unvisited_relays" [NETWORK],
        "Relays to crawl of which no session has read anything";
    OPEN: Gauge = "quipu_archive_open_relays" [NETWORK], "Relays whose newest session left windows to read";
    OLDEST_OPEN: Gauge = "quipu_archive_oldest_open_window_seconds" [NETWORK, SHARE],
        "Age of the oldest second that no window settles: years while history is read, minutes when a relay \
         is caught up. `share`: of the relays to crawl, so many are not further behind";
    CERTIFICATES: Gauge = "quipu_archive_expiring_certificate_relays" [NETWORK],
        "Active relays whose TLS certificate ends within seven days or has ended, by the latest check";
}
