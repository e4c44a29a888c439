//! The table of endpoints in docs/security.md equals what a running Quipu serves, and each endpoint treats
//! strangers as the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use quipu::app::registry;
use quipu::room::{ListenerSpec, Port};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::instance::{Instance, PATIENCE};

/// An endpoint as a row of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    listener: String,
    method: String,
    path: String,
    access: String,
}

/// The rows of the table, with what a stranger gets.
fn documented() -> BTreeMap<Row, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = fs::read_to_string(file).unwrap();
    let table = text.split_once("\n## Endpoints\n").unwrap().1.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [listeners, method, path, access, stranger] = cells[..] else { panic!("{line}") };
        let access = if access == "none" { "anyone" } else { access };
        for listener in listeners.split(", ") {
            let [listener, method, access] = [listener, method, access].map(str::to_owned);
            let row = Row { listener, method, path: path.trim_matches('`').to_owned(), access };
            assert!(rows.insert(row, stranger.to_owned()).is_none(), "twice: {line}");
        }
    }
    rows
}

/// Status and head of a response and, if it ends, its body.
async fn ask(address: &str, row: &Row, query: &str, lines: &str, body: &str) -> (u16, String) {
    let path = row.path.replace("{msg_id}", "00000000-0000-4000-8000-000000000000");
    let path = path.replace("{blob}", &"00".repeat(32)).replace("{pubkey}", &"00".repeat(32));
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let connection = if row.access == "handshake" { upgrade } else { "connection: close\r\n" };
    let length = body.len();
    let head = format!(
        "{} {path}{query} HTTP/1.1\r\n{connection}content-type: application/json\r\ncontent-length: {length}\r\n{lines}\r\n{body}",
        row.method
    );
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.unwrap() > 0 {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, _)) = text.split_once("\r\n\r\n")
                && (head.contains("text/event-stream") || head.contains(" 101 "))
            {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.unwrap_or_else(|_| panic!("no answer: {row:?}"));
    (answer[9..12].parse().unwrap_or_else(|_| panic!("{row:?}: {answer}")), answer)
}

#[tokio::test]
async fn every_endpoint_is_documented_and_treats_strangers_as_documented() {
    let instance = Instance::start(&[]);
    let address = |listener: &str| instance.ready["services"][listener].as_str().unwrap().to_owned();
    let list = Row {
        listener: "ops".into(),
        method: "GET".into(),
        path: "/endpoints".into(),
        access: "anyone".into(),
    };
    let (status, answer) = ask(&address("ops"), &list, "", "host: localhost\r\n", "").await;
    assert_eq!(status, 200, "{answer}");
    let served: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let mut rows = Vec::new();
    for (listener, endpoints) in served.as_object().unwrap() {
        for endpoint in endpoints.as_array().unwrap() {
            let [method, path, access] =
                ["method", "path", "access"].map(|key| endpoint[key].as_str().unwrap().to_owned());
            rows.push(Row { listener: listener.clone(), method, path, access });
        }
    }
    rows.sort();
    let listening: BTreeSet<&str> = rows.iter().map(|row| row.listener.as_str()).collect();
    let listeners = registry::listeners().map(ListenerSpec::name).chain([Port::Ops.as_str()]);
    assert_eq!(listening, listeners.collect(), "what listens and the registry differ");
    let documented = documented();
    assert_eq!(
        rows,
        documented.keys().cloned().collect::<Vec<_>>(),
        "docs/security.md and the program differ"
    );

    for (row, stranger) in &documented {
        let address = address(&row.listener);
        let host = format!("host: {address}\r\n");
        let (status, answer) = ask(&address, row, "", "host: evil.example\r\n", "").await;
        assert_eq!(status, 421, "{row:?}");
        assert!(row.method == "HEAD" || answer.contains(r#""code":"host_unknown""#), "{answer}");
        let proof = json!({ "wayfarer_id": "11".repeat(32), "challenge": "x" }).to_string();
        let message = json!({ "to": "22".repeat(32), "payload_b64": "SGVsbG8" }).to_string();
        let body = match (&*row.method, &*row.access) {
            ("POST", "proof") => &proof,
            ("POST", _) => &message,
            _ => "",
        };
        let (status, answer) = ask(&address, row, "", &host, body).await;
        assert!(stranger.split(':').next().unwrap().contains(&status.to_string()), "{row:?}: {answer}");
        if row.access == "token" || row.access == "admin" {
            // A program on this machine needs no token, but for administration. A forwarded request does, and
            // an invalid token is refused from everywhere.
            for line in ["x-forwarded-for: 127.0.0.1", "forwarded: for=127.0.0.1", "authorization: bearer x"]
            {
                let (status, answer) = ask(&address, row, "", &format!("{host}{line}\r\n"), body).await;
                assert_eq!(status, 401, "{row:?} {line}: {answer}");
            }
        }
        if row.access != "identity" {
            continue;
        }
        // A claimed identity is believed only from a program on this machine: not in a forwarded request, and
        // not beside an invalid token.
        let claim = format!("?wayfarer_id={}&device_id=phone", "11".repeat(32));
        let (status, answer) = ask(&address, row, &claim, &host, body).await;
        assert_ne!(status, 401, "{row:?}: {answer}");
        for line in [
            "x-forwarded-for: 127.0.0.1",
            "forwarded: for=127.0.0.1",
            "x-real-ip: ::1",
            "authorization: bearer x",
        ] {
            let (status, answer) = ask(&address, row, &claim, &format!("{host}{line}\r\n"), body).await;
            assert_eq!(status, 401, "{row:?} {line}: {answer}");
            assert!(answer.contains(r#""request_id":""#), "{answer}");
        }
    }
    let log = instance.log();
    let descriptors = "kept for the database and the crawl";
    assert!(log.contains(descriptors), "{log}");
    // A command listens nowhere, and says nothing about it.
    let said = instance.run(&["relays", "add", "ws://127.0.0.1:5"]).ok();
    assert!(!said.stderr.contains(descriptors), "{}", said.stderr);
}
