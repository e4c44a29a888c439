//! The complete page. The script only updates it.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::read::{Entry, Latest};
use super::format::{pairs, spaced};
use super::status::Status;
use super::{crawl, panels, storage, wrong};
use crate::http::page::{Page, live_mark, navigation};

/// The path of this page.
const PATH: &str = "/";

/// The page. `pages` are those of all rooms as (path, title); `links` lead to other programs.
pub(super) fn page(status: &Status, latest: &Latest, pages: &[(&str, &str)], links: &Markup) -> Markup {
    let header = html! {
        p.version { (status.version) }
        (panels::health(status))
        (live_mark())
        (navigation(pages, PATH))
        (links)
    };
    let main = html! {
        (wrong::panel(status))
        (panels::pulse(status))
        div.columns {
            div.left {
                (crawl::panel(status))
                (panels::lists(status))
                (storage::panel(status))
                (panels::services(status))
            }
            (feed(status.now, latest))
        }
    };
    Page { title: None, style: "/console.css", script: "/console.js", header, main }.document()
}

fn feed(now: DateTime<Utc>, latest: &Latest) -> Markup {
    let id = latest.cursor.map(|cursor| cursor.to_string());
    html! {
        section.feed aria-labelledby="feed-title" {
            div.feed-head {
                h2 #feed-title { "Journal" small { "times in UTC" } }
                button #hold type="button" aria-pressed="false" hidden { "Pause" }
            }
            p #feed-empty .empty hidden[!latest.entries.is_empty()] {
                "The journal is empty. New entries appear here by themselves."
            }
            ol #feed tabindex="0" role="log" aria-live="polite" aria-relevant="additions" data-last-event-id=[id] {
                @for entry in &latest.entries { (line(now, entry)) }
            }
        }
    }
}

fn line(now: DateTime<Utc>, entry: &Entry) -> Markup {
    let is_today = entry.recorded_at.date_naive() == now.date_naive();
    let format = if is_today { "%H:%M:%S" } else { "%b %-d %H:%M" };
    html! {
        li data-kind=(entry.kind) data-position=(entry.position) {
            time datetime=(entry.recorded_at.to_rfc3339()) { (entry.recorded_at.format(format)) }
            p { b { (spaced(&entry.kind)) } " " span.subject { (entry.subject) } }
            p.detail { @for (name, value) in pairs(&entry.detail) { span { (spaced(name)) " " i { (value) } } } }
        }
    }
}
