//! The page at the root of the listener: how the upstreams fare, and for a person who signs in with a browser extension (NIP-07)
//! the blobs of that key. Nothing is sent but what any client sends: a token to list.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::{Counts, Health};
use crate::http::page::{Page, asset, assets, bytes, grouped};
use crate::http::{Access, Routes};
use crate::services::blossom::edge::BlossomState;
use crate::services::blossom::upstream::UpstreamStats;

/// Images come from the upstreams to which downloads are redirected.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page and its files.
pub(in super::super) fn routes() -> Routes<BlossomState> {
    use Access::Anyone;
    Routes::new()
        .get("/", Anyone, page)
        .get("/blobs.css", Anyone, async || asset("text/css; charset=utf-8", include_str!("blobs.css")))
        .get("/blobs.js", Anyone, async || asset("text/javascript; charset=utf-8", include_str!("blobs.js")))
        .merge(assets())
}

async fn page(State(state): State<BlossomState>, headers: HeaderMap) -> Response {
    let health = state.health();
    let servers: Vec<(String, UpstreamStats)> = state.upstream_stats().collect();
    let header = html! { p.version { (env!("CARGO_PKG_VERSION")) } };
    let main = html! {
        (figures(&health))
        (upstreams(&servers))
        (own_blobs())
        (use_it(&state.base(&headers)))
    };
    let document =
        Page { title: Some("blobs"), style: "/blobs.css", script: "/blobs.js", header, main }.document();
    ([(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, HeaderValue::from_static("no-store"))], document)
        .into_response()
}

fn count(number: u64) -> String {
    grouped(i64::try_from(number).unwrap_or(i64::MAX))
}

fn figures(health: &Health) -> Markup {
    let (word, class) = if health.healthy { ("healthy", "mark ok") } else { ("unhealthy", "mark bad") };
    let of = |number: u64, max: u64| html! { (count(number)) p.note { "at most " (count(max)) } };
    let size = |number: u64| bytes(i64::try_from(number).unwrap_or(i64::MAX));
    html! {
        section aria-label="Health" {
            dl.figures {
                div { dt { "service" } dd { span class=(class) {} (word) } }
                div {
                    dt { "healthy servers" }
                    dd {
                        (health.healthy_count) " of " (health.servers.len())
                        p.note { "an upload needs " (health.min_upload_servers) }
                    }
                }
                div {
                    dt { "memory" }
                    dd { (size(health.memory.bytes)) p.note { "at most " (size(health.memory.max)) } }
                }
                div { dt { "tasks" } dd { (of(health.goroutines.count, health.goroutines.max)) } }
            }
        }
    }
}

fn upstreams(servers: &[(String, UpstreamStats)]) -> Markup {
    let pair = |success: u64, failure: u64| {
        html! {
            td.number {
                (count(success))
                @if failure > 0 { " " span.failed title="failed" { "−" (count(failure)) } }
            }
        }
    };
    html! {
        section {
            h2 { "Servers" small { "requests since the start of this process; failed ones behind the minus sign" } }
            div.scroll {
                table.grid {
                    thead {
                        tr {
                            th { "server" }
                            @for name in ["uploads", "mirrors", "downloads", "deletions", "lists", "answers in"] {
                                th.number { (name) }
                            }
                        }
                    }
                    tbody {
                        @for (name, stats) in servers {
                            @let counts = Counts::from(stats);
                            tr {
                                td.name {
                                    span class=(if stats.is_healthy { "mark ok" } else { "mark bad" }) {}
                                    (name)
                                    @if stats.consecutive_failures > 0 {
                                        " " small { (stats.consecutive_failures) " failures in a row" }
                                    }
                                }
                                (pair(counts.uploads_success, counts.uploads_failure))
                                (pair(counts.mirrors_success, counts.mirrors_failure))
                                (pair(counts.downloads, 0))
                                (pair(counts.deletes_success, counts.deletes_failure))
                                (pair(counts.lists_success, counts.lists_failure))
                                td.number {
                                    @match stats.latency {
                                        Some(latency) => { (latency.as_millis()) " ms" },
                                        None => { "–" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn own_blobs() -> Markup {
    html! {
        section {
            h2 { "Your blobs" }
            p { button #sign-in type="button" hidden { "Sign in with your Nostr extension" } }
            p #said .aside role="status" { "A browser extension for Nostr (NIP-07) and JavaScript are needed." }
            ol #mine .blobs {}
            p { button #more type="button" hidden { "More" } }
        }
    }
}

fn use_it(base: &str) -> Markup {
    let endpoints = [
        ("PUT /upload, HEAD /upload", "store a blob; ask whether it would be stored"),
        ("PUT /media, HEAD /media", "store an image without its metadata"),
        ("PUT /mirror", "store a blob from a URL"),
        ("GET /<sha256>, HEAD /<sha256>", "get a blob, with or without an extension"),
        ("DELETE /<sha256>", "give a blob up; its copies go with its last owner"),
        ("GET /list/<pubkey>", "the blobs of a key"),
        ("PUT /report", "report a blob to the operator"),
        ("GET /health, GET /stats", "how the service fares"),
    ];
    html! {
        section {
            h2 { "Use" small { "the server to name in a client: " code { (base) } } }
            table.uses {
                tbody {
                    @for (request, meaning) in endpoints {
                        tr { td { code { (request) } } td.meaning { (meaning) } }
                    }
                }
            }
        }
    }
}
