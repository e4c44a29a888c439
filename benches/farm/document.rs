//! NIP-11 documents of all characters.

use std::io;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::Character;

/// Size of a document that a client should not read completely: 30 MB.
const LARGE: usize = 30_000_000;

/// Valid JSON with extreme values. Its limit once made the query over all relays, and so the crawl, fail.
const HOSTILE: &str = r#"{"name":["HostileDocument"],"description":-1e300,"supported_nips":[1,11,1e19,-77,"77",77.5,{}],
    "limitation":{"max_limit":1e300},"limitation":{"max_limit":-1e19,"default_limit":0.5,"auth_required":"no","payment_required":-1,
    "min_pow_difficulty":1e19,"restricted_writes":[]},"retention":[[[[[[-1e19]]]]]],"software":9007199254740993,"version":null}"#;

/// Targets of redirects.
#[derive(Debug, Clone, Copy)]
pub(super) struct RedirectTargets {
    /// A private address, to which a client must not follow a redirect.
    pub(super) trap: SocketAddr,
    /// Another relay of the farm.
    pub(super) other_relay: SocketAddr,
}

/// Answers a plain HTTP request.
pub(super) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    character: Character,
    around: RedirectTargets,
) -> io::Result<()> {
    match character {
        Character::RedirectLoop => redirect(stream, "/").await,
        Character::RedirectPrivate => redirect(stream, &format!("http://{}/", around.trap)).await,
        Character::RedirectRelay => redirect(stream, &format!("http://{}/", around.other_relay)).await,
        Character::LargeDocument => large(stream).await,
        _ => {
            let body = match character {
                Character::HostileDocument => HOSTILE.to_owned(),
                _ => document(character).to_string(),
            };
            stream.write_all(head("200 OK", body.len(), character).as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            stream.shutdown().await
        }
    }
}

fn document(character: Character) -> serde_json::Value {
    let mut limitation = json!({ "auth_required": character == Character::Auth, "payment_required": false });
    if let Some(limit) = character.announced_limit() {
        limitation["max_limit"] = limit.into();
        limitation["default_limit"] = limit.into();
    }
    let mut nips = vec![1, 11];
    nips.extend((character == Character::Auth).then_some(42));
    nips.extend(character.compares().then_some(77));
    json!({
        "name": format!("{character:?}"),
        "description": "a relay of Quipu's farm",
        "supported_nips": nips,
        "software": "https://example.invalid/quipu-farm",
        "version": "1",
        "limitation": limitation,
    })
}

fn head(status: &str, length: usize, character: Character) -> String {
    let date = date(character).map_or_else(String::new, |date| format!("Date: {date}\r\n"));
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/nostr+json\r\nAccess-Control-Allow-Origin: *\r\n\
         Server: quipu-farm\r\n{date}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// The `Date` header of a relay with a wrong clock.
pub(super) fn date(character: Character) -> Option<&'static str> {
    match character {
        Character::Ahead => Some("Fri, 01 Jan 2100 00:00:00 GMT"),
        Character::Behind => Some("Sun, 09 Sep 2001 01:46:40 GMT"),
        _ => None,
    }
}

async fn redirect(stream: &mut (impl AsyncWrite + Unpin), to: &str) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await
}

/// Valid JSON, if it is read to the end.
async fn large(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let (begin, end) = (r#"{"name":""#, r#""}"#);
    let letters = vec![b'x'; 1 << 16];
    let mut left = LARGE - begin.len() - end.len();
    stream.write_all(head("200 OK", LARGE, Character::LargeDocument).as_bytes()).await?;
    stream.write_all(begin.as_bytes()).await?;
    while left > 0 {
        let part = left.min(letters.len());
        stream.write_all(&letters[..part]).await?;
        left -= part;
    }
    stream.write_all(end.as_bytes()).await?;
    stream.shutdown().await
}
