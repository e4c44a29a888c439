//! From what was read to what the rules look at.

use std::collections::BTreeMap;

use super::{Figures, Status};
use crate::lifecycle::{ServiceHealth, ServiceState};
use crate::services::console::decide::{Blobs, Facts, Messages, Network, Trouble};

/// The projection that has the minutes in which events were stored.
const TOTALS: &str = "totals";

pub(super) fn facts(status: &Status) -> Facts {
    let figures = &status.figures;
    let pulse = status.archive.as_ref().map(|archive| &archive.totals.pulse);
    let lags = pulse.map(|pulse| pulse.lags.as_slice()).unwrap_or_default();
    Facts {
        now: status.now,
        troubles: status.services.iter().filter_map(|(name, health)| trouble(name, health)).collect(),
        is_database_read: status.archive.is_some(),
        unread: unread(figures),
        spare_bytes: figures.spare_bytes,
        daily_growth_bytes: figures.sizes.as_ref().and_then(|sizes| sizes.daily_growth_bytes),
        verified: figures
            .verification
            .as_ref()
            .and_then(|run| run.as_ref().as_ref())
            .map(|run| (run.ended_at, run.problems)),
        lags: lags.iter().map(|lag| (lag.projection.clone(), lag.seconds)).collect(),
        has_totals: lags.iter().any(|lag| lag.projection == TOTALS),
        last_stored_at: figures.signs.as_ref().and_then(|signs| signs.last_stored_at),
        first_relay_at: figures.signs.as_ref().and_then(|signs| signs.first_relay_at),
        networks: networks(figures),
        gaps: figures.gaps.as_ref().map(|known| known.causes.iter().map(|(_, gaps)| gaps).sum()),
        messages: figures.traffic.as_ref().map(|traffic| Messages {
            accepted: traffic.accepted,
            acknowledged: traffic.acknowledged,
            oldest_s: figures.messages.as_ref().and_then(|messages| messages.oldest_s),
        }),
        blobs: figures.blobs.as_ref().map(|blobs| Blobs {
            unavailable: blobs.unavailable,
            oldest_unverified_s: blobs.oldest_unverified_s,
        }),
    }
}

fn trouble(name: &str, health: &ServiceHealth) -> Option<Trouble> {
    let (since, reason, is_waiting) = match &health.state {
        ServiceState::Failing { since, reason } => (*since, reason, false),
        ServiceState::Waiting { since, reason } => (*since, reason, true),
        ServiceState::Starting | ServiceState::Ok | ServiceState::Done | ServiceState::Stopped => {
            return None;
        }
    };
    Some(Trouble { service: name.to_owned(), since, reason: reason.clone(), is_waiting })
}

fn unread(figures: &Figures) -> Vec<&'static str> {
    let groups = [
        ("relays and backlog", figures.archive.is_some()),
        ("gaps", figures.gaps.is_some()),
        ("proofs and certificates", figures.coverage.is_some()),
        ("sizes", figures.sizes.is_some()),
        ("waiting messages", figures.messages.is_some()),
        ("the newest verification", figures.verification.is_some()),
        ("sessions", figures.signs.is_some()),
        ("traffic of messages", figures.traffic.is_some()),
        ("blobs", figures.blobs.is_some()),
    ];
    groups.into_iter().filter(|(_, is_read)| !is_read).map(|(group, _)| group).collect()
}

fn networks(figures: &Figures) -> Vec<Network> {
    let mut found: BTreeMap<&str, Network> = BTreeMap::new();
    let archive = figures.archive.as_deref();
    for row in archive.iter().flat_map(|archive| &archive.relays).filter(|row| row.state == "active") {
        let network = found.entry(&row.network).or_default();
        network.active += row.relays;
        if row.readable == "yes" {
            network.readable += row.relays;
        }
    }
    for row in archive.iter().flat_map(|archive| &archive.backlog) {
        found.entry(&row.network).or_default().median_s = row.median_s;
    }
    for row in figures.coverage.iter().flat_map(|networks| networks.iter()) {
        found.entry(&row.network).or_default().expiring = row.expiring;
    }
    for row in figures.signs.iter().flat_map(|signs| &signs.sessions) {
        let network = found.entry(&row.network).or_default();
        network.failed_sessions = row.failed;
        network.is_heard = row.is_heard;
        network.last_heard_at = row.last_heard_at;
    }
    found.into_iter().map(|(name, network)| Network { name: name.to_owned(), ..network }).collect()
}
