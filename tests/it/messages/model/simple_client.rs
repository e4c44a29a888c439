//! A second-generation client that sends and receives single frames.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A connected client.
pub(crate) struct SimpleClient(WebSocketStream<TcpStream>);

impl SimpleClient {
    pub(crate) async fn hello(address: SocketAddr, wayfarer: &str, device: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.unwrap();
        let mut client = Self(socket);
        client.send(json!({ "type": "hello", "wayfarer_id": wayfarer, "device_id": device })).await;
        assert_eq!(client.next_frame().await["type"], "hello_ok");
        client
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn next_frame(&mut self) -> Value {
        let next_frame = async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        };
        timeout(Duration::from_secs(30), next_frame).await.expect("a frame comes")
    }
}
