//! A minimal NIP-01 relay, so cheap that a bench measures the client and not the relay.
//!
//! Events are serialised once; an answer combines the subscription id and the stored text. It answers REQ
//! (`ids`, `kinds`, `authors`, `since`, `until`, `limit`; other conditions are refused) with stored events
//! and EOSE, newest first, ties by lowest id, and accepts CLOSE. It stores nothing and sends no live events.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::{Event, Filter, JsonUtil};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message};

/// The usual limit of public relays.
pub(crate) const LIMIT_MAX: usize = 500;

/// Counters since the start of the relay.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// REQs answered.
    pub(crate) requests: AtomicU64,
    /// EVENT frames sent.
    pub(crate) frames: AtomicU64,
    /// Bytes of text in these frames.
    pub(crate) bytes: AtomicU64,
}

/// A stored event: the fields that filters test, and the text.
struct Stored {
    created_at: u64,
    event: Event,
    json: String,
}

struct Store {
    /// Newest first, ties by lowest id.
    events: Vec<Stored>,
    limit_max: usize,
    counts: Counts,
}

/// The running relay; dropping it ends its task and connections.
pub(crate) struct WireRelay {
    address: SocketAddr,
    store: Arc<Store>,
    _tasks: JoinSet<()>,
}

impl WireRelay {
    /// Serves `events` on a free port of the loopback, with at most `limit_max` events in one answer per
    /// filter.
    pub(crate) async fn start(events: impl IntoIterator<Item = Event>, limit_max: usize) -> io::Result<Self> {
        let stored = |event: Event| {
            let (created_at, json) = (event.created_at.as_secs(), event.as_json());
            Stored { created_at, event, json }
        };
        let mut events: Vec<_> = events.into_iter().map(stored).collect();
        events.sort_by(|a, b| a.event.cmp(&b.event));
        let store = Arc::new(Store { events, limit_max, counts: Counts::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&store)));
        Ok(Self { address, store, _tasks: tasks })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.store.counts
    }
}

async fn accept(listener: TcpListener, store: Arc<Store>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let store = Arc::clone(&store);
        // A client may disconnect in the middle of an answer.
        connections.spawn(async move { drop(serve(stream, &store).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, store: &Store) -> tungstenite::Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let Ok(Value::Array(parts)) = serde_json::from_str(&text) else {
            socket.send(Message::text("[\"NOTICE\",\"invalid: no JSON array\"]")).await?;
            continue;
        };
        let [verb, subscription, conditions @ ..] = parts.as_slice() else { continue };
        if verb != "REQ" {
            continue;
        }
        let Some(filters) = conditions.iter().map(simple).collect::<Option<Vec<_>>>() else {
            let refusal = format!("[\"CLOSED\",{subscription},\"unsupported: this filter\"]");
            socket.send(Message::text(refusal)).await?;
            continue;
        };
        let prefix = format!("[\"EVENT\",{subscription},");
        for place in store.places(&filters) {
            let json = &store.events[place].json;
            let mut frame = String::with_capacity(prefix.len() + json.len() + 1);
            frame.push_str(&prefix);
            frame.push_str(json);
            frame.push(']');
            store.counts.frames.fetch_add(1, Ordering::Relaxed);
            store.counts.bytes.fetch_add(frame.len().try_into().expect("64 bits"), Ordering::Relaxed);
            socket.feed(Message::text(frame)).await?;
        }
        store.counts.requests.fetch_add(1, Ordering::Relaxed);
        socket.send(Message::text(format!("[\"EOSE\",{subscription}]"))).await?;
    }
    Ok(())
}

/// Parses a filter without tag conditions and search.
fn simple(filter: &Value) -> Option<Filter> {
    let filter: Filter = serde_json::from_value(filter.clone()).ok()?;
    (filter.generic_tags.is_empty() && filter.search.is_none()).then_some(filter)
}

impl Store {
    /// Positions of the events that match the filters, in order. One filter, the usual case, allocates only
    /// the list.
    fn places(&self, filters: &[Filter]) -> Vec<usize> {
        match filters {
            [filter] => self.fitting(filter).collect(),
            several => several
                .iter()
                .flat_map(|filter| self.fitting(filter))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        }
    }

    fn fitting(&self, filter: &Filter) -> impl Iterator<Item = usize> {
        let until = filter.until.map_or(u64::MAX, |until| until.as_secs());
        let since = filter.since.map_or(0, |since| since.as_secs());
        let first = self.events.partition_point(|stored| stored.created_at > until);
        let end = self.events.partition_point(|stored| stored.created_at >= since).max(first);
        let limit = filter.limit.unwrap_or(self.limit_max).min(self.limit_max);
        (first..end).filter(|place| self.fits(filter, *place)).take(limit)
    }

    fn fits(&self, filter: &Filter, place: usize) -> bool {
        let event = &self.events[place].event;
        filter.ids.as_ref().is_none_or(|ids| ids.contains(&event.id))
            && filter.kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind))
            && filter.authors.as_ref().is_none_or(|authors| authors.contains(&event.pubkey))
    }
}
