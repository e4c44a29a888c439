//! The projections of blobs, all kept in the commit of the journals, and what `quipu verify` checks beyond them.

use crate::store::projection::{Projection, Upkeep};
use crate::store::verify::Check;

/// All projections of blobs.
pub const PROJECTIONS: &[Projection] = &[REPLICAS, OWNERS, COPIES, BANS];

/// The last entry of a copy holds its state, and the first one in a row with this state says since when and why.
const REPLICAS: Projection = Projection {
    name: "blob_replicas",
    tables: &["blob_replicas"],
    journals: &["blob_log"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_blob_replicas
        INSERT INTO blob_replicas (sha256, upstream, state, since, why)
        SELECT DISTINCT ON (l.sha256, l.upstream) l.sha256, l.upstream, l.state, l.recorded_at, l.why
        FROM (SELECT l.*, lag(l.state) OVER (PARTITION BY l.sha256, l.upstream ORDER BY l.position) AS was
              FROM blob_log l WHERE l.state IS NOT NULL) l
        WHERE l.state IS DISTINCT FROM l.was
        ORDER BY l.sha256, l.upstream, l.position DESC"],
};

/// An entry is written only when a key gets or loses a blob, so the last one says whether it has it.
const OWNERS: Projection = Projection {
    name: "blob_owners",
    tables: &["blob_owners", "blob_usage"],
    journals: &["blob_log", "blobs"],
    upkeep: Upkeep::SameCommit,
    statements: &[
        "-- replay_blob_owners
        INSERT INTO blob_owners (owner, sha256, uploaded)
        SELECT l.owner, l.sha256, extract(epoch FROM date_trunc('second', l.recorded_at))::bigint
        FROM (SELECT DISTINCT ON (x.owner, x.sha256) x.owner, x.sha256, x.kind, x.recorded_at
              FROM blob_log x WHERE x.owner IS NOT NULL ORDER BY x.owner, x.sha256, x.position DESC) l
        WHERE l.kind <> 'disowned'",
        "-- replay_blob_usage
        INSERT INTO blob_usage (owner, blobs, bytes)
        SELECT o.owner, count(*), sum(b.size)::bigint FROM blob_owners o JOIN blobs b ON b.sha256 = o.sha256 GROUP BY o.owner",
    ],
};

const COPIES: Projection = Projection {
    name: "blob_copies",
    tables: &["blob_copies"],
    journals: &["blobs", "blob_log"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_blob_copies
        INSERT INTO blob_copies (sha256, size, owners, copies)
        SELECT b.sha256, b.size, coalesce(o.owners, 0)::integer, coalesce(c.copies, 0)::integer
        FROM blobs b
        LEFT JOIN (
            SELECT l.sha256, count(*) AS owners
            FROM (SELECT DISTINCT ON (x.owner, x.sha256) x.sha256, x.kind
                  FROM blob_log x WHERE x.owner IS NOT NULL ORDER BY x.owner, x.sha256, x.position DESC) l
            WHERE l.kind <> 'disowned' GROUP BY l.sha256) o ON o.sha256 = b.sha256
        LEFT JOIN (
            SELECT l.sha256, count(*) AS copies
            FROM (SELECT DISTINCT ON (x.sha256, x.upstream) x.sha256, x.state
                  FROM blob_log x WHERE x.state IS NOT NULL ORDER BY x.sha256, x.upstream, x.position DESC) l
            WHERE l.state IN ('readable', 'accepted') GROUP BY l.sha256) c ON c.sha256 = b.sha256"],
};

const BANS: Projection = Projection {
    name: "blob_bans",
    tables: &["blob_bans"],
    journals: &["blob_log", "erasure"],
    upkeep: Upkeep::SameCommit,
    statements: &["-- replay_blob_bans
        INSERT INTO blob_bans (sha256, why, since, is_erased)
        SELECT l.sha256, l.why, l.recorded_at, false
        FROM (SELECT DISTINCT ON (x.sha256) x.* FROM blob_log x WHERE x.kind IN ('banned', 'unbanned') ORDER BY x.sha256, x.position DESC) l
        WHERE l.kind = 'banned'
        UNION ALL
        SELECT x.sha256, 'erased', x.recorded_at, true FROM erasure x WHERE x.kind = 'blob'"],
};

/// Invariants of the journals.
pub const CHECKS: &[Check] = &[
    Check {
        what: "every owner and every copy of a blob belongs to a blob that was seen here",
        query: "-- verify_blob_entries
         SELECT format('blob %s has entries of copies or owners and was never seen', encode(l.sha256, 'hex'))
         FROM blob_log l WHERE num_nonnulls(l.upstream, l.owner) > 0 AND NOT EXISTS (SELECT FROM blobs b WHERE b.sha256 = l.sha256)
         GROUP BY l.sha256 LIMIT 100",
    },
    Check {
        what: "each key gets a blob before it loses it, and gets none that it has",
        query: "-- verify_blob_owners
         SELECT format('blob %s, key %s: %s follows %s', encode(l.sha256, 'hex'), encode(l.owner, 'hex'), l.kind, coalesce(l.before, 'nothing'))
         FROM (SELECT x.sha256, x.owner, x.kind, lag(x.kind) OVER (PARTITION BY x.owner, x.sha256 ORDER BY x.position) AS before
               FROM blob_log x WHERE x.owner IS NOT NULL) l
         WHERE (l.kind = 'disowned') = (coalesce(l.before, 'disowned') = 'disowned') LIMIT 100",
    },
    Check {
        what: "no erased blob has come back",
        query: "-- verify_erased_blobs
         SELECT format('blob %s was erased and is there', encode(x.sha256, 'hex')) FROM erasure x
         WHERE x.kind = 'blob'
           AND (EXISTS (SELECT FROM blobs b WHERE b.sha256 = x.sha256) OR EXISTS (SELECT FROM blob_log l WHERE l.sha256 = x.sha256)
                OR EXISTS (SELECT FROM blob_wanted w WHERE w.sha256 = x.sha256) OR EXISTS (SELECT FROM blob_reports r WHERE r.sha256 = x.sha256))",
    },
];
