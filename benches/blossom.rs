//! `make bench-blossom`: measures uploads to three upstreams, redirects, the built-in store and recovery, on `quipu up` as a child
//! process, against `curl` and nginx in the same run.
//!
//! `cargo bench … -- upload`, `crowd`, `redirect`, `local`, `million` or `recovery` runs one part alone. A part may be given another
//! size, to try it out: `-- upload=64` (MiB), `crowd=10` (MiB of each of 20), `redirect=2`, `local=2` (seconds a figure),
//! `million=10000` (known blobs), `recovery=500` (blobs).

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

#[path = "blossom/client.rs"]
mod client;
#[path = "blossom/content.rs"]
mod content;
#[path = "blossom/load.rs"]
mod load;
#[path = "blossom/local.rs"]
mod local;
#[path = "blossom/million.rs"]
mod million;
#[path = "blossom/nginx.rs"]
mod nginx;
#[path = "blossom/recovery.rs"]
mod recovery;
#[path = "blossom/redirect.rs"]
mod redirect;
#[path = "blossom/room.rs"]
mod room;
#[path = "blossom/upload.rs"]
mod upload;
#[path = "blossom/upstream.rs"]
mod upstream;

use support::figure::Row;
use support::print_table;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(mib) = wanted(&words, "upload", 1_024) {
        show("upload", &upload::measure(mib).await);
    }
    if let Some(mib) = wanted(&words, "crowd", 100) {
        show("crowd", &upload::measure_crowd(mib).await);
    }
    if let Some(seconds) = wanted(&words, "redirect", 10) {
        show("redirect", &redirect::measure(seconds).await);
    }
    if let Some(seconds) = wanted(&words, "local", 10) {
        show("local", &local::measure(seconds).await);
    }
    if let Some(blobs) = wanted(&words, "million", 1_000_000) {
        show("million", &million::measure(blobs).await);
    }
    if let Some(blobs) = wanted(&words, "recovery", 10_000) {
        show("recovery", &recovery::measure(blobs).await);
    }
}

/// The size of a part, if it is wanted.
fn wanted(words: &[String], part: &str, full: usize) -> Option<usize> {
    if words.is_empty() {
        return Some(full);
    }
    words.iter().find_map(|word| match word.split_once('=') {
        None => (word == part).then_some(full),
        Some((name, size)) => (name == part).then(|| size.parse().expect("a size is a number")),
    })
}

/// The heading of the tables.
fn heading() -> Row {
    ["figure", "Quipu", "reference", "ratio", "bar", ""].map(str::to_owned).to_vec()
}

/// Prints the table of a part as soon as it is measured.
fn show(part: &str, table: &[Row]) {
    println!("\n{part}");
    print_table(table);
}
