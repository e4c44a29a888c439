//! The relay of the benches follows NIP-01 and is faster than its readers.

use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::{Event, JsonUtil, RelayMessage};
use quipu::sample::SampleGenerator;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::wire_relay::{LIMIT_MAX, WireRelay};

async fn connect(relay: &WireRelay) -> WebSocketStream<TcpStream> {
    let url = relay.url();
    let stream = TcpStream::connect(url.trim_start_matches("ws://")).await.unwrap();
    client_async(url, stream).await.unwrap().0
}

/// Sends one message and reads texts up to EOSE or CLOSED.
async fn ask(socket: &mut WebSocketStream<TcpStream>, request: &str) -> Vec<String> {
    socket.send(Message::text(request)).await.unwrap();
    let mut texts = Vec::new();
    loop {
        let text = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
        let ended = text.starts_with("[\"EOSE\"") || text.starts_with("[\"CLOSED\"");
        texts.push(text);
        if ended {
            return texts;
        }
    }
}

fn events_in(texts: &[String]) -> Vec<Event> {
    let (end, texts) = texts.split_last().unwrap();
    assert!(end.starts_with("[\"EOSE\""), "{end}");
    let event = |text: &String| match RelayMessage::from_json(text).unwrap() {
        RelayMessage::Event { event, .. } => event.into_owned(),
        other => panic!("{other:?}"),
    };
    texts.iter().map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_relay_answers_as_nip_01_says() {
    let mut all: Vec<Event> = SampleGenerator::paced(1, 3_000).collect();
    let relay = WireRelay::start(all.clone(), LIMIT_MAX).await.unwrap();
    all.sort();
    let mut socket = connect(&relay).await;

    let answer = ask(&mut socket, r#"["REQ","a \"1\"",{}]"#).await;
    assert!(answer[0].starts_with(r#"["EVENT","a \"1\"",{"#));
    assert_eq!(events_in(&answer), all[..LIMIT_MAX]);

    let (newer, older) = (all[700].created_at.as_secs(), all[900].created_at.as_secs());
    let request = format!(r#"["REQ","s",{{"since":{older},"until":{newer},"limit":400}}]"#);
    let within: Vec<_> =
        all.iter().filter(|event| (older..=newer).contains(&event.created_at.as_secs())).cloned().collect();
    assert_eq!(events_in(&ask(&mut socket, &request).await), within);

    let author = all[5].pubkey;
    let request = format!(r#"["REQ","s",{{"authors":["{author}"],"limit":7}},{{"kinds":[3],"limit":2}}]"#);
    let events = events_in(&ask(&mut socket, &request).await);
    assert!(events.iter().all(|event| event.pubkey == author || event.kind.as_u16() == 3));
    assert!(events.len() <= 9 && events.is_sorted());

    assert_eq!(events_in(&ask(&mut socket, r#"["REQ","s",{"limit":0}]"#).await), []);
    let refused = ask(&mut socket, r##"["REQ","s",{"#e":["00"]}]"##).await;
    assert!(refused[0].starts_with(r#"["CLOSED","s","unsupported:"#));
    socket.send(Message::text(r#"["CLOSE","s"]"#)).await.unwrap();
    assert_eq!(events_in(&ask(&mut socket, r#"["REQ","s",{"limit":1}]"#).await).len(), 1);
}

/// Prints the rate. The bound is loose because other tests run at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_relay_is_faster_than_its_readers() {
    let events: Vec<Event> = SampleGenerator::paced(1, 20_000).collect();
    let relay = WireRelay::start(events, 20_000).await.unwrap();
    let mut socket = connect(&relay).await;
    let start = Instant::now();
    let mut received = 0;
    for _ in 0..5 {
        socket.send(Message::text(r#"["REQ","bench",{}]"#)).await.unwrap();
        while !socket.next().await.unwrap().unwrap().into_text().unwrap().starts_with("[\"EOSE\"") {
            received += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let counts = relay.counts();
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!((read(&counts.requests), read(&counts.frames)), (5, 100_000));
    assert_eq!(received, 100_000);
    println!("{:.0} events/s, {} bytes", 100_000.0 / seconds, read(&counts.bytes));
    assert!(seconds < 5.0, "{seconds} s for 100,000 events");
}
