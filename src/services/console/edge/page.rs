//! The complete page. The script only updates it.

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::read::{Entry, Latest};
use super::format::{pairs, spaced};
use super::status::Status;
use super::{crawl, panels, storage, wrong};

/// The path of this page.
const PATH: &str = "/";

/// The page. `pages` are those of all rooms as (path, title); `links` lead to other programs.
pub(super) fn page(status: &Status, latest: &Latest, pages: &[(&str, &str)], links: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Quipu" }
                link rel="icon" type="image/svg+xml" href="/favicon.svg";
                link rel="stylesheet" href="/console.css";
                script src="/console.js" defer {}
            }
            body {
                header.top {
                    (PreEscaped(include_str!("logo.svg")))
                    h1 { "Quipu" }
                    p.version { (status.version) }
                    (panels::health(status))
                    p #link .link role="status" { "no live updates without JavaScript" }
                    (navigation(pages, PATH))
                    (links)
                }
                main {
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
                }
                footer { p { "What happened is appended and never changed." } }
            }
        }
    }
}

/// Links to the pages, if there are several. `here` is the path of the page that holds them.
fn navigation(pages: &[(&str, &str)], here: &str) -> Markup {
    html! {
        @if pages.len() > 1 {
            nav.pages aria-label="Pages" {
                @for (path, title) in pages {
                    a href=(path) aria-current=[(*path == here).then_some("page")] { (title) }
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_navigation_links_to_every_page_and_marks_its_own() {
        let pages = [("/", "Overview"), ("/messages", "Messages")];
        assert_eq!(
            navigation(&pages, "/").into_string(),
            r#"<nav class="pages" aria-label="Pages"><a href="/" aria-current="page">Overview</a><a href="/messages">Messages</a></nav>"#
        );
        assert_eq!(navigation(&pages[..1], "/").into_string(), "");
    }
}
