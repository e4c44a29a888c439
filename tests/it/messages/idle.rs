//! Measures two thousand idle connections beside sixteen busy pairs on one process: their memory, their
//! effect on the busy pairs, and whether everything is released. `make bench-messages` does the same with ten
//! thousand.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::model::cluster::{Process, server};
use super::model::simple_client::SimpleClient;
use crate::support::instance::await_some;

const IDLE: usize = 2_000;
const PAIRS: usize = 16;
/// Messages sent by each pair.
const MESSAGES: usize = 40;
/// Connections opened concurrently.
const CONCURRENT: usize = 64;

/// Most memory of an idle connection, in bytes.
const BYTES_MAX: usize = 20 * 1_024;

/// The kernel's code for a listening socket.
const LISTENING: &str = "0A";

/// Most further open files that may remain after the work: connections to PostgreSQL.
const OTHER_FILES_MAX: usize = 16;

/// Longest duration of the measured work.
const DURATION_MAX: Duration = Duration::from_mins(1);

/// Resident memory of a process, in bytes.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// Open files of a process: sockets of clients on `port`, and all others. The number of its connections to
/// PostgreSQL varies with the load.
fn open_files(pid: u32, port: u16) -> (usize, usize) {
    // Columns of the kernel's table: number, local and remote address, state, …, and the inode in the tenth
    // column.
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

async fn connect(address: SocketAddr, numbers: std::ops::Range<usize>) -> Vec<SimpleClient> {
    let connecting =
        numbers.map(|number| async move { SimpleClient::hello(address, &wayfarer(number), "phone").await });
    futures_util::stream::iter(connecting).buffer_unordered(CONCURRENT).collect().await
}

/// Sends messages to a second connection, one after the other. Returns the time from `send` to the arrival of
/// each.
async fn pair(address: SocketAddr, number: usize) -> Vec<Duration> {
    let (from, to) = (wayfarer(100_000 + number), wayfarer(200_000 + number));
    let mut sender = SimpleClient::hello(address, &from, "desk").await;
    let mut recipient = SimpleClient::hello(address, &to, "phone").await;
    let mut latencies = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let sent = Instant::now();
        sender.send(json!({ "type": "send", "to": to, "payload_b64": "aGVsbG8" })).await;
        let message = recipient.next_frame().await;
        latencies.push(sent.elapsed());
        assert_eq!((&message["type"], &message["from"]), (&json!("message"), &json!(from)));
        recipient.send(json!({ "type": "ack", "msg_id": message["msg_id"] })).await;
        assert_eq!(recipient.next_frame().await["type"], "ack_ok");
        assert_eq!(sender.next_frame().await["type"], "send_ok");
    }
    latencies
}

