//! The page of blobs: upstreams with their copies and how they fared, what has too few copies, what came, what went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::ConsoleState;
use super::super::read::{BlobNews, HOURS, Hour, Trouble, Upload};
use super::format::{age, bytes, grouped, spaced, span};
use super::status::read_or_log;
use crate::http::page::{Page, live_mark, navigation};
use crate::store::figures::{Blobs, Copies};

/// The path of this page.
const PATH: &str = "/blobs";

/// Digits of a hash or key that are shown.
const DIGITS: usize = 12;

/// Upstreams that are listed.
const UPSTREAMS_MAX: usize = 40;

/// What the page shows. A group that cannot be read is `None`.
pub(super) struct BlobStatus {
    now: DateTime<Utc>,
    blobs: Option<Arc<Blobs>>,
    copies: Option<Arc<Vec<Copies>>>,
    news: Option<Arc<BlobNews>>,
}

impl BlobStatus {
    /// Reads the groups one after the other: the console has few connections.
    pub(super) async fn read(state: &ConsoleState) -> Self {
        let inner = &state.0;
        Self {
            now: inner.parts.clock.now(),
            blobs: read_or_log("blobs", inner.blobs.get().await),
            copies: read_or_log("copies", inner.copies.get().await),
            news: read_or_log("news of blobs", inner.blob_news.get().await),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.blobs.is_some()
    }
}

/// The page. `pages` are those of all rooms as (path, title); `links` lead to other programs.
pub(super) fn page(status: &BlobStatus, pages: &[(&str, &str)], links: &Markup) -> Markup {
    let header = html! {
        p.version { (env!("CARGO_PKG_VERSION")) }
        (live_mark())
        (navigation(pages, PATH))
        (links)
    };
    Page { title: Some("blobs"), style: "/console.css", script: "/blobs.js", header, main: panels(status) }
        .document()
}

/// All panels; the script replaces each by its id.
pub(super) fn panels(status: &BlobStatus) -> Markup {
    let nothing = BlobNews::default();
    let news = status.news.as_deref().unwrap_or(&nothing);
    html! {
        (figures(status, news))
        div.blobs {
            (upstreams(status, news))
            div.pair {
                (uploads(status.now, &news.uploads))
                (troubles(status.now, &news.troubles))
            }
        }
    }
}

fn figures(status: &BlobStatus, news: &BlobNews) -> Markup {
    html! {
        section #panel-blobs aria-label="Blobs" {
            @match status.blobs.as_deref() {
                None => p.notice { strong { "PostgreSQL does not answer." } " The figures return when it does." },
                Some(blobs) => {
                    @if blobs.unavailable > 0 {
                        p.notice { strong { (grouped(blobs.unavailable)) " kept blobs have no copy." }
                            " " code { "quipu blobs where SHA256" } " shows where one was; see "
                            a href="/alerts.md#:~:text=QuipuBlobsUnavailable" { "what to do" } "." }
                    }
                    dl.figures {
                        div { dt { "kept blobs" } dd { (grouped(blobs.kept)) } dd.note { (grouped(blobs.owners)) " owners" } }
                        div { dt { "their size" } dd { (bytes(blobs.kept_bytes)) } dd.note { "each counted once" } }
                        div { dt { "too few copies" } dd { (grouped(blobs.under_replicated)) }
                            dd.note { (grouped(news.repaired)) " copies made in the last hour" } }
                        div { dt { "oldest not read back" }
                            dd { @match blobs.oldest_unverified_s { Some(age_s) => (span(age_s)), None => "none" } }
                            dd.note { "accepted, proof ahead" } }
                    }
                    @if blobs.kept == 0 {
                        p.notice { strong { "No blob is kept yet." } " Upload one: " code { "quipu blobs upload FILE" }
                            ", or name the listener of blobs as a server in a Nostr client." }
                    }
                },
            }
        }
    }
}

/// Copies of one upstream by state.
#[derive(Default)]
struct Row {
    readable: i64,
    accepted: i64,
    failed: i64,
    lost: i64,
    deleted: i64,
    hours: [Option<(i64, i64)>; HOURS],
}

fn rows(copies: &[Copies], hours: &[Hour]) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for copy in copies {
        let row = rows.entry(copy.upstream.clone()).or_default();
        let number = match copy.state.as_str() {
            "readable" => &mut row.readable,
            "accepted" => &mut row.accepted,
            "failed" => &mut row.failed,
            "lost" => &mut row.lost,
            _ => &mut row.deleted,
        };
        *number += copy.replicas;
    }
    for hour in hours {
        let row = rows.entry(hour.upstream.clone()).or_default();
        if let Some(place) = usize::try_from(hour.ago).ok().and_then(|ago| row.hours.get_mut(ago)) {
            *place = Some((hour.good, hour.bad));
        }
    }
    rows
}

