//! A client of the wire protocol's second generation: hello, proof of identity, requests and responses over
//! one WebSocket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;
use url::Url;

use super::frame::{Frame, Message, Stored};
use super::line::Plain;
use crate::base::{RelayUrl, Secret};
use crate::net::{Dial, Egress, SocketError, TextSocket, Trust};
use crate::services::messages::decide::{Challenge, Unproven};

/// Timeout for the connection and the handshakes.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// The relay is pinged after this time without a frame.
const PING_AFTER: Duration = Duration::from_secs(30);

/// Timeout for a response.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// Longest frame that is accepted, in bytes: a page of a hundred messages with the longest payload that a
/// relay can be configured to accept.
const FRAME_BYTES_MAX: usize = 160 * 1024 * 1024;

/// The proof of the client's identity.
#[derive(Debug)]
pub(super) enum Proof {
    /// None: the identity is only claimed.
    None,
    /// A bearer token, sent with the upgrade request.
    Token(Secret),
    /// A key, which signs the relay's challenge.
    Key(SigningKey),
}

/// The relay, and the identity of the client.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) outside: Egress,
    pub(super) url: Url,
    pub(super) wayfarer_id: String,
    pub(super) device: String,
    pub(super) proof: Proof,
    /// Only challenges that name this relay are signed. Without a value the name must be the URL that was
    /// dialled.
    pub(super) relay_id: Option<String>,
}

/// Why a request has no response.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("{url}: {why}{}", advice_of_socket(.why))]
    Socket { url: Box<Url>, why: SocketError },
    #[error("the relay closed the connection")]
    Closed,
    #[error("the relay did not answer within {ANSWER_WITHIN:?}")]
    NoAnswer,
    #[error("the relay refuses: {}{}: {}{}", Plain(.code), if .code.is_empty() { "error" } else { "" }, Plain(.message), advice(.code))]
    Refused { code: String, message: String },
    #[error(
        "the relay requires proof of the identity: give `--key FILE`, or a token of `quipu messages token create`"
    )]
    ProofWanted,
    #[error(
        "the relay's challenge is for `{}`, which is not the URL that was dialled, so it is not signed: the named relay \
         would accept the signature as yours. Dial that URL, or give `--relay-id` if you know that this relay has that name", Plain(.0)
    )]
    OtherRelay(String),
    #[error("the relay's challenge cannot be signed: {0}")]
    Unsignable(#[from] Unproven),
}

impl Trouble {
    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Socket { why, .. } => match why {
                SocketError::Status(status) => *status >= 500 || *status == 429,
                SocketError::Dial(_) | SocketError::Silent(_) | SocketError::Lost(_) => true,
                SocketError::NoWebSocket(_) | SocketError::TooLarge(_) => false,
            },
            Self::Closed | Self::NoAnswer => true,
            Self::Refused { code, .. } => matches!(code.as_str(), "RATE_LIMITED" | "INTERNAL_ERROR"),
            Self::ProofWanted | Self::OtherRelay(_) | Self::Unsignable(_) => false,
        }
    }
}

/// Advice for the user after a refusal.
fn advice(code: &str) -> &'static str {
    match code {
        "AUTH_FAILED" => {
            "; is the token (`quipu messages token list`) or the key that of --as and --device, and is --url this relay's?"
        }
        "INVALID_WAYFARER_ID" => "; an id is 64 lower-case hex digits, as `quipu messages key create` prints",
        "RATE_LIMITED" => "; try again later",
        "PAYLOAD_TOO_LARGE" => "; send it in parts",
        "IDEMPOTENCY_MISMATCH" => "; another message was sent with this --client-msg-id, take another one",
        _ => "",
    }
}

fn advice_of_socket(why: &SocketError) -> &'static str {
    match why {
        SocketError::Dial(_) => {
            "; does the service `messages` run there? `quipu run messages` alone listens elsewhere: `--url ws://127.0.0.1:8080/ws`"
        }
        SocketError::Status(401 | 403) => {
            "; the token is not good here: `quipu messages token create` makes one"
        }
        SocketError::Status(404) => "; the path is `/ws`",
        SocketError::Status(_)
        | SocketError::NoWebSocket(_)
        | SocketError::TooLarge(_)
        | SocketError::Silent(_)
        | SocketError::Lost(_) => "",
    }
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To receive pushed messages.
    Listen,
    /// To send requests. Relays that resume after a position push no messages on such a connection, and count
    /// none as pushed.
    Ask,
}

/// A connection after a successful login.
#[derive(Debug)]
pub(super) struct Client<'a> {
    socket: TextSocket,
    login: &'a Login,
}

