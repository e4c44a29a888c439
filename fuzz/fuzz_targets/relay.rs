//! Arbitrary frames from a relay, over a real socket, as the response to a request and to a reconciliation
//! (NIP-77): no panic, pages stay within their limits, and every id that the reconciliation reports as ours
//! was ours.

#![no_main]

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use libfuzzer_sys::fuzz_target;
use negentropy::{Id, NegentropyStorageVector};
use nostr_sdk::Filter;
use quipu::base::RelayUrl;
use quipu::config::Networks;
use quipu::net::relay::{ANNOUNCED_IDS_MAX, PAGE_BYTES_MAX, RelaySession, Timeouts};
use quipu::net::{Egress, Trust};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

const MOMENT: Duration = Duration::from_millis(5);
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), idle: Duration::from_millis(200) };

type Script = Arc<Mutex<Vec<String>>>;

/// A relay that answers each message of its client with the next line of the script, and closes after the
/// last: an input must not wait for the client's time limit, or five inputs a second would be tried.
struct Relay {
    runtime: Runtime,
    script: Script,
    outside: Egress,
    url: RelayUrl,
}

static RELAY: LazyLock<Relay> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    let script = Script::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a loopback port is free");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    runtime.spawn(serve(listener, Arc::clone(&script)));
    let outside = Egress::with_dns_servers(&Networks::default(), &[]).expect("the default settings are good");
    Relay { runtime, script, outside, url: RelayUrl::parse(&url).expect("it is canonical") }
});

async fn serve(listener: TcpListener, script: Script) {
    while let Ok((stream, _)) = listener.accept().await {
        let lines = script.lock().expect("it is held for one statement").clone();
        tokio::spawn(async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            let mut lines = lines.into_iter().peekable();
            let mut id = String::new();
            loop {
                // A client that sends nothing for a moment waits for more: it gets the next line all the same.
                if let Ok(message) = tokio::time::timeout(MOMENT, socket.next()).await {
                    let Some(Ok(message)) = message else { return };
                    match message {
                        Message::Text(text) if !text.starts_with("[\"CLOSE\"") => {
                            text.split('"').nth(3).unwrap_or_default().clone_into(&mut id);
                        }
                        _ => continue,
                    }
                }
                // `ID` in the script stands for the request's subscription id. A line that ends with `+` is
                // followed by the next line at once.
                loop {
                    let Some(line) = lines.next() else { return };
                    let text = line.trim_end_matches('+').replace("\"ID\"", &format!("\"{id}\""));
                    if socket.send(Message::Text(text.into())).await.is_err() {
                        return;
                    }
                    if lines.peek().is_none() {
                        let _ = socket.close(None).await;
                        return;
                    }
                    if !line.ends_with('+') {
                        break;
                    }
                }
            }
        });
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, script)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(script);
    *RELAY.script.lock().expect("it is held for one statement") = text.lines().map(str::to_owned).collect();
    RELAY.runtime.block_on(async {
        let Ok(mut session) = RelaySession::connect(&RELAY.outside, &RELAY.url, Trust::Named, TIMEOUTS).await
        else {
            return;
        };
        if first % 2 == 0 {
            if let Ok(page) = session.page(&Filter::new().limit(500)).await {
                let bytes: usize = page.events.iter().map(|event| event.json().len()).sum();
                assert!(bytes <= PAGE_BYTES_MAX);
            }
        } else {
            let mut items = NegentropyStorageVector::new();
            for n in 0..=*first {
                items.insert(u64::from(n), Id::from_byte_array([n; 32])).expect("it is not sealed");
            }
            if let Ok(difference) = session.reconcile(&Filter::new(), items).await {
                assert!(difference.need.len() <= ANNOUNCED_IDS_MAX);
                assert!(
                    difference.have.iter().all(|id| id.iter().all(|byte| byte == &id[0]) && id[0] <= *first)
                );
            }
        }
    });
});