fn upstreams(status: &BlobStatus, news: &BlobNews) -> Markup {
    let copies = status.copies.as_deref().map(Vec::as_slice).unwrap_or_default();
    let rows = rows(copies, &news.hours);
    html! {
        section #panel-upstreams {
            h2 { "Upstreams" small { "copies by state; the last " (HOURS) " hours, newest on the right" } }
            @if rows.is_empty() { p.empty { "No upstream has a copy yet." } }
            @else { div.scroll { table.grid {
                thead { tr { th { "upstream" } th.number { "readable" } th.number title="not read back yet" { "accepted" }
                             th.number { "failed" } th.number { "lost" } th.number { "deleted" } th.number { "hours" } } }
                tbody { @for (upstream, row) in rows.iter().take(UPSTREAMS_MAX) {
                    tr { td { span.name title=(upstream) { (upstream) } }
                         @for count in [row.readable, row.accepted, row.failed, row.lost, row.deleted] {
                             td.number { (grouped(count)) }
                         }
                         td.number { (history(&row.hours)) } }
                } }
            } } }
        }
    }
}

/// A bar for each hour: whether something failed in it.
fn history(hours: &[Option<(i64, i64)>; HOURS]) -> Markup {
    let failed = hours.iter().flatten().filter(|(_, bad)| *bad > 0).count();
    html! {
        svg.hours viewBox=(format!("0 0 {} 12", HOURS * 4)) role="img" aria-label=(format!("failures in {failed} of {HOURS} hours")) {
            @for (place, hour) in hours.iter().rev().enumerate() {
                @let (class, title) = match hour {
                    None => ("none", "nothing recorded".to_owned()),
                    Some((good, 0)) => ("ok", format!("{good} as asked")),
                    Some((good, bad)) => ("bad", format!("{bad} failed, {good} as asked")),
                };
                rect class=(class) x=(place * 4) y="0" width="3" height="12" { title { (HOURS - place - 1) " h ago: " (title) } }
            }
        }
    }
}

fn uploads(now: DateTime<Utc>, uploads: &[Upload]) -> Markup {
    html! {
        section #panel-uploads {
            h2 { "New" small { "uploaded, mirrored or adopted" } }
            @if uploads.is_empty() { p.empty { "None is among the newest entries." } }
            @else { table { thead.quiet { tr { th { "blob" } th.number { "size" } } }
                tbody { @for upload in uploads {
                    tr { td { span.name { code title=(upload.hash) { (short(&upload.hash)) } " " (upload.media_type) }
                              br; span.aside { (upload.kind) " by " span title=(upload.owner) { (short(&upload.owner)) } ", "
                                  @match upload.copies { 1 => "1 copy", copies => { (copies) " copies" } } ", " (age(now, upload.at)) } }
                         td.number { (bytes(upload.size)) } }
                } } } }
        }
    }
}

fn troubles(now: DateTime<Utc>, troubles: &[Trouble]) -> Markup {
    html! {
        section #panel-troubles {
            h2 { "Failed" small { "with the reason" } }
            @if troubles.is_empty() { p.empty { "Nothing is among the newest entries." } }
            @else { table { thead.quiet { tr { th { "copy" } th.number { "when" } } }
                tbody { @for trouble in troubles {
                    tr { td { span.name { span.state.bad { (spaced(&trouble.kind)) } " " code title=(trouble.hash) { (short(&trouble.hash)) } }
                              br; span.aside.name { @if let Some(upstream) = &trouble.upstream { (upstream) }
                                  @if let Some(why) = &trouble.why { ": " (why) } } }
                         td.number { (age(now, trouble.at)) } }
                } } } }
        }
    }
}

/// The first digits of a hash or key.
fn short(digits: &str) -> &str {
    digits.get(..DIGITS).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_with_a_failure_is_marked_and_the_newest_is_on_the_right() {
        let hour = |ago, good, bad| Hour { upstream: "https://one.example".to_owned(), ago, good, bad };
        let copies =
            [Copies { upstream: "https://one.example".to_owned(), state: "lost".to_owned(), replicas: 3 }];
        let rows = rows(&copies, &[hour(0, 5, 0), hour(2, 1, 4), hour(99, 1, 1)]);
        let row = &rows["https://one.example"];
        assert_eq!((row.lost, row.readable), (3, 0));
        let shown = history(&row.hours).into_string();
        assert!(shown.contains("failures in 1 of 24 hours"), "{shown}");
        assert!(shown.contains(r#"class="ok" x="92""#) && shown.contains(r#"class="bad" x="84""#), "{shown}");
        assert_eq!(shown.matches(r#"class="none""#).count(), 22);
    }
}
