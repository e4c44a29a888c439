//! Rules on the archive.

use chrono::TimeDelta;

use super::{Facts, History, Network, Problem, RECENT, Rule, Severity, store};

/// Age in seconds of the median relay's oldest open second, and by how much it grows in a second.
pub(super) const OPEN_S: f64 = 21_600.0;
pub(super) const OPEN_GROWTH: f64 = 0.5;

/// The span over which that growth is measured.
pub(super) const OPEN_SPAN: TimeDelta = TimeDelta::hours(6);

/// Gaps more than [`GAPS_SPAN`] ago, and their number now in percent of that then.
pub(super) const MORE_GAPS: i64 = 100;
pub(super) const GAPS_PERCENT: i64 = 120;
pub(super) const GAPS_SPAN: TimeDelta = TimeDelta::days(1);

/// Percent of a network's relays whose certificate ends.
pub(super) const EXPIRING_PERCENT: i64 = 10;

const NOTHING_ARCHIVED: Rule = Rule {
    alert: "QuipuNothingArchived",
    severity: Severity::Critical,
    why: "Relays can be read, but the archive does not grow. Events that relays delete meanwhile are lost.",
    action: "Check that the synchronizer runs and succeeds. `quipu relays show URL` says why a relay is not crawled. All sessions fail with `dns` or `unreachable`: your uplink. With `--sample` it is normal once the sample is archived.",
};

const NETWORK_SILENT: Rule = Rule {
    alert: "QuipuNetworkSilent",
    severity: Severity::Warning,
    why: "Nothing of this network is archived.",
    action: "Tor, I2P, Lokinet: check the proxy that `networks.*.proxy_address` names. Clearnet: check your uplink, its DNS, and the firewall. Relays are visited again after at most six hours; `quipu relays add URL` visits one at once.",
};

const FALLING_BEHIND: Rule = Rule {
    alert: "QuipuFallingBehind",
    severity: Severity::Warning,
    why: "Relays send faster than their past is read; what they delete before that is lost.",
    action: "Raise `services.synchronizer.catching_up_max` and the network's `relays_at_once`, or run `quipu run synchronizer` on another machine if the processors are busy.",
};

const GAPS_GROWING: Rule = Rule {
    alert: "QuipuGapsGrowing",
    severity: Severity::Warning,
    why: "Relays hold events that they do not give, so the archive of these windows is incomplete.",
    action: "`quipu archive gaps` lists them with their reasons. `crowded_second` and `oversized_message`: the relay cannot show more. Other reasons: retire the relay if it is worth nothing. Gaps are asked for again after seven days.",
};

const CERTIFICATES: Rule = Rule {
    alert: "QuipuCertificatesExpiring",
    severity: Severity::Warning,
    why: "A relay whose certificate has ended cannot be read.",
    action: "Check this machine's clock with `timedatectl`. Your own relay: renew its certificate. Others: tell their operators, or wait.",
};

/// Every rule of this file.
#[cfg(test)]
pub(super) const RULES: [&Rule; 5] =
    [&NOTHING_ARCHIVED, &NETWORK_SILENT, &FALLING_BEHIND, &GAPS_GROWING, &CERTIFICATES];

pub(super) fn problems(facts: &Facts, history: &History) -> Vec<Problem> {
    let mut found = Vec::new();
    found.extend(nothing_archived(facts));
    for network in &facts.networks {
        found.extend(silent(network));
        found.extend(falling_behind(facts, network, history));
        found.extend(certificates(network));
    }
    found.extend(gaps_growing(facts, history));
    found
}

/// Totals that are behind do not tell when something was stored.
fn nothing_archived(facts: &Facts) -> Option<Problem> {
    let is_known = facts.has_totals && facts.lags.iter().all(|(_, seconds)| *seconds <= store::BEHIND_S);
    let is_readable = facts.networks.iter().any(|network| network.readable > 0);
    let since = facts.last_stored_at.or(facts.first_relay_at)?;
    if !is_known || !is_readable || facts.now - since <= RECENT {
        return None;
    }
    let what = match facts.last_stored_at {
        Some(_) => "Nothing is archived, although relays can be read.",
        None => "Nothing was ever archived, although relays can be read.",
    };
    Some(NOTHING_ARCHIVED.problem(what, Some(since)))
}

fn silent(network: &Network) -> Option<Problem> {
    if network.is_heard || network.failed_sessions == 0 {
        return None;
    }
    let sessions = match network.failed_sessions {
        1 => "1 session".to_owned(),
        several => format!("{several} sessions"),
    };
    let what = format!(
        "The network {} is silent: {sessions} failed within {} minutes, and no relay answered.",
        network.name,
        RECENT.num_minutes()
    );
    Some(NETWORK_SILENT.problem(what, network.last_heard_at))
}

/// While histories are read for the first time relays are years behind, but the median does not grow.
fn falling_behind(facts: &Facts, network: &Network, history: &History) -> Option<Problem> {
    let median_s = network.median_s.filter(|age_s| *age_s > OPEN_S)?;
    let past = history.before(facts.now, OPEN_SPAN)?;
    let (_, past_s) = past.medians.iter().find(|(name, _)| *name == network.name)?;
    let elapsed_s = (facts.now - past.at).as_seconds_f64();
    if (median_s - past_s) / elapsed_s <= OPEN_GROWTH {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "hours, for people")]
    let hours = (median_s / 3600.0) as i64;
    let what = format!(
        "The archive falls behind on {}: half of its relays have an open second that is {hours} hours old, and it gets older.",
        network.name
    );
    Some(FALLING_BEHIND.problem(what, None))
}

fn gaps_growing(facts: &Facts, history: &History) -> Option<Problem> {
    let now = facts.gaps?;
    let past = history.before(facts.now, GAPS_SPAN)?;
    if now - past.gaps <= MORE_GAPS || now * 100 <= past.gaps * GAPS_PERCENT {
        return None;
    }
    let what = format!("Known gaps grow: {now}, {} more than a day ago.", now - past.gaps);
    Some(GAPS_GROWING.problem(what, Some(past.at)))
}

fn certificates(network: &Network) -> Option<Problem> {
    let Network { name, active, expiring, .. } = network;
    if expiring * 100 <= active * EXPIRING_PERCENT {
        return None;
    }
    let what = format!(
        "{expiring} of {active} relays of {name} have a certificate that ends within seven days or has ended."
    );
    Some(CERTIFICATES.problem(what, None))
}
