//! A client of the second generation that says one frame, and hears one.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A client that says and hears one frame after the other.
pub(crate) struct Talk(WebSocketStream<TcpStream>);

impl Talk {
    pub(crate) async fn hello(address: SocketAddr, wayfarer: &str, device: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.unwrap();
        let mut talk = Self(socket);
        talk.say(json!({ "type": "hello", "wayfarer_id": wayfarer, "device_id": device })).await;
        assert_eq!(talk.hear().await["type"], "hello_ok");
        talk
    }

    pub(crate) async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Value {
        let hear = async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        };
        timeout(Duration::from_secs(30), hear).await.expect("a frame comes")
    }
}
