//! Two thousand idle connections beside sixteen busy pairs on one process: what an idle one costs, whether the busy ones notice,
//! and whether everything is given back. `make bench-messages` does the same with ten thousand.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::model::stage::{Process, server};
use super::model::talk::Talk;
use crate::support::instance::await_some;

const IDLE: usize = 2_000;
const PAIRS: usize = 16;
/// Messages of each pair.
const MESSAGES: usize = 40;
/// Connections that come at the same time.
const AT_ONCE: usize = 64;

/// Most memory of an idle connection, in bytes.
const BYTES_MAX: usize = 20 * 1_024;

/// What the kernel says of a socket that listens.
const LISTENING: &str = "0A";

/// Files beyond those of clients that may come during the work: connections to PostgreSQL.
const OTHERS_MAX: usize = 16;

/// Longest that the work itself may take.
const WITHIN: Duration = Duration::from_mins(1);

/// Bytes of memory that a process occupies.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// Its open files: sockets of clients on `port`, and everything else. Its connections to PostgreSQL are its own matter: it keeps
/// more or fewer of them, as it is busy.
fn files(pid: u32, port: u16) -> (usize, usize) {
    // In the kernel's table: number, local, remote, state, …, and the inode in the tenth column.
    let of_clients: HashSet<String> = fs::read_to_string(format!("/proc/{pid}/net/tcp"))
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns[1].ends_with(&format!(":{port:04X}")) && columns[3] != LISTENING)
        .map(|columns| format!("socket:[{}]", columns[9]))
        .collect();
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = all.filter_map(|file| fs::read_link(file.path()).ok()).map(|link| link.display().to_string());
    let (clients, others): (Vec<_>, Vec<_>) = links.partition(|link| of_clients.contains(link));
    (clients.len(), others.len())
}

fn wayfarer(number: usize) -> String {
    format!("{number:064x}")
}

async fn connect(address: SocketAddr, numbers: std::ops::Range<usize>) -> Vec<Talk> {
    let connecting =
        numbers.map(|number| async move { Talk::hello(address, &wayfarer(number), "phone").await });
    futures_util::stream::iter(connecting).buffer_unordered(AT_ONCE).collect().await
}

/// Sends to itself on another connection, one message after the other; returns how long each took from `send` to its arrival.
async fn pair(address: SocketAddr, number: usize) -> Vec<Duration> {
    let (from, to) = (wayfarer(100_000 + number), wayfarer(200_000 + number));
    let mut sender = Talk::hello(address, &from, "desk").await;
    let mut recipient = Talk::hello(address, &to, "phone").await;
    let mut took = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let sent = Instant::now();
        sender.say(json!({ "type": "send", "to": to, "payload_b64": "aGVsbG8" })).await;
        let message = recipient.hear().await;
        took.push(sent.elapsed());
        assert_eq!((&message["type"], &message["from"]), (&json!("message"), &json!(from)));
        recipient.say(json!({ "type": "ack", "msg_id": message["msg_id"] })).await;
        assert_eq!(recipient.hear().await["type"], "ack_ok");
        assert_eq!(sender.hear().await["type"], "send_ok");
    }
    took
}

