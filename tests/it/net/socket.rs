//! The WebSocket client for text messages.

use std::time::Duration;

use futures_util::StreamExt as _;
use quipu::net::{Dial, SocketError, TextSocket, Trust};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

use super::kit::{Peer, outside, receive, say};

const TIMEOUTS: Duration = Duration::from_secs(20);

async fn socket(
    url: &str,
    trust: Trust,
    message_bytes_max: usize,
    patience: Duration,
) -> Result<TextSocket, SocketError> {
    let url = Url::parse(url).unwrap();
    let dial = Dial { url: &url, headers: &[], trust, connect_within: TIMEOUTS, message_bytes_max };
    TextSocket::connect(&outside(), &dial, patience).await
}

#[tokio::test]
async fn texts_go_both_ways_until_one_side_closes() {
    let peer = Peer::start(|mut socket| async move {
        let text = receive(&mut socket).await.unwrap();
        say(&mut socket, &json!([text, "again"])).await;
        socket.close(None).await.unwrap();
    })
    .await;
    let mut socket = socket(&peer.url(), Trust::Named, 1_024, TIMEOUTS).await.unwrap();
    socket.send("\"hello\"").await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().as_str(), r#"["hello","again"]"#);
    assert_eq!(socket.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_message_too_long_ends_it() {
    let peer = Peer::start(|mut socket| async move {
        say(&mut socket, &json!("x".repeat(2_000))).await;
        super::kit::stay(socket).await;
    })
    .await;
    let mut socket = socket(&peer.url(), Trust::Named, 1_024, TIMEOUTS).await.unwrap();
    assert!(matches!(socket.next().await, Err(SocketError::TooLarge(1_024))));
}

#[tokio::test]
async fn a_peer_that_answers_pings_is_waited_for_and_a_silent_one_is_given_up() {
    let patience = Duration::from_millis(50);
    let peer = Peer::start(|mut socket| async move {
        // Reading answers pings. After five pings the peer sends a message.
        let mut pings = 0;
        while let Some(Ok(message)) = socket.next().await {
            pings += u32::from(matches!(message, Message::Ping(_)));
            if pings == 5 {
                say(&mut socket, &json!("at last")).await;
            }
        }
    })
    .await;
    let mut alive = socket(&peer.url(), Trust::Named, 1_024, patience).await.unwrap();
    assert_eq!(alive.next().await.unwrap().unwrap().as_str(), "\"at last\"");

    let mute = Peer::start(|socket| async move {
        let _open = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let mut dead = socket(&mute.url(), Trust::Named, 1_024, patience).await.unwrap();
    assert!(matches!(dead.next().await, Err(SocketError::Silent(_))));
}

#[tokio::test]
async fn a_discovered_private_address_is_not_dialled() {
    let peer = Peer::start(super::kit::stay).await;
    let refused = socket(&peer.url(), Trust::Discovered, 1_024, TIMEOUTS).await.unwrap_err();
    assert!(matches!(refused, SocketError::Dial(_)), "{refused}");
}
