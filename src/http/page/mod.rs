//! Pages for people: the frame, the style sheet and the formats that the pages of all rooms share.

mod format;

use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Access, Routes};

pub use format::{THIN, age, bytes, grouped, spaced, span};

/// The policy of a page with forms, which may be sent to its own listener alone.
const WITH_FORMS: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// What differs between pages.
#[derive(Debug)]
pub struct Page<'a> {
    /// Title of the document, behind the name of the program.
    pub title: Option<&'a str>,
    /// Path of the room's own style sheet.
    pub style: &'a str,
    /// Path of its script.
    pub script: &'a str,
    /// What stands beside the logo and the name.
    pub header: Markup,
    /// The content.
    pub main: Markup,
}

impl Page<'_> {
    /// The complete document.
    #[must_use]
    pub fn document(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "Quipu" @if let Some(title) = self.title { ": " (title) } }
                    link rel="icon" type="image/svg+xml" href="/favicon.svg";
                    link rel="stylesheet" href="/page.css";
                    link rel="stylesheet" href=(self.style);
                    script src=(self.script) defer {}
                }
                body {
                    header.top {
                        (PreEscaped(include_str!("logo.svg")))
                        h1 { "Quipu" }
                        (self.header)
                    }
                    main { (self.main) }
                    footer { p { "What happened is appended and never changed." } }
                }
            }
        }
    }
}

/// Links to pages as (path, title), if there are several. `here` is the path of the page that holds them.
#[must_use]
pub fn navigation(pages: &[(&str, &str)], here: &str) -> Markup {
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

/// The place that says whether the page is live. Its script fills it in.
#[must_use]
pub fn live_mark() -> Markup {
    html! { p #link .link role="status" { "no live updates without JavaScript" } }
}

/// A page that has forms. Browsers name the origin of what a form sends only under a policy that lets them.
#[must_use]
pub fn with_forms(status: StatusCode, document: Markup) -> Response {
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, WITH_FORMS),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    (status, headers, document).into_response()
}

/// A file that belongs to pages.
#[must_use]
pub fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], text).into_response()
}

/// The files that all pages need: the style sheet and the icon.
#[must_use]
pub fn assets<S: Clone + Send + Sync + 'static>() -> Routes<S> {
    Routes::new()
        .get("/page.css", Access::Anyone, async || asset("text/css; charset=utf-8", include_str!("page.css")))
        .get("/favicon.svg", Access::Anyone, async || asset("image/svg+xml", include_str!("favicon.svg")))
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
