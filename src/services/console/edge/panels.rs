//! The panels of the page. The script replaces each as a whole.

use maud::{Markup, html};

use super::super::decide::full_in_days;
use super::super::read::{KindRow, RelayRow};
use super::chart::chart;
use super::format::{age, bytes, grouped, kind_name, rate, signed_age};
use super::status::{Figures, Status, Totals};
use super::{crawl, storage, wrong};
use crate::lifecycle::{ServiceHealth, ServiceState};

/// All panels; the script replaces each by its id.
pub(super) fn panels(status: &Status) -> Markup {
    html! {
        (health(status))
        (wrong::panel(status))
        (pulse(status))
        (crawl::panel(status))
        (lists(status))
        (storage::panel(status))
        (services(status))
    }
}

/// The overall health in one line.
pub(super) fn health(status: &Status) -> Markup {
    let failing = status.failing();
    html! {
        p #panel-health .health {
            @if failing == 1 { span.mark.bad {} "1 service is failing" }
            @else if failing > 1 { span.mark.bad {} (failing) " services are failing" }
            @else if status.archive.is_none() { span.mark.bad {} "no database" }
            @else { span.mark.ok {} "all services are healthy" }
        }
    }
}

/// The rate, the chart of the last hour, and the totals.
pub(super) fn pulse(status: &Status) -> Markup {
    html! {
        section #panel-pulse aria-label="Growth" {
            @if let Some(archive) = &status.archive {
                div.pulse {
                    p.rate {
                        strong data-live="rate" { (rate(archive.totals.pulse.events_per_second)) }
                        span { "events a second" small { "stored, last minute" } }
                    }
                    figure {
                        (chart(&archive.totals.pulse.minutes))
                        figcaption { span { "an hour ago" } span { "one cord a minute, a knot for each decimal place" } span { "now" } }
                    }
                }
                @if archive.totals.totals.events == 0 { (nothing_yet(known(&status.figures))) }
                (figures(&archive.totals, &status.figures))
            }
        }
    }
}

/// Relays that were not retired or refused.
fn known(figures: &Figures) -> i64 {
    let rows = figures.archive.iter().flat_map(|archive| &archive.relays);
    rows.filter(|row| row.state == "active").map(|row| row.relays).sum()
}

fn nothing_yet(relays: i64) -> Markup {
    html! {
        p.notice {
            strong { "Nothing archived yet." }
            @if relays == 0 {
                " Add a relay with " code { "quipu relays add wss://…" } ", import a file with " code { "quipu import events.jsonl" }
                ", or start with " code { "quipu up --sample" } " to see it work without the internet."
            } @else {
                " " (grouped(relays)) " relays are known, and the synchronizer reads them one after the other. You can also import a file: "
                code { "quipu import events.jsonl" } "."
            }
        }
    }
}

fn figures(totals: &Totals, figures: &Figures) -> Markup {
    let totals = &totals.totals;
    let relays = figures.archive.iter().flat_map(|archive| &archive.relays);
    let readable = relays.filter(|row| row.state == "active" && row.readable == "yes");
    html! {
        dl.figures {
            div { dt { "events" } dd data-live="events" { (grouped(totals.events)) }
                dd.note { "+" span data-live="day_events" { (grouped(totals.day_events)) } " in 24 hours" } }
            div { dt { "sightings" } dd data-live="sightings" { (grouped(totals.sightings)) }
                dd.note { "+" span data-live="day_sightings" { (grouped(totals.day_sightings)) } " in 24 hours" } }
            div { dt { "active relays" } @if figures.archive.is_some() {
                dd { (grouped(known(figures))) }
                dd.note { (grouped(readable.map(|row| row.relays).sum())) " can be read" }
            } @else { dd.note { "cannot be read" } } }
            div { dt { "database" } @if let Some(sizes) = &figures.sizes {
                dd { (bytes(sizes.database_bytes)) }
                dd.note { (disk(figures)) }
            } @else { dd.note { "cannot be read" } } }
        }
    }
}

/// In how many days the disk is full.
fn disk(figures: &Figures) -> String {
    let growth = figures.sizes.as_ref().and_then(|sizes| sizes.daily_growth_bytes);
    match (figures.spare_bytes, growth) {
        (None, _) => "free space is not measured".to_owned(),
        (Some(spare), None) => format!("{} free", bytes(spare)),
        (Some(spare), Some(growth)) => match full_in_days(spare, growth) {
            None => format!("{} free", bytes(spare)),
            Some(days @ ..3_650) => format!("disk full in {} days", grouped(days)),
            Some(_) => "disk full in more than ten years".to_owned(),
        },
    }
}

