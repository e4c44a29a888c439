//! The archive's projections, each with the statements that rebuild and verify it.

pub mod verify;

use crate::store::projection::{Projection, Upkeep};

/// All projections of the archive.
pub const PROJECTIONS: &[Projection] = &[RELAYS, CANDIDATES, RELAY_PROGRESS, REQUESTS, TOTALS];

const RELAYS: Projection = Projection {
    name: "relays",
    tables: &["relays"],
    journals: &["relay_log"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_relays
        INSERT INTO relays (number, url, network, inserted_at, source, retired_at, refused_reason)
        SELECT a.relay, a.url, a.network, a.recorded_at, s.source, (quipu_relay_state(a.relay, s.source)).*
        FROM relay_log a
        CROSS JOIN LATERAL (
            SELECT coalesce((SELECT n.detail ->> 'source' FROM relay_log n WHERE n.relay = a.relay AND n.kind = 'named'
                             ORDER BY n.position DESC LIMIT 1), a.detail ->> 'source') AS source) s
        WHERE a.kind = 'added'"],
};

/// `found` and `dropped` of one URL are appended under one lock, so the entry with the greatest position is
/// the latest.
const CANDIDATES: Projection = Projection {
    name: "candidates",
    tables: &["candidates"],
    journals: &["relay_log"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_candidates
        INSERT INTO candidates (url, network, found_at, source, domain)
        SELECT l.url, l.network, l.recorded_at, l.detail ->> 'source', coalesce(l.detail ->> 'domain', quipu_wide_domain(l.url))
        FROM (SELECT DISTINCT ON (c.url) c.* FROM relay_log c WHERE c.kind IN ('found', 'dropped') ORDER BY c.url, c.position DESC) l
        WHERE l.kind = 'found' AND NOT EXISTS (SELECT FROM relay_log a WHERE a.kind = 'added' AND a.url = l.url)"],
};

/// The same definition as BigBrotr's `relay_last_event_timestamp`: a join over all sightings.
const RELAY_PROGRESS: Projection = Projection {
    name: "relay_progress",
    tables: &["relay_progress"],
    journals: &["events", "sightings"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_relay_progress
        INSERT INTO relay_progress (relay, last_created_at)
        SELECT s.relay, max(e.created_at) FROM sightings s JOIN events e ON e.number = s.event
        GROUP BY s.relay"],
};

/// Requests in events for deletion or expiration, where tags are stored. Requests to vanish are in a journal
/// of their own.
const REQUESTS: Projection = Projection {
    name: "requests",
    tables: &["deletions", "expirations"],
    journals: &["events"],
    upkeep: Upkeep::SameCommit,
    statements: &[
        "-- replay_deletions
         INSERT INTO deletions (target, request, created_at, pubkey, by_address)
         SELECT t.target, e.number, e.created_at, e.pubkey, t.by_address
         FROM events e CROSS JOIN LATERAL quipu_deletion_targets(e.pubkey, e.tags) t WHERE e.kind = 5",
        "-- replay_expirations
         INSERT INTO expirations (event, expires_at)
         SELECT e.number, quipu_expires_at(e.tags) FROM events e
         WHERE e.tags @> '[[\"expiration\"]]' AND quipu_expires_at(e.tags) IS NOT NULL",
    ],
};

const TOTALS: Projection = Projection {
    name: "totals",
    tables: &["kind_totals", "relay_totals", "minute_totals"],
    journals: &["ingest_log"],
    upkeep: Upkeep::Ticks,
    statements: &[
        "-- add_kind_totals
         INSERT INTO kind_totals AS t (kind, events)
         SELECT k.kind, sum(k.n) FROM {ingest_log} l CROSS JOIN LATERAL unnest(l.kinds, l.kind_counts) AS k (kind, n)
         GROUP BY k.kind ORDER BY k.kind
         ON CONFLICT (kind) DO UPDATE SET events = t.events + excluded.events",
        "-- add_relay_totals
         INSERT INTO relay_totals AS t (relay, sightings, compared)
         SELECT r.relay, sum(r.n), sum(coalesce(r.compared, 0))
         FROM {ingest_log} l CROSS JOIN LATERAL unnest(l.relays, l.relay_counts, l.relay_compared) AS r (relay, n, compared)
         GROUP BY r.relay ORDER BY r.relay
         ON CONFLICT (relay) DO UPDATE SET sightings = t.sightings + excluded.sightings, compared = t.compared + excluded.compared",
        "-- add_minute_totals
         INSERT INTO minute_totals AS t (minute, offered, stored, sightings)
         SELECT date_trunc('minute', l.recorded_at), sum(l.offered), sum(l.stored), sum(l.sighted) FROM {ingest_log} l
         GROUP BY 1 ORDER BY 1
         ON CONFLICT (minute) DO UPDATE SET offered = t.offered + excluded.offered, stored = t.stored + excluded.stored,
                                            sightings = t.sightings + excluded.sightings",
    ],
};
