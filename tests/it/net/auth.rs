//! NIP-42 against the relay of another project, and against a relay that sends its challenge late.

use nostr_relay_builder::prelude::{RelayBuilderNip42, RelayBuilderNip42Mode};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Filter, Keys};
use quipu::net::relay::RelayError;
use serde_json::json;

use super::kit::{Peer, Socket, notes, receive_kind, say, session, stay};

async fn relay() -> LocalRelay {
    let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
    let relay = LocalRelay::new(RelayBuilder::default().nip42(nip42));
    relay.run().await.unwrap();
    relay
}

#[tokio::test]
async fn n_42_9_a_relay_that_wants_authentication_is_read_and_written_after_it() {
    let relay = relay().await;
    let mut session = session(relay.url().await.as_str()).await.unwrap();
    let refused = session.page(&Filter::new().limit(1)).await.unwrap_err();
    assert!(matches!(&refused, RelayError::Closed(why) if why.starts_with("auth-required:")), "{refused}");
    session.authenticate(&Keys::generate()).await.unwrap();
    assert!(session.auth_challenge().is_some());
    let note = &notes(1)[0];
    assert!(session.publish(note).await.unwrap().accepted);
    assert_eq!(session.page(&Filter::new().limit(1)).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn n_42_1_n_42_7_the_newest_challenge_counts_and_a_late_one_is_waited_for() {
    let peer = Peer::start(|mut socket: Socket| async move {
        say(&mut socket, &json!(["AUTH", "old"])).await;
        let asked = receive_kind(&mut socket, "REQ").await.unwrap();
        say(&mut socket, &json!(["CLOSED", asked[1], "auth-required: first"])).await;
        say(&mut socket, &json!(["AUTH", "new"])).await;
        let asked = receive_kind(&mut socket, "REQ").await.unwrap();
        say(&mut socket, &json!(["EOSE", asked[1]])).await;
        let answer = receive_kind(&mut socket, "AUTH").await.unwrap();
        let tags = answer[1]["tags"].to_string();
        let is_right =
            answer[1]["kind"] == 22_242 && tags.contains(r#""new""#) && tags.contains("ws://127.0.0.1");
        say(&mut socket, &json!(["OK", answer[1]["id"], is_right, "restricted: no"])).await;
        let answer = receive_kind(&mut socket, "AUTH").await.unwrap();
        say(&mut socket, &json!(["OK", answer[1]["id"], false, "restricted: no"])).await;
        stay(socket).await;
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.page(&Filter::new().limit(1)).await.unwrap_err();
    session.page(&Filter::new().limit(1)).await.unwrap();
    assert_eq!(session.auth_challenge(), Some("new"));
    session.authenticate(&Keys::generate()).await.unwrap();
    let refused = session.authenticate(&Keys::generate()).await.unwrap_err();
    assert!(matches!(&refused, RelayError::AuthRefused(why) if why == "restricted: no"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn without_a_challenge_nothing_is_signed() {
    let peer = Peer::start(stay).await;
    let mut session = session(&peer.url()).await.unwrap();
    let refused = session.authenticate(&Keys::generate()).await.unwrap_err();
    assert!(matches!(refused, RelayError::NoChallenge), "{refused}");
}
