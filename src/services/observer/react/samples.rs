//! From what was read to the values of metrics.

use crate::services::observer::metrics::{
    archive as of_archive, blossom as of_blossom, jobs as of_jobs, server as of_server, store as of_store,
};
use crate::services::observer::read::{Jobs, Sessions, Store, Tables};
use crate::store::PoolerFigures;
use crate::store::figures::{Archive, Blobs, Copies, Gaps, Messages, NetworkCoverage, Sizes};
use crate::store::labels::{lease_kind, role};
use crate::telemetry::Samples;

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn count(number: i64) -> f64 {
    number as f64
}

pub(super) fn store(read: &Store, samples: &mut Samples) {
    for (service, leases) in &read.leases {
        samples.add(&of_store::LEASES, &[lease_kind(service)], count(*leases));
    }
    samples.add_some(&of_store::TICK_AGE, read.tick_age_s);
    for lag in &read.lags {
        samples.add(&of_store::LAG_TICKS, &[&lag.projection], count(lag.ticks));
        samples.add(&of_store::LAG_SECONDS, &[&lag.projection], lag.seconds);
    }
}

pub(super) fn sizes(read: &Sizes, samples: &mut Samples) {
    for journal in &read.journals {
        samples.add(&of_store::ROWS, &[&journal.journal], count(journal.rows));
        samples.add(&of_store::BYTES, &[&journal.journal], count(journal.bytes));
    }
    samples.add(&of_store::DATABASE, &[], count(read.database_bytes));
    samples.add_some(&of_archive::GROWTH, read.daily_growth_bytes);
    samples.add(&of_store::PARTITIONS_AHEAD, &["events"], count(read.months_ahead));
    samples.add(&of_store::PARTITIONS_AHEAD, &["message_payloads"], count(read.hours_ahead));
}

pub(super) fn archive(read: &Archive, samples: &mut Samples) {
    for row in &read.relays {
        samples.add(&of_archive::RELAYS, &[&row.network, &row.state, &row.readable], count(row.relays));
    }
    for row in &read.candidates {
        samples.add(&of_archive::CANDIDATES, &[&row.network, &row.state], count(row.candidates));
    }
    for row in &read.backlog {
        samples.add(&of_archive::UNVISITED, &[&row.network], count(row.unvisited));
        samples.add(&of_archive::OPEN, &[&row.network], count(row.open));
        for (share, age_s) in [("0.5", row.median_s), ("0.9", row.p90_s), ("1", row.oldest_s)] {
            if let Some(age_s) = age_s {
                samples.add(&of_archive::OLDEST_OPEN, &[&row.network, share], age_s);
            }
        }
    }
    let totals = &read.totals;
    samples.add(&of_archive::EVENTS, &[], count(totals.events));
    samples.add(&of_archive::SIGHTINGS, &["shown"], count(totals.sightings - totals.compared));
    samples.add(&of_archive::SIGHTINGS, &["compared"], count(totals.compared));
    samples.add(&of_archive::DAY_EVENTS, &[], count(totals.day_events));
    samples.add(&of_archive::DAY_SIGHTINGS, &[], count(totals.day_sightings));
    samples.add(&of_archive::VANISH_REQUESTS, &["received"], count(totals.vanish_requests));
    samples.add(&of_archive::VANISH_REQUESTS, &["honoured"], count(totals.vanish_honoured));
}

pub(super) fn gaps(read: &Gaps, samples: &mut Samples) {
    for (cause, gaps) in &read.causes {
        samples.add(&of_archive::GAPS, &[cause], count(*gaps));
    }
    for (network, relays) in &read.relays {
        samples.add(&of_archive::GAP_RELAYS, &[network], count(*relays));
    }
}

pub(super) fn coverage(read: &[NetworkCoverage], samples: &mut Samples) {
    for row in read {
        samples.add(&of_archive::PROVEN_RELAYS, &[&row.network], count(row.proven));
        samples.add(&of_archive::CERTIFICATES, &[&row.network], count(row.expiring));
    }
}

pub(super) fn messages(read: &Messages, samples: &mut Samples) {
    samples.add(&of_store::STORED, &[], count(read.stored));
    samples.add(&of_store::PENDING, &[], count(read.pending));
    samples.add(&of_store::OLDEST_PENDING, &[], read.oldest_s.unwrap_or(0.0));
    samples.add_some(&of_store::NEXT_LOSS, read.next_loss_s);
}