/// The 99th percentile of the latencies of all pairs.
async fn busy_pairs_p99(address: SocketAddr) -> Duration {
    let mut latencies =
        futures_util::future::join_all((0..PAIRS).map(|number| pair(address, number))).await.concat();
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_connections_take_little_memory_and_are_released() {
    let instance = tokio::task::spawn_blocking(server).await.unwrap();
    let log = instance.folder().join("messages.log");
    let command = instance.command(&[]);
    let process = tokio::task::spawn_blocking(move || Process::start(command, &log)).await.unwrap().unwrap();
    let (pid, address) = (process.pid(), process.address);
    let started = Instant::now();

    // A first load, so that memory which the process allocates once is not counted for the idle connections.
    let p99_alone = busy_pairs_p99(address).await;
    drop(connect(address, 0..CONCURRENT).await);
    let other_files_before = wait_for_disconnects(pid, address.port());
    let memory_before = memory(pid);

    let idle = connect(address, 0..IDLE).await;
    let ((clients, _), memory_with) = (open_files(pid, address.port()), memory(pid));
    assert_eq!(clients, IDLE);
    let each = memory_with.saturating_sub(memory_before) / IDLE;
    let p99_with_idle = busy_pairs_p99(address).await;
    println!(
        "{IDLE} idle connections: {each} bytes each ({memory_before} before, {memory_with} with them); delivery p99 of {PAIRS} \
         pairs {p99_alone:?} alone, {p99_with_idle:?} beside them"
    );

    drop(idle);
    let other_files_after = wait_for_disconnects(pid, address.port());
    println!(
        "{other_files_before} other files before, {other_files_after} after; {:?} in all",
        started.elapsed()
    );
    assert!(
        other_files_after <= other_files_before + OTHER_FILES_MAX,
        "{other_files_before} files before, {other_files_after} after"
    );
    assert!(each < BYTES_MAX, "{each} bytes for an idle connection");
    assert!(started.elapsed() < DURATION_MAX, "{:?}", started.elapsed());
    tokio::task::spawn_blocking(|| {
        process.stop();
        instance.stop();
    })
    .await
    .unwrap();
}

/// Connections of clients that never prove an identity.
const UNPROVEN: usize = 1_000;

/// Most memory of an unproven connection, in bytes.
const UNPROVEN_BYTES_MAX: usize = 16 * 1_024;

/// Performs the handshake and sends a part of a frame.
async fn connect_unproven(address: SocketAddr, part: &[u8]) -> TcpStream {
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

/// The header of a masked text frame, and a part of its payload.
fn partial_frame(announced: u64, payload: usize) -> Vec<u8> {
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
    busy_pairs_p99(address).await;
    drop(connect(address, 0..CONCURRENT).await);
    wait_for_disconnects(pid, address.port());

    // The largest frame allowed, except its last byte.
    let before = memory(pid);
    let part = partial_frame(2_048, 2_047);
    let connecting = (0..UNPROVEN).map(|_| connect_unproven(address, &part));
    let held: Vec<TcpStream> =
        futures_util::stream::iter(connecting).buffer_unordered(CONCURRENT).collect().await;
    tokio::task::block_in_place(|| {
        await_some("every part is read", || (unread_bytes(address.port()) == 0).then_some(()));
    });
    let each = memory(pid).saturating_sub(before) / UNPROVEN;
    println!("{UNPROVEN} unproven connections with parts of frames: {each} bytes each");
    assert_eq!(open_files(pid, address.port()).0, UNPROVEN, "no connection was closed");
    assert!(each < UNPROVEN_BYTES_MAX, "{each} bytes for an unproven connection");

    // A frame that announces 2 MiB or 100 MB is refused before its payload arrives.
    for announced in [2 << 20, 100_000_000, u64::MAX] {
        let mut stream = connect_unproven(address, &partial_frame(announced, 1_000)).await;
        let mut response = Vec::new();
        timeout(DURATION_MAX, stream.read_to_end(&mut response)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&response);
        let message = format!("a frame has {announced} bytes; at most 2048 are allowed before hello");
        assert!(text.contains("PAYLOAD_TOO_LARGE") && text.contains(&message), "{text}");
        assert!(response.windows(2).any(|code| code == 1009_u16.to_be_bytes()), "{text}");
    }
    drop(held);
    wait_for_disconnects(pid, address.port());
    tokio::task::spawn_blocking(|| {
        process.stop();
        instance.stop();
    })
    .await
    .unwrap();
}

/// Bytes that clients of a port have sent and the process has not read, from the kernel's table.
fn unread_bytes(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port =
        columns.filter(|columns| columns[1].ends_with(&format!(":{port:04X}")) && columns[3] != LISTENING);
    of_port.map(|columns| u64::from_str_radix(columns[4].split(':').nth(1).unwrap(), 16).unwrap()).sum()
}

/// Waits until all client sockets are closed. Returns the number of other open files.
fn wait_for_disconnects(pid: u32, port: u16) -> usize {
    tokio::task::block_in_place(|| {
        await_some("all client sockets are closed", || {
            let (clients, others) = open_files(pid, port);
            (clients == 0).then_some(others)
        })
    })
}
