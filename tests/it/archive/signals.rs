//! Shutdown of an instance by signals.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nostr_sdk::{EventBuilder, Keys, Timestamp};
use quipu::store::owner;
use tokio::net::TcpListener;

use super::kit::{Relay, await_count};
use crate::support::instance::{Instance, signal};

/// Far below the limit of twenty seconds for a drain.
const SOON: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sigterm_ends_cleanly_and_the_next_start_finds_the_data() {
    let mut instance = Instance::start(&[]);
    let sample = instance.run(&["sample", "--count", "100"]).ok();
    super::kit::import(&instance, sample.stdout.as_bytes(), &[]);
    signal(instance.pid(), Signal::SIGTERM);
    assert_eq!(instance.ended().code(), Some(0), "{}", instance.log());
    instance.assert_nothing_left();
    assert!(!instance.data().join("instance.json").exists(), "nobody finds an instance that is gone");

    instance.go();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 100);
    signal(instance.pid(), Signal::SIGINT);
    assert_eq!(instance.ended().code(), Some(0), "{}", instance.log());
    instance.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_stays_silent_does_not_hold_up_a_clean_end() {
    // Accepts connections and never sends anything, not even a handshake.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Completes the handshake and never answers a request.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |listener: &TcpListener| format!("ws://{}", listener.local_addr().unwrap());
    let urls = [url(&mute), url(&deaf)];
    let instance = Instance::crawling(
        &[&urls[0], &urls[1]],
        &[
            "--set",
            "networks.clearnet.connect_timeout_s=100",
            "--set",
            "networks.clearnet.idle_timeout_s=100",
        ],
    );
    instance.run(&["relays", "add", &urls[0], &urls[1]]).ok();
    let (_waiting, _) = mute.accept().await.unwrap();
    let (stream, _) = deaf.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    let question = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
    assert!(question.to_text().unwrap().starts_with("[\"REQ\""), "{question}");

    let started = Instant::now();
    instance.stop();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_aborts_what_cannot_finish() {
    let keys = Keys::generate();
    let note = EventBuilder::text_note("held up").custom_created_at(Timestamp::from_secs(1_700_000_000));
    let relay = Relay::start([note.sign_with_keys(&keys).unwrap()]).await;
    let mut instance = Instance::crawling(&[&relay.url], &[]);
    // A lock of another session keeps the event from being committed.
    let mut stranger = owner::connect(&instance.url("owner_database_url")).await.unwrap();
    let transaction = stranger.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE partitions.events_y2023m11 IN EXCLUSIVE MODE").await.unwrap();
    instance.run(&["relays", "add", &relay.url]).ok();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'partitions.events_y2023m11'::regclass";
    await_count(&instance, waiting, 1).await;

    let started = Instant::now();
    signal(instance.pid(), Signal::SIGTERM);
    crate::support::instance::await_some("the drain", || {
        instance.log().contains("once more to abort").then_some(())
    });
    signal(instance.pid(), Signal::SIGTERM);
    let status = instance.ended();
    assert_eq!(status.code(), Some(1), "{}", instance.log());
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    instance.assert_nothing_left();

    // The event was not acknowledged. It may be stored if the stopping server released the lock before it
    // ended the waiting statement, or if the next run crawls the relay before the import. Either way it is
    // stored exactly once after it is offered again.
    drop(transaction);
    instance.go();
    let note: String = serde_json::to_string(&relay.events[0]).unwrap();
    let imported = super::kit::import(&instance, note.as_bytes(), &[]);
    let count = |outcome: &str| imported[outcome].as_u64().unwrap();
    assert_eq!(count("stored") + count("known"), 1, "{imported}");
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 1);
    instance.run(&["verify"]).ok();
    instance.stop();
}
