//! Two thousand idle connections beside sixteen busy pairs on one process: what an idle one costs, whether the busy ones notice,
//! and whether everything is given back. `make bench-messages` does the same with ten thousand.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt as _;
use serde_json::json;

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

/// Longest that the work itself may take.
const WITHIN: Duration = Duration::from_mins(1);

/// Bytes of memory that a process occupies.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// Its open files.
fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
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
    let (files_before, memory_before) = settled(pid, usize::MAX);

    let idle = connect(address, 0..IDLE).await;
    let (files_with, memory_with) = (files(pid), memory(pid));
    assert!(
        files_with >= files_before + IDLE,
        "{files_with} files with {IDLE} connections, {files_before} before"
    );
    let each = memory_with.saturating_sub(memory_before) / IDLE;
    let beside = busy(address).await;
    println!(
        "{IDLE} idle connections: {each} bytes each ({memory_before} before, {memory_with} with them); delivery p99 of {PAIRS} \
         pairs {alone:?} alone, {beside:?} beside them"
    );

    drop(idle);
    // The last of them has gone when the descriptors are back.
    let (files_after, _) = settled(pid, files_before);
    println!(
        "{files_before} files before, {files_with} with them, {files_after} after; {:?} in all",
        begun.elapsed()
    );
    assert!(each < BYTES_MAX, "{each} bytes for an idle connection");
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    tokio::task::spawn_blocking(|| {
        process.stop();
        instance.stop();
    })
    .await
    .unwrap();
}

/// Files and memory of a process once no more than so many files are open and their number rests.
fn settled(pid: u32, most: usize) -> (usize, usize) {
    tokio::task::block_in_place(|| {
        let mut last = (0, Instant::now());
        let files = await_some("connections are given back", || {
            let now = files(pid);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (now <= most && last.1.elapsed() > Duration::from_millis(300)).then_some(now)
        });
        (files, memory(pid))
    })
}
