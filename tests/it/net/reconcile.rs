//! NIP-77 against the relay of another project, and against relays that do not support it or get it wrong.

use std::collections::BTreeSet;

use negentropy::{Id, NegentropyStorageVector};
use nostr_relay_builder::prelude::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Event, Filter, Kind};
use quipu::net::relay::{Difference, RelayError};
use serde_json::{Value, json};

use super::kit::{Peer, Socket, notes, receive_kind, say, session, stay};

async fn relay(events: &[Event]) -> LocalRelay {
    let store = MemoryDatabase::with_opts(MemoryDatabaseOptions { events: true, max_events: None });
    for event in events {
        store.save_event(event).await.unwrap();
    }
    let relay = LocalRelay::new(RelayBuilder::default().database(store));
    relay.run().await.unwrap();
    relay
}

fn items<'a>(events: impl IntoIterator<Item = &'a Event>) -> NegentropyStorageVector {
    let mut items = NegentropyStorageVector::new();
    for event in events {
        items.insert(event.created_at.as_secs(), Id::from_byte_array(event.id.to_bytes())).unwrap();
    }
    items
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<[u8; 32]> {
    events.into_iter().map(|event| event.id.to_bytes()).collect()
}

async fn compared(theirs: &[Event], ours: &[Event]) -> (Difference, u64) {
    let relay = relay(theirs).await;
    let mut session = session(relay.url().await.as_str()).await.unwrap();
    let filter = Filter::new().kind(Kind::TextNote);
    let difference = session.reconcile(&filter, items(ours)).await.unwrap();
    assert!(session.page(&filter.limit(1)).await.is_ok(), "the session continues");
    (difference, session.traffic().received)
}

#[tokio::test]
async fn n_77_1_nothing_and_one_event_are_compared() {
    let one = notes(1);
    assert_eq!(compared(&[], &[]).await.0, Difference { rounds: 1, ..Difference::default() });
    let needed = compared(&one, &[]).await.0;
    assert_eq!((needed.have.len(), needed.need), (0, vec![one[0].id.to_bytes()]));
    let had = compared(&[], &one).await.0;
    assert_eq!((had.have, had.need.len()), (vec![one[0].id.to_bytes()], 0));
    let same = compared(&one, &one).await.0;
    assert_eq!((same.have.len(), same.need.len()), (0, 0));
}

#[tokio::test]
async fn n_77_3_twenty_thousand_events_are_compared_by_their_differences() {
    let all = notes(20_000);
    // We lack every hundredth event; the relay lacks every hundredth event at another offset.
    let (mut ours, mut theirs, mut need, mut have) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (n, event) in all.iter().enumerate() {
        match n % 100 {
            7 => {
                theirs.push(event.clone());
                need.push(event);
            }
            50 => {
                ours.push(event.clone());
                have.push(event);
            }
            _ => {
                ours.push(event.clone());
                theirs.push(event.clone());
            }
        }
    }
    let (difference, received) = compared(&theirs, &ours).await;
    assert_eq!(difference.need.iter().copied().collect::<BTreeSet<_>>(), ids(need));
    assert_eq!(difference.have.iter().copied().collect::<BTreeSet<_>>(), ids(have));
    let whole: usize = theirs.iter().map(|event| nostr_sdk::JsonUtil::as_json(event).len()).sum();
    println!("{} rounds, {received} bytes of {whole}", difference.rounds);

    let (same, received) = compared(&theirs, &theirs).await;
    assert_eq!((same.have.len(), same.need.len(), same.rounds), (0, 0, 1));
    assert!(received < 10_000, "{received}");

    let (all_of_it, received) = compared(&theirs, &[]).await;
    println!("{} rounds, {received} bytes for all ids", all_of_it.rounds);
    assert_eq!(all_of_it.need.len(), theirs.len());
}

/// The error when the relay answers NEG-OPEN with `answer`; `ID` stands for the subscription id.
async fn answered(answer: Value) -> RelayError {
    let peer = Peer::start(move |mut socket: Socket| {
        let answer = answer.clone();
        async move {
            let asked = receive_kind(&mut socket, "NEG-OPEN").await.unwrap();
            let text = answer.to_string().replace("ID", asked[1].as_str().unwrap());
            say(&mut socket, &serde_json::from_str(&text).unwrap()).await;
            let asked = receive_kind(&mut socket, "REQ").await.unwrap();
            say(&mut socket, &json!(["EOSE", asked[1]])).await;
            stay(socket).await;
        }
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    let error = session.reconcile(&Filter::new(), items(&notes(3))).await.unwrap_err();
    session.page(&Filter::new().limit(1)).await.unwrap();
    error
}

#[tokio::test]
async fn n_77_1_a_refusal_and_missing_support_are_different_errors() {
    let refused = answered(json!(["NEG-ERR", "ID", "blocked: too many records"])).await;
    assert!(
        matches!(&refused, RelayError::NegRefused(why) if why == "blocked: too many records"),
        "{refused}"
    );
    for unknown in [
        json!(["NOTICE", "ERROR: bad msg: unknown cmd"]),
        json!(["CLOSED", "ID", "unsupported: what?"]),
        // N-77.2: a relay of another version answers with one byte.
        json!(["NEG-MSG", "ID", "60"]),
        json!(["NEG-MSG", "ID", "no hex"]),
        json!(["NEG-MSG", "ID", ""]),
    ] {
        let error = answered(unknown.clone()).await;
        assert_eq!(error.reason(), "negentropy_unsupported", "{unknown}");
    }
}

#[tokio::test(start_paused = true)]
async fn n_77_1_a_silent_relay_does_not_support_it() {
    let peer = Peer::start(stay).await;
    let mut session = session(&peer.url()).await.unwrap();
    let error = session.reconcile(&Filter::new(), items(&[])).await.unwrap_err();
    assert_eq!(error.reason(), "negentropy_unsupported");
}

/// A relay that always has one more range to compare.
#[tokio::test]
async fn n_77_2_a_comparison_without_end_is_given_up() {
    let peer = Peer::start(|mut socket: Socket| async move {
        // Version, upper bound at infinity, and a foreign fingerprint: our range is split again, without end.
        let other = format!("610000{:02x}{}", 1, "ab".repeat(16));
        let mut asked = receive_kind(&mut socket, "NEG-OPEN").await;
        while let Some(question) = asked {
            say(&mut socket, &json!(["NEG-MSG", question[1], other])).await;
            asked = receive_kind(&mut socket, "NEG-MSG").await;
        }
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    let error = session.reconcile(&Filter::new(), items(&notes(100))).await.unwrap_err();
    assert_eq!(error.reason(), "flooded", "{error}");
}
