//! The sample relay as a client sees it: capped responses, newest first, paged by an inclusive `until`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use nostr_sdk::{Client, Event, EventId, Filter, Kind, Timestamp};
use quipu::base::Network;
use quipu::sample::{ANSWER_EVENTS_MAX, SampleGenerator, SampleRelay, SampleRelayError};

const TIMEOUT: Duration = Duration::from_secs(20);

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn client_of(url: &str) -> Client {
    let client = Client::default();
    client.add_relay(url).await.unwrap();
    client.connect().await;
    client.wait_for_connection(TIMEOUT).await;
    client
}

async fn answer(client: &Client, filter: Filter) -> Vec<Event> {
    client.fetch_events(filter, TIMEOUT).await.unwrap().into_iter().collect()
}

/// Pages back with `until` at the oldest second seen (N-01.22); returns the ids and the number of responses.
async fn page(client: &Client, kind: Option<Kind>) -> (BTreeSet<EventId>, usize) {
    let (mut ids, mut pages, mut until) = (BTreeSet::new(), 0, Timestamp::from_secs(u32::MAX.into()));
    loop {
        let mut filter = Filter::new().until(until).limit(ANSWER_EVENTS_MAX);
        filter.kinds = kind.map(|kind| BTreeSet::from([kind]));
        let events = answer(client, filter).await;
        pages += 1;
        let known = ids.len();
        ids.extend(events.iter().map(|event| event.id));
        match events.last() {
            Some(oldest) if ids.len() > known => until = oldest.created_at,
            _ => return (ids, pages),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_by_until_finds_every_event_of_the_sample_relay() {
    let events: Vec<Event> = SampleGenerator::paced(1, 6_000).collect();
    let notes: BTreeSet<EventId> =
        events.iter().filter(|event| event.kind == Kind::TextNote).map(|event| event.id).collect();
    let relay = SampleRelay::start(anywhere(), events).await.unwrap();
    assert_eq!(relay.url().network(), Network::Clearnet);
    assert!(relay.url().is_local_address());
    let client = client_of(relay.url().as_str()).await;

    let (ids, pages) = page(&client, None).await;
    println!("{} of 6,000 events held, {pages} pages", relay.events());
    assert_eq!(ids.len(), relay.events());
    assert!((5_000..6_000).contains(&relay.events()), "superseded profiles and lists are not held");

    let (ids, _) = page(&client, Some(Kind::TextNote)).await;
    assert!(
        ids.is_subset(&notes) && ids.len() * 100 > notes.len() * 97,
        "notes are missing only when deleted"
    );
    client.shutdown().await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_capped_and_newest_first_with_both_ends_included() {
    let events: Vec<Event> = SampleGenerator::paced(2, 2_000).collect();
    let relay = SampleRelay::start(anywhere(), events).await.unwrap();
    let client = client_of(relay.url().as_str()).await;

    for limit in [None, Some(5_000)] {
        let mut filter = Filter::new().since(Timestamp::from_secs(1));
        filter.limit = limit;
        assert_eq!(answer(&client, filter).await.len(), ANSWER_EVENTS_MAX, "limit {limit:?}");
    }
    let newest = answer(&client, Filter::new().limit(10)).await;
    assert_eq!(newest.len(), 10);
    assert!(newest.is_sorted_by_key(|event| std::cmp::Reverse(event.created_at)));
    let second = newest[9].created_at;
    let of_that_second = answer(&client, Filter::new().since(second).until(second)).await;
    assert!(of_that_second.iter().any(|event| event.id == newest[9].id));
    assert!(of_that_second.iter().all(|event| event.created_at == second));
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_an_error_and_a_stopped_relay_frees_it() {
    let first = SampleRelay::start(anywhere(), []).await.unwrap();
    let taken = first.address();
    let second = SampleRelay::start(taken, []).await;
    assert!(matches!(second, Err(SampleRelayError::Start(_))), "{second:?}");

    let client = client_of(first.url().as_str()).await;
    first.shutdown().await;
    for _ in 0..30 {
        // Stopped right after the start, when the underlying relay sometimes misses the call.
        SampleRelay::start(taken, []).await.unwrap().shutdown().await;
    }
    client.shutdown().await;
}