impl<'a> Client<'a> {
    /// Connects, sends hello and proves the identity.
    pub(super) async fn connect(login: &'a Login, purpose: Purpose) -> Result<Self, Trouble> {
        let bearer = match &login.proof {
            Proof::Token(token) => Some(format!("Bearer {}", token.expose())),
            Proof::None | Proof::Key(_) => None,
        };
        let headers: Vec<(&'static str, &str)> =
            bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        let dial = Dial {
            url: &login.url,
            headers: &headers,
            trust: Trust::Named,
            connect_within: CONNECT_WITHIN,
            message_bytes_max: FRAME_BYTES_MAX,
        };
        let socket =
            TextSocket::connect(&login.outside, &dial, PING_AFTER).await.map_err(|e| login.broken(e))?;
        let mut client = Self { socket, login };
        let mut hello =
            json!({ "type": "hello", "wayfarer_id": login.wayfarer_id, "device_id": login.device });
        if let Proof::Key(_) = login.proof {
            hello["auth"] = "ed25519".into();
        }
        if purpose == Purpose::Ask {
            hello["since"] = i64::MAX.into();
        }
        client.send(&hello).await?;
        loop {
            match client.answer().await {
                Ok(Frame::HelloOk {}) => return Ok(client),
                Ok(Frame::Challenge { challenge, relay_id }) => {
                    let proof = login.proof(&challenge, &relay_id)?;
                    client.send(&proof).await?;
                }
                Ok(_) => {}
                Err(Trouble::Refused { code, .. })
                    if code == "AUTH_FAILED" && matches!(login.proof, Proof::None) =>
                {
                    return Err(Trouble::ProofWanted);
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Sends a message. Returns when the message is on the relay's disk.
    pub(super) async fn store(&mut self, message: &Value) -> Result<Stored, Trouble> {
        self.send(message).await?;
        loop {
            if let Frame::SendOk(stored) = self.answer().await? {
                return Ok(stored);
            }
        }
    }

    /// Returns at most `limit` waiting messages; from a relay with positions, those after `after`.
    pub(super) async fn pull(&mut self, limit: usize, after: i64) -> Result<Vec<Message>, Trouble> {
        self.send(&json!({ "type": "pull", "limit": limit, "since": after })).await?;
        loop {
            // Pushed frames are skipped: their messages are also in this response or in the next one.
            if let Frame::Messages { messages } = self.answer().await? {
                return Ok(messages);
            }
        }
    }

    /// Acknowledges a message. The response is among the next frames.
    pub(super) async fn acknowledge(&mut self, msg_id: &str) -> Result<(), Trouble> {
        self.send(&json!({ "type": "ack", "msg_id": msg_id })).await
    }

    /// Waits until `many` acknowledgements are on the relay's disk.
    pub(super) async fn acknowledged(&mut self, many: usize) -> Result<(), Trouble> {
        let mut left = many;
        while left > 0 {
            if let Frame::AckOk { .. } = self.answer().await? {
                left -= 1;
            }
        }
        Ok(())
    }

    /// The next frame, without a timeout. A refusal is an error.
    pub(super) async fn next(&mut self) -> Result<Frame, Trouble> {
        loop {
            let text = self.socket.next().await.map_err(|e| self.login.broken(e))?.ok_or(Trouble::Closed)?;
            match serde_json::from_str(&text) {
                Ok(Frame::Error { code, message }) => return Err(Trouble::Refused { code, message }),
                Ok(frame) => return Ok(frame),
                Err(_) => tracing::debug!("skipped a frame that cannot be parsed"),
            }
        }
    }

    /// Closes the connection.
    pub(super) async fn close(self) {
        self.socket.close().await;
    }

    async fn answer(&mut self) -> Result<Frame, Trouble> {
        timeout(ANSWER_WITHIN, self.next()).await.map_err(|_| Trouble::NoAnswer)?
    }

    async fn send(&mut self, frame: &Value) -> Result<(), Trouble> {
        self.socket.send(frame.to_string()).await.map_err(|e| self.login.broken(e))
    }
}

impl Login {
    fn broken(&self, why: SocketError) -> Trouble {
        Trouble::Socket { url: Box::new(self.url.clone()), why }
    }

    /// The signed response to a challenge.
    fn proof(&self, challenge: &str, relay_id: &str) -> Result<Value, Trouble> {
        let Proof::Key(key) = &self.proof else { return Err(Trouble::ProofWanted) };
        if !self.may_sign_for(relay_id) {
            return Err(Trouble::OtherRelay(relay_id.to_owned()));
        }
        let claim = Challenge { challenge, relay_id, wayfarer_id: &self.wayfarer_id, device: &self.device };
        Ok(json!({
            "type": "auth",
            "public_key_b64": URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes()),
            "signature_b64": URL_SAFE_NO_PAD.encode(key.sign(claim.text()?.as_bytes()).to_bytes()),
        }))
    }

    /// A relay could forward another relay's challenge and log in there with our signature. So the name in a
    /// challenge must be the one that the user gave, or the URL that was dialled (as N-42.9).
    fn may_sign_for(&self, relay_id: &str) -> bool {
        match &self.relay_id {
            Some(given) => given == relay_id,
            None => {
                RelayUrl::parse(relay_id).is_ok_and(|named| RelayUrl::parse(self.url.as_str()) == Ok(named))
            }
        }
    }
}

#[cfg(test)]
mod tests;