/// The services and the listeners.
pub(super) fn services(status: &Status) -> Markup {
    html! {
        section #panel-services {
            h2 { "Services" }
            @if status.services.is_empty() { p.empty { "No service has started in this process." } }
            ul.services {
                @for (name, health) in &status.services {
                    li { (state(health)) span.name { (name) } (cycle(status, health))
                        @if let ServiceState::Failing { since, reason } = &health.state {
                            p.reason { (reason) " " small { "failing since " (since.format("%H:%M:%S")) " UTC" } }
                        }
                        @if let ServiceState::Waiting { since, reason } = &health.state {
                            p.reason { (reason) " " small { "since " (since.format("%H:%M:%S")) " UTC" } }
                        }
                    }
                }
            }
            @if !status.listeners.is_empty() {
                dl.listeners { @for listener in &status.listeners { div { dt { (listener.name) } dd { (listener.address) } } } }
            }
        }
    }
}

fn state(health: &ServiceHealth) -> Markup {
    let (class, word) = match health.state {
        ServiceState::Starting => ("wait", "starting"),
        ServiceState::Ok => ("ok", "ok"),
        ServiceState::Failing { .. } => ("bad", "failing"),
        ServiceState::Waiting { .. } => ("bad", "waiting"),
        ServiceState::Done => ("done", "done"),
        ServiceState::Stopped => ("done", "stopped"),
    };
    html! { span class={ "mark " (class) } {} span class={ "state " (class) } { (word) } }
}

fn cycle(status: &Status, health: &ServiceHealth) -> Markup {
    let counted = |number: u64| grouped(i64::try_from(number).unwrap_or(i64::MAX));
    html! {
        span.cycle {
            @match health.last_cycle_at {
                Some(at) => { (counted(health.cycles)) @if health.cycles == 1 { " cycle, " } @else { " cycles, last " } (age(status.now, at)) },
                None => "no cycle yet",
            }
            @if health.failures > 0 { ", " (counted(health.failures)) " failed" }
        }
    }
}

/// The lists of kinds and relays.
pub(super) fn lists(status: &Status) -> Markup {
    html! {
        div #panel-lists .pair {
            @if let Some(archive) = &status.archive {
                section {
                    h2 { "Kinds" }
                    @if archive.lists.kinds.is_empty() { p.empty { "No events yet." } }
                    @else { (kinds(&archive.lists.kinds)) }
                }
                section {
                    h2 { "Relays by sightings" }
                    @if archive.lists.relays.is_empty() { p.empty { "No relay has shown an event yet." } }
                    @else { (relays(status, &archive.lists.relays)) }
                }
            }
        }
    }
}

fn kinds(rows: &[KindRow]) -> Markup {
    let most = rows.iter().map(|row| row.events).max().unwrap_or(0);
    html! {
        table { thead.quiet { tr { th { "kind" } th.number { "events" } } }
            tbody { @for row in rows {
                tr { td { span.name { @match kind_name(row.kind) { Some(name) => (name), None => { "kind " (row.kind) } } }
                          " " span.aside { (row.kind) } (bar(row.events, most)) }
                     td.number { (grouped(row.events)) } }
            } } }
    }
}

fn relays(status: &Status, rows: &[RelayRow]) -> Markup {
    let most = rows.iter().map(|row| row.sightings).max().unwrap_or(0);
    html! {
        table { thead.quiet { tr { th { "relay" } th.number { "sightings" } } }
            tbody { @for row in rows {
                tr { td { span.name.url title=(row.url) { (row.url.trim_start_matches("wss://")) }
                          @if let Some(at) = row.last_event_timestamp { " " span.aside { (signed_age(status.now, at)) } }
                          (bar(row.sightings, most)) }
                     td.number { (grouped(row.sightings)) } }
            } } }
    }
}

/// A bar whose length is the share of the largest value.
fn bar(count: i64, most: i64) -> Markup {
    let percent = (count.max(0)).saturating_mul(100) / most.max(1);
    html! { svg.bar aria-hidden="true" { rect width=(format!("{percent}%")) height="100%" rx="1" {} } }
}