/// A status without jobs or workers is exported as 0.
pub(super) fn jobs(read: &Jobs, samples: &mut Samples) {
    let of = |counts: &[(String, i64)], state: &str| {
        counts.iter().find(|(known, _)| known == state).map_or(0, |(_, number)| *number)
    };
    for &state in of_jobs::STATES {
        samples.add(&of_jobs::STORED, &[state], count(of(&read.by_status, state)));
    }
    for &state in of_jobs::WORKER_STATES {
        samples.add(&of_jobs::WORKERS, &[state], count(of(&read.workers, state)));
    }
    let oldest_s = read.backlog.iter().map(|backlog| backlog.oldest_s).fold(0.0, f64::max);
    samples.add(&of_jobs::OLDEST, &[], oldest_s);
    let unserved = read.backlog.iter().filter(|backlog| backlog.is_unserved()).count();
    samples.add(&of_jobs::UNSERVED, &[], count(i64::try_from(unserved).unwrap_or(i64::MAX)));
}

pub(super) fn blobs(read: &Blobs, samples: &mut Samples) {
    samples.add(&of_blossom::KEPT, &[], count(read.kept));
    samples.add(&of_blossom::KEPT_BYTES, &[], count(read.kept_bytes));
    samples.add(&of_blossom::UNDER_REPLICATED, &[], count(read.under_replicated));
    samples.add(&of_blossom::UNAVAILABLE, &[], count(read.unavailable));
    samples.add(&of_blossom::OWNERS, &[], count(read.owners));
    samples.add(&of_blossom::OLDEST_UNVERIFIED, &[], read.oldest_unverified_s.unwrap_or(0.0));
}

pub(super) fn copies(read: &[Copies], samples: &mut Samples) {
    for row in read {
        samples.add(&of_blossom::REPLICAS, &[&row.upstream, &row.state], count(row.replicas));
    }
}

pub(super) fn sessions(read: &Sessions, samples: &mut Samples) {
    samples.add(&of_server::INFO, &[&read.version], 1.0);
    for (state, sessions) in [
        ("active", read.active),
        ("idle", read.idle),
        ("idle_in_transaction", read.idle_in_transaction),
        ("hidden", read.hidden),
    ] {
        samples.add(&of_server::CONNECTIONS, &[state], count(sessions));
    }
    samples.add(&of_server::LIMIT, &[], f64::from(read.connections_max));
    samples.add(&of_server::LONGEST, &[], read.longest_s);
    samples.add(&of_server::WAITING, &[], count(read.waiting_locks));
    samples.add(&of_server::TRANSACTIONS, &["committed"], count(read.committed));
    samples.add(&of_server::TRANSACTIONS, &["rolled_back"], count(read.rolled_back));
    samples.add(&of_server::HITS, &[], count(read.blocks_hit));
    samples.add(&of_server::READS, &[], count(read.blocks_read));
    samples.add(&of_server::TEMPORARY, &[], count(read.temporary_bytes));
    samples.add(&of_server::DEADLOCKS, &[], count(read.deadlocks));
    samples.add(&of_server::WAL, &[], read.wal_bytes);
    samples.add(&of_server::REPLICAS, &[], count(read.replicas));
    samples.add_some(&of_server::LAG_BYTES, read.replica_lag_bytes);
}

pub(super) fn replica(lag_s: Option<f64>, samples: &mut Samples) {
    samples.add_some(&of_server::LAG_SECONDS, lag_s);
}

pub(super) fn tables(read: &Tables, samples: &mut Samples) {
    for (table, rows) in &read.dead_rows {
        samples.add(&of_server::DEAD, &[table], count(*rows));
    }
    samples.add(&of_server::UNFROZEN, &[], count(read.unfrozen));
    if let Some(run) = &read.verification {
        samples.add(&of_store::VERIFIED, &[], count(run.ended_at.timestamp()));
        samples.add(&of_store::VERIFY_DURATION, &[], run.seconds);
        samples.add(&of_store::VERIFY_PROBLEMS, &[], f64::from(run.problems));
    }
}

pub(super) fn pooler(read: &PoolerFigures, samples: &mut Samples) {
    for pool in &read.pools {
        let role = role(&pool.role);
        samples.add(&of_server::CLIENTS, &[role, "active"], pool.clients_active);
        samples.add(&of_server::CLIENTS, &[role, "waiting"], pool.clients_waiting);
        samples.add(&of_server::SERVERS, &[role, "active"], pool.servers_active);
        samples.add(&of_server::SERVERS, &[role, "idle"], pool.servers_idle);
        samples.add(&of_server::SERVERS, &[role, "other"], pool.servers_other);
        samples.add(&of_server::POOLER_WAIT, &[role], pool.longest_wait_s);
    }
    samples.add(&of_server::POOLER_LIMIT, &[], read.clients_max);
    samples.add(&of_server::POOLER_TRANSACTIONS, &[], read.transactions);
    samples.add(&of_server::POOLER_WAITED, &[], read.waited_s);
    samples.add(&of_server::POOLER_RECEIVED, &[], read.received_bytes);
    samples.add(&of_server::POOLER_SENT, &[], read.sent_bytes);
}
