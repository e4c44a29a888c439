//! Extracts relay URLs from events and lists (N-65.4, N-66.1, N-66.9).
//!
//! The result is canonical, distinct and bounded for any input. Loopback and private addresses are left out:
//! only the operator may make this program dial them, and a stream of them would fill the journal.

use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json_path::JsonPath;

use crate::base::RelayUrl;

/// Most relays taken from one event; the rest is ignored.
pub const EVENT_URLS_MAX: usize = 100;

/// Most texts of one event that are parsed as URLs: an event of 4 MiB has room for half a million bad ones.
const EVENT_TRIES_MAX: usize = 1_000;

/// Most relays taken from one list, about five times as many as the Nostr network has.
pub const LIST_URLS_MAX: usize = 50_000;

/// Most texts of one list that are parsed as URLs.
const LIST_TRIES_MAX: usize = 2 * LIST_URLS_MAX;

/// Kinds that may name relays in other places: a recommendation in its content, a follow list in the keys of
/// its content, a monitor's report in its `d` tag.
pub const KINDS: [i32; 3] = [RECOMMENDATION, FOLLOWS, REPORT];

const RECOMMENDATION: i32 = 2;
const FOLLOWS: i32 = 3;
const REPORT: i32 = 30_166;

/// The relays that an event names, in order of appearance.
#[must_use]
pub fn of_event(kind: i32, tags: &[Vec<String>], content: &str) -> Vec<RelayUrl> {
    let mut found = Found::new(EVENT_URLS_MAX, EVENT_TRIES_MAX);
    for tag in tags {
        for text in of_tag(kind, tag) {
            found.offer(text);
        }
    }
    match kind {
        RECOMMENDATION => found.offer(content),
        // Not every client writes an object there; content that is not JSON names no relay.
        FOLLOWS => drop((&mut serde_json::Deserializer::from_str(content)).deserialize_map(Keys(&mut found))),
        _ => {}
    }
    found.urls
}

/// The elements of a tag that hold relay URLs.
fn of_tag(kind: i32, tag: &[String]) -> &[String] {
    let place = |from: usize, until: usize| tag.get(from..until.min(tag.len())).unwrap_or_default();
    match tag.first().map_or("", String::as_str) {
        "r" | "relay" => place(1, 2),
        "d" if kind == REPORT => place(1, 2),
        "e" | "p" | "a" | "q" => place(2, 3),
        "relays" => place(1, tag.len()),
        _ => &[],
    }
}

/// The relays of a list: the texts at `path` of a JSON document, or one URL a line when there is no path.
///
/// # Errors
/// When there is a path and `body` is not JSON.
pub fn of_list(body: &[u8], path: Option<&JsonPath>) -> Result<Vec<RelayUrl>, serde_json::Error> {
    let mut found = Found::new(LIST_URLS_MAX, LIST_TRIES_MAX);
    match path {
        Some(path) => {
            let document = serde_json::from_slice(body)?;
            for text in path.query(&document).iter().filter_map(|value| value.as_str()) {
                found.offer(text);
            }
        }
        None => String::from_utf8_lossy(body).lines().for_each(|line| found.offer(line)),
    }
    Ok(found.urls)
}

/// The URLs found so far, and the remaining limits.
struct Found {
    urls: Vec<RelayUrl>,
    seen: HashSet<RelayUrl>,
    urls_max: usize,
    tries_left: usize,
}

impl Found {
    fn new(urls_max: usize, tries_left: usize) -> Self {
        Self { urls: Vec::new(), seen: HashSet::new(), urls_max, tries_left }
    }

    fn is_full(&self) -> bool {
        self.urls.len() >= self.urls_max || self.tries_left == 0
    }

    fn offer(&mut self, text: &str) {
        if self.is_full() || !looks_like_url(text) {
            return;
        }
        self.tries_left -= 1;
        if let Ok(url) = RelayUrl::parse(text)
            && !url.is_local_address()
            && self.seen.insert(url.clone())
        {
            self.urls.push(url);
        }
    }
}

/// Replaces NUL in stored tags and content. A URL that contains it is not the one that was signed.
const NUL_PICTURE: char = '\u{2400}';

/// A cheap check before parsing, because most texts in these places are ids and names.
fn looks_like_url(text: &str) -> bool {
    if text.contains(NUL_PICTURE) {
        return false;
    }
    let text = text.trim_start().as_bytes();
    let starts = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    starts(b"ws://") || starts(b"wss://")
}

/// Visits the keys of an object and skips the values.
struct Keys<'a>(&'a mut Found);

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose keys are addresses")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while !self.0.is_full()
            && let Some(key) = map.next_key::<String>()?
        {
            self.0.offer(&key);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
