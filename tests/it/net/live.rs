//! The live subscription beside other requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt as _;
use nostr_sdk::{Filter, JsonUtil as _};
use quipu::net::relay::RelayError;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::kit::{Peer, Socket, TIMEOUTS, notes, receive_kind, say, session, stay};

fn event(of: &Value, note: &nostr_sdk::Event) -> Value {
    json!(["EVENT", of, serde_json::from_str::<Value>(&note.as_json()).unwrap()])
}

#[tokio::test]
async fn live_events_in_the_middle_of_a_page_are_neither_lost_nor_mixed() {
    let peer = Peer::start(|mut socket: Socket| async move {
        let all = notes(30);
        let live = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
        let page = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
        assert_ne!(live, page);
        for (n, note) in all.iter().enumerate() {
            say(&mut socket, &event(if n % 3 == 0 { &live } else { &page }, note)).await;
            if n == 15 {
                say(&mut socket, &json!(["EOSE", live])).await;
            }
        }
        say(&mut socket, &json!(["EOSE", page])).await;
        stay(socket).await;
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.listen(&[Filter::new().limit(0)]).await.unwrap();
    let page = session.page(&Filter::new().limit(500)).await.unwrap();
    session.wait_live().await.unwrap();
    let live = session.take_live();
    assert_eq!((page.events.len(), live.events.len()), (20, 10));
    assert!(live.events[1].json().contains("note 3") && page.events[1].json().contains("note 2"));
    assert!(session.take_live().events.is_empty());
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_event() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let peer = Peer::start(move |mut socket: Socket| {
        let go = Arc::clone(&told);
        async move {
            let live = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
            for note in notes(200) {
                go.notified().await;
                // In two pieces, so that a wait can be cancelled between them.
                let text = event(&live, &note).to_string();
                let (head, tail) = text.split_at(text.len() / 2);
                for (piece, kind, last) in [(head, Data::Text, false), (tail, Data::Continue, true)] {
                    let frame = Frame::message(piece.as_bytes().to_vec(), OpCode::Data(kind), last);
                    socket.send(Message::Frame(frame)).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            stay(socket).await;
        }
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.listen(&[Filter::new()]).await.unwrap();
    let mut held = 0;
    while held < 200 {
        go.notify_one();
        // Cancelled at once or after a moment, repeatedly.
        let _ = timeout(Duration::from_micros(50), session.wait_live()).await;
        held += session.take_live().events.len();
    }
    assert_eq!(held, 200);
}

#[tokio::test]
async fn n_01_15_the_end_of_the_live_subscription_is_reported_after_its_events() {
    let peer = Peer::start(|mut socket: Socket| async move {
        let live = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
        say(&mut socket, &event(&live, &notes(1)[0])).await;
        say(&mut socket, &json!(["CLOSED", live, "error: shutting down"])).await;
        let page = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
        say(&mut socket, &json!(["EOSE", page])).await;
        stay(socket).await;
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.listen(&[Filter::new()]).await.unwrap();
    // The page is read past both.
    assert!(session.page(&Filter::new().limit(1)).await.unwrap().events.is_empty());
    session.wait_live().await.unwrap();
    assert_eq!(session.take_live().events.len(), 1);
    let ended = session.wait_live().await.unwrap_err();
    assert!(matches!(&ended, RelayError::Closed(why) if why == "error: shutting down"), "{ended}");
    assert!(matches!(session.wait_live().await, Err(RelayError::Closed(_))), "nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_silent_after_two_pings() {
    // The peer never reads, so it never answers a ping.
    let peer = Peer::start(|socket: Socket| async move {
        let _open = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.listen(&[Filter::new()]).await.unwrap();
    let begun = tokio::time::Instant::now();
    // Cancelled now and then, as the owner of a session does.
    let ended = loop {
        if let Ok(ended) = timeout(Duration::from_secs(7), session.wait_live()).await {
            break ended.unwrap_err();
        }
    };
    let silence = 3 * TIMEOUTS.idle;
    assert!(matches!(ended, RelayError::Silent(time) if time == silence), "{ended}");
    assert_eq!(begun.elapsed().as_secs(), silence.as_secs());
}

#[tokio::test]
async fn a_session_that_the_relay_has_closed_is_noticed_without_a_request() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let peer = Peer::start(move |mut socket: Socket| {
        let go = Arc::clone(&told);
        async move {
            say(&mut socket, &json!(["NOTICE", "closing soon"])).await;
            go.notified().await;
            let _ = socket.close(None).await;
        }
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    assert!(session.is_open());
    go.notify_one();
    let closed = async {
        while session.is_open() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUTS.idle, closed).await.expect("the close frame arrives");
}

#[tokio::test]
async fn more_live_events_than_are_kept_aside_end_the_session() {
    let peer = Peer::start(|mut socket: Socket| async move {
        let live = receive_kind(&mut socket, "REQ").await.unwrap()[1].clone();
        let text = json!(["EVENT", live, {"content": "x".repeat(1_000_000)}]).to_string();
        while socket.send(Message::text(text.clone())).await.is_ok() {}
    })
    .await;
    let mut session = session(&peer.url()).await.unwrap();
    session.listen(&[Filter::new()]).await.unwrap();
    let ended = session.page(&Filter::new().limit(1)).await.unwrap_err();
    assert_eq!(ended.reason(), "flooded");
    assert!(session.take_live().events.len() < 12);
}