/// The 99th percentile of what all pairs see.
async fn busy(address: SocketAddr) -> Duration {
    let mut took =
        futures_util::future::join_all((0..PAIRS).map(|number| pair(address, number))).await.concat();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_connections_are_small_and_everything_is_given_back() {
    let instance = tokio::task::spawn_blocking(server).await.unwrap();
    let log = instance.folder().join("messages.log");
    let command = instance.command(&[]);
    let process = tokio::task::spawn_blocking(move || Process::start(command, &log)).await.unwrap().unwrap();
    let (pid, address) = (process.pid(), process.address);
    let begun = Instant::now();

    // What it needs once, whoever connects: it has been busy before it is measured.
    let alone = busy(address).await;
    drop(connect(address, 0..AT_ONCE).await);
    let others_before = given_back(pid, address.port());
    let memory_before = memory(pid);

    let idle = connect(address, 0..IDLE).await;
    let ((clients, _), memory_with) = (files(pid, address.port()), memory(pid));
    assert_eq!(clients, IDLE);
    let each = memory_with.saturating_sub(memory_before) / IDLE;
    let beside = busy(address).await;
    println!(
        "{IDLE} idle connections: {each} bytes each ({memory_before} before, {memory_with} with them); delivery p99 of {PAIRS} \
         pairs {alone:?} alone, {beside:?} beside them"
    );

    drop(idle);
    let others_after = given_back(pid, address.port());
    println!("{others_before} other files before, {others_after} after; {:?} in all", begun.elapsed());
    assert!(others_after <= others_before + OTHERS_MAX, "{others_before} files before, {others_after} after");
    assert!(each < BYTES_MAX, "{each} bytes for an idle connection");
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    tokio::task::spawn_blocking(|| {
        process.stop();
        instance.stop();
    })
    .await
    .unwrap();
}

/// Connections that never prove who they are.
const UNPROVEN: usize = 1_000;

/// Most memory of such a connection, in bytes.
const UNPROVEN_BYTES_MAX: usize = 16 * 1_024;

/// Shakes hands and sends these bytes: a part of a frame.
async fn unproven(address: SocketAddr, part: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(part).await.unwrap();
    stream
}

/// The head of a masked text frame, and as much of its payload.
fn part_of_frame(announced: u64, payload: usize) -> Vec<u8> {
    let mut part = vec![0x81, 0xff];
    part.extend(announced.to_be_bytes());
    part.resize(part.len() + 4 + payload, 0);
    part
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unproven_connections_hold_little_memory_whatever_they_send() {
    let instance = tokio::task::spawn_blocking(server).await.unwrap();
    let log = instance.folder().join("messages.log");
    let command = instance.command(&["--set", "services.messages.hello_timeout_s=600"]);
    let process = tokio::task::spawn_blocking(move || Process::start(command, &log)).await.unwrap().unwrap();
    let (pid, address) = (process.pid(), process.address);
    busy(address).await;
    drop(connect(address, 0..AT_ONCE).await);
    given_back(pid, address.port());

    // As much of a frame as may be kept, and less than all of it.
    let before = memory(pid);
    let part = part_of_frame(2_048, 2_047);
    let connecting = (0..UNPROVEN).map(|_| unproven(address, &part));
    let held: Vec<TcpStream> =
        futures_util::stream::iter(connecting).buffer_unordered(AT_ONCE).collect().await;
    tokio::task::block_in_place(|| {
        await_some("every part is read", || (unread(address.port()) == 0).then_some(()));
    });
    let each = memory(pid).saturating_sub(before) / UNPROVEN;
    println!("{UNPROVEN} unproven connections with parts of frames: {each} bytes each");
    assert_eq!(files(pid, address.port()).0, UNPROVEN, "none was cut off");
    assert!(each < UNPROVEN_BYTES_MAX, "{each} bytes for an unproven connection");

    // A frame that announces 2 MiB or 100 MB is refused before its payload comes.
    for announced in [2 << 20, 100_000_000, u64::MAX] {
        let mut stream = unproven(address, &part_of_frame(announced, 1_000)).await;
        let mut said = Vec::new();
        timeout(WITHIN, stream.read_to_end(&mut said)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&said);
        let message = format!("a frame has {announced} bytes; at most 2048 are allowed before hello");
        assert!(text.contains("PAYLOAD_TOO_LARGE") && text.contains(&message), "{text}");
        assert!(said.windows(2).any(|code| code == 1009_u16.to_be_bytes()), "{text}");
    }
    drop(held);
    given_back(pid, address.port());
    tokio::task::spawn_blocking(|| {
        process.stop();
        instance.stop();
    })
    .await
    .unwrap();
}

/// Bytes that clients of a port have sent and the process has not read, by the kernel's table.
fn unread(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port =
        columns.filter(|columns| columns[1].ends_with(&format!(":{port:04X}")) && columns[3] != LISTENING);
    of_port.map(|columns| u64::from_str_radix(columns[4].split(':').nth(1).unwrap(), 16).unwrap()).sum()
}

/// Waits until no socket of a client is left; returns how many other files there are.
fn given_back(pid: u32, port: u16) -> usize {
    tokio::task::block_in_place(|| {
        await_some("every connection is given back", || {
            let (clients, others) = files(pid, port);
            (clients == 0).then_some(others)
        })
    })
}
