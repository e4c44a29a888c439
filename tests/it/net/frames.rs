//! Pages, and messages that no relay should send.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_sdk::{Filter, JsonUtil as _};
use quipu::base::nostr_event::OfferedEvent;
use quipu::net::relay::{RelayError, RelaySession};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::kit::{Peer, Socket, notes, receive_kind, say, session, stay};
use crate::support::wire_relay::WireRelay;

/// Answers every REQ with these frames; `ID` stands for the subscription.
async fn answering(frames: Vec<Message>) -> Peer {
    Peer::start(move |mut socket| {
        let frames = frames.clone();
        async move {
            while let Some(asked) = receive_kind(&mut socket, "REQ").await {
                for frame in &frames {
                    let frame = match frame {
                        Message::Text(text) => Message::text(text.replace("ID", asked[1].as_str().unwrap())),
                        other => other.clone(),
                    };
                    if socket.send(frame).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await
}

fn filter() -> Filter {
    Filter::new().limit(500)
}

async fn connected(peer: &Peer) -> RelaySession {
    session(&peer.url()).await.unwrap()
}

#[tokio::test]
async fn a_page_request_does_not_wait_for_a_delayed_acknowledgement() {
    let relay = WireRelay::start(notes(50), 500).await.unwrap();
    let mut session = session(&relay.url()).await.unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(session.page(&Filter::new().limit(1)).await.unwrap().events.len(), 1);
    }
    // With Nagle's algorithm the 50 requests would take 40 ms each.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(session.traffic().received > 50 * 200 && session.traffic().sent > 50 * 20);
    session.close().await;
}

#[tokio::test]
async fn n_01_15_n_01_21_n_67_a_page_takes_its_own_events_and_counts_other_frames() {
    let note = notes(1)[0].as_json();
    let peer = answering(vec![
        Message::Ping(vec![1, 2, 3].into()),
        Message::text(r#"["NOTICE","hello \u0000"]"#),
        Message::text(format!(r#"["EVENT","other",{note}]"#)),
        Message::text("no json"),
        Message::binary(vec![0xff; 10]),
        Message::text(format!(r#"["EVENT","ID",{note}]"#)),
        Message::text(r#"["EOSE","other"]"#),
        Message::text(r#"["EOSE","ID",["finish"]]"#),
    ])
    .await;
    let mut session = connected(&peer).await;
    for _ in 0..2 {
        let page = session.page(&filter()).await.unwrap();
        assert_eq!(page.events, [OfferedEvent::read(&note).unwrap()]);
        assert_eq!((page.invalid_frames, page.refused.total(), page.is_cut), (2, 0, false));
        assert_eq!(page.notice.as_deref(), Some("hello \u{2400}"));
    }
    let refusing = answering(vec![Message::text(r#"["CLOSED","ID","restricted: \u0000"]"#)]).await;
    let mut session = connected(&refusing).await;
    for _ in 0..2 {
        let refused = session.page(&filter()).await.unwrap_err();
        assert!(matches!(refused, RelayError::Closed(why) if why == "restricted: \u{2400}"));
    }
}

#[tokio::test]
async fn an_answer_longer_than_asked_for_is_cut_and_its_rest_is_nobodys() {
    let mut frames: Vec<_> =
        notes(40).iter().map(|note| Message::text(format!(r#"["EVENT","ID",{}]"#, note.as_json()))).collect();
    frames.push(Message::text(r#"["EOSE","ID"]"#));
    let peer = answering(frames).await;
    let mut session = connected(&peer).await;
    for _ in 0..3 {
        let page = session.page(&Filter::new().limit(5)).await.unwrap();
        assert_eq!((page.events.len(), page.is_cut), (16, true));
    }
}

#[tokio::test]
async fn an_event_a_little_too_large_is_counted_and_the_page_continues() {
    let large = format!(r#"["EVENT","ID",{{"content":"{}"}}]"#, "x".repeat(4 * 1024 * 1024 + 100));
    let peer = answering(vec![Message::text(large), Message::text(r#"["EOSE","ID"]"#)]).await;
    let page = connected(&peer).await.page(&filter()).await.unwrap();
    assert!(page.events.is_empty());
    assert_eq!(page.refused.iter().collect::<Vec<_>>(), [("too_large", 1)]);
}

#[tokio::test]
async fn a_frame_of_20_mb_ends_the_session() {
    let peer = answering(vec![Message::text("x".repeat(20_000_000))]).await;
    let ended = connected(&peer).await.page(&filter()).await.unwrap_err();
    assert_eq!(ended.reason(), "frame_too_large", "{ended}");
}

fn fragment(first: bool, bytes: usize) -> Message {
    let kind = if first { Data::Text } else { Data::Continue };
    Message::Frame(Frame::message(vec![b'x'; bytes], OpCode::Data(kind), false))
}

#[tokio::test]
async fn a_message_without_end_ends_the_session() {
    let peer = Peer::start(|mut socket: Socket| async move {
        receive_kind(&mut socket, "REQ").await;
        let mut first = true;
        while socket.send(fragment(first, 64 * 1024)).await.is_ok() {
            first = false;
        }
    })
    .await;
    let ended = connected(&peer).await.page(&filter()).await.unwrap_err();
    assert_eq!(ended.reason(), "frame_too_large", "{ended}");
}

#[tokio::test]
async fn a_relay_that_talks_without_saying_anything_is_left() {
    let peer = Peer::start(|mut socket: Socket| async move {
        let junk = format!(r#"["NOTICE","{}"]"#, "x".repeat(2_000_000));
        while socket.send(Message::text(junk.clone())).await.is_ok() {}
    })
    .await;
    let mut session = connected(&peer).await;
    session.listen(&[filter()]).await.unwrap();
    assert_eq!(session.wait_live().await.unwrap_err().reason(), "flooded");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_given_up() {
    let peer = Peer::start(stay).await;
    let mut session = connected(&peer).await;
    let begun = tokio::time::Instant::now();
    let ended = session.page(&filter()).await.unwrap_err();
    assert!(matches!(ended, RelayError::Silent(_)), "{ended}");
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn a_ping_is_answered_and_a_published_event_has_its_answer() {
    let peer = Peer::start(|mut socket: Socket| async move {
        socket.send(Message::Ping(vec![7].into())).await.unwrap();
        let event = receive_kind(&mut socket, "EVENT").await.unwrap();

        say(&mut socket, &json!(["OK", "0".repeat(64), true, "of another event"])).await;
        while !matches!(socket.next().await, Some(Ok(Message::Pong(data))) if data[..] == [7]) {}
        say(&mut socket, &json!(["OK", event[1]["id"], false, "blocked: no"])).await;
        stay(socket).await;
    })
    .await;
    let mut session = connected(&peer).await;
    let published = session.publish(&notes(1)[0]).await.unwrap();
    assert_eq!((published.accepted, published.message.as_str()), (false, "blocked: no"));
}
