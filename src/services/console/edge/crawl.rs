//! Relays by state, how far the archive is behind them, gaps and candidates.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::format::{grouped, spaced, span};
use super::status::Status;
use crate::store::figures::{Archive, Gaps};

/// Networks that are listed.
const NETWORKS_MAX: usize = 8;

/// The relays' states and backlog, gaps and candidates.
pub(super) fn panel(status: &Status) -> Markup {
    html! {
        section #panel-crawl .crawl {
            @if let Some(archive) = &status.figures.archive {
                (states(archive))
                (backlog(archive))
            }
            div.pair {
                @if let Some(known) = &status.figures.gaps { (gaps(known)) }
                @if let Some(archive) = &status.figures.archive { (candidates(archive)) }
            }
        }
    }
}

/// Relays of one network by state.
#[derive(Default)]
struct States {
    readable: i64,
    unreadable: i64,
    unchecked: i64,
    retired: i64,
    refused: i64,
}

fn states(archive: &Archive) -> Markup {
    let mut networks: BTreeMap<&str, States> = BTreeMap::new();
    for row in &archive.relays {
        let states = networks.entry(&row.network).or_default();
        let state = match (row.state.as_str(), row.readable.as_str()) {
            ("retired", _) => &mut states.retired,
            ("refused", _) => &mut states.refused,
            (_, "yes") => &mut states.readable,
            (_, "no") => &mut states.unreadable,
            _ => &mut states.unchecked,
        };
        *state += row.relays;
    }
    html! {
        h2 { "Relays" small { "by the latest check" } }
        @if networks.is_empty() { p.empty { "No relay is known yet." } }
        @else { div.scroll { table.grid {
            thead { tr { th { "network" } th.number { "readable" } th.number { "not" } th.number { "unchecked" }
                         th.number { "retired" } th.number { "refused" } } }
            tbody { @for (network, states) in networks.iter().take(NETWORKS_MAX) {
                tr { td { (network) }
                     @for count in [states.readable, states.unreadable, states.unchecked, states.retired, states.refused] {
                         td.number { (grouped(count)) }
                     } }
            } }
        } } }
    }
}

fn backlog(archive: &Archive) -> Markup {
    html! {
        @if !archive.backlog.is_empty() {
            h2 { "How far behind" small { "age of the oldest second that is not read" } }
            div.scroll { table.grid {
                thead { tr { th { "network" } th.number title="relays without a session so far" { "unvisited" }
                             th.number title="relays with windows left to read" { "open" }
                             th.number { "median" } th.number { "90\u{202f}%" } th.number { "oldest" } } }
                tbody { @for row in archive.backlog.iter().take(NETWORKS_MAX) {
                    tr { td { (row.network) } td.number { (grouped(row.unvisited)) } td.number { (grouped(row.open)) }
                         @for age_s in [row.median_s, row.p90_s, row.oldest_s] {
                             td.number { @match age_s { Some(age_s) => (span(age_s)), None => "–" } }
                         } }
                } }
            } }
        }
    }
}

fn gaps(known: &Gaps) -> Markup {
    let mut causes = known.causes.clone();
    causes.sort_by_key(|(_, gaps)| -gaps);
    let relays: i64 = known.relays.iter().map(|(_, relays)| relays).sum();
    html! {
        section {
            h2 { "Gaps" small { "windows known to be incomplete" } }
            @if causes.is_empty() { p.empty { "None is known." } }
            @else {
                table { thead.quiet { tr { th { "reason" } th.number { "windows" } } }
                    tbody { @for (cause, gaps) in &causes { tr { td { (spaced(cause)) } td.number { (grouped(*gaps)) } } } } }
                p.lag { "of " (grouped(relays)) @if relays == 1 { " relay" } @else { " relays" } }
            }
        }
    }
}

fn candidates(archive: &Archive) -> Markup {
    let count = |state: &str| -> i64 {
        archive.candidates.iter().filter(|row| row.state == state).map(|row| row.candidates).sum()
    };
    html! {
        section {
            h2 { "Candidates" small { "may be relays" } }
            @if archive.candidates.is_empty() { p.empty { "None waits." } }
            @else {
                table { thead.quiet { tr { th { "state" } th.number { "candidates" } } }
                    tbody { @for (state, words) in
                        [("untried", "never tried"), ("due", "failed, due again"), ("waiting", "failed, waiting")] {
                        tr { td { (words) } td.number { (grouped(count(state))) } }
                    } } }
            }
        }
    }
}
