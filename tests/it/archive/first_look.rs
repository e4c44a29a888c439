//! Relays that the operator adds are dialled before all others, and `quipu relays add --wait` shows it.

use std::time::{Duration, Instant};

use quipu::sample::SampleGenerator;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::kit::{Relay, free_port};
use crate::support::instance::Instance;

/// A server that accepts connections and never sends anything.
async fn silent() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (port, tasks)
}

fn steps(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["step"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_4_an_added_relays_first_event_is_committed_within_5_s_while_300_silent_relays_hold_every_slot() {
    let (port, _tasks) = silent().await;
    let relay = Relay::start(SampleGenerator::paced(71, 60)).await;
    let arguments = [
        "services.synchronizer.only_relays=[]",
        "services.synchronizer.catching_up_max=2",
        "networks.clearnet.relays_at_once=16",
        "networks.clearnet.connect_timeout_s=30",
    ];
    let instance = Instance::start(&arguments.into_iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    let unknown = instance.run(&["relays", "list"]).stderr;
    assert!(unknown.contains("no relays yet"), "{unknown}");
    let silent: Vec<String> = (0..300).map(|n| format!("ws://127.0.0.1:{port}/{n}")).collect();
    let add: Vec<&str> = ["relays", "add"].into_iter().chain(silent.iter().map(String::as_str)).collect();
    instance.run(&add).ok();
    let held = "SELECT count(*) FROM lease WHERE name LIKE 'synchronizer/%' AND expires_at > now()";
    for _ in 0..1_200 {
        if instance.count(held).await > 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(instance.count(held).await > 40, "first looks and ordinary slots are taken");

    let ran = instance.run(&["relays", "add", &relay.url, "--wait", "--json", "--timeout", "30"]).ok();
    let lines = ran.json_lines();
    assert_eq!(lines[0]["new"], true);
    let steps = steps(&lines);
    assert_eq!(steps.last(), Some(&"complete"), "{lines:?}");
    let at = |found: &dyn Fn(&Value) -> bool| {
        lines.iter().find(|line| found(line)).unwrap()["elapsed_ms"].as_u64()
    };
    let first = at(&|line| matches!(line["step"].as_str(), Some("first_event" | "complete"))).unwrap();
    assert!(first < 5_000, "{lines:?}");
    let events = format!("SELECT count(*) FROM events_relays WHERE relay_url = '{}'", relay.url);
    assert_eq!(instance.count(&events).await, i64::try_from(relay.events.len()).unwrap());
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_the_instance_does_not_dial_is_not_waited_for() {
    let relay = Relay::start(SampleGenerator::paced(5, 20)).await;
    let instance = Instance::crawling(&[&relay.url], &[]);
    let other = format!("ws://127.0.0.1:{}", free_port());
    let started = Instant::now();
    let ran = instance.run(&["relays", "add", &other, "--wait", "--timeout", "600"]);
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    for words in ["added", "not waited for", &relay.url, "services.synchronizer.only_relays", "--sample"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    // The one that is dialled is waited for all the same.
    let ran = instance.run(&["relays", "add", &other, &relay.url, "--wait", "--json"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let last = |url: &str| {
        let lines = ran.json_lines();
        let line = lines.iter().rev().find(|line| line["url"] == url).unwrap();
        line["step"].as_str().unwrap().to_owned()
    };
    assert_eq!((last(&other), last(&relay.url)), ("failed".to_owned(), "complete".to_owned()));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_with_the_reason_of_a_failure_or_with_its_time() {
    let instance = Instance::start(&["--set", "services.synchronizer.only_relays=[]"]);
    let closed = format!("ws://127.0.0.1:{}", free_port());
    let ran = instance.run(&["relays", "add", &closed, "--wait"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(ran.stdout.contains("added") && ran.stdout.contains("failed: refused"), "{ran:?}");
    let told = instance.run(&["relays", "list"]).ok().stdout;
    assert!(told.contains("dialled: refused") && !told.contains("crawled"), "{told}");

    instance.run(&["relays", "retire", &closed, "--reason", "test"]).ok();
    let ran = instance.run(&["relays", "add", &closed, "--wait"]);
    assert!(ran.stdout.contains("relays restore") && ran.status.code() == Some(1), "{ran:?}");

    let (port, _tasks) = silent().await;
    let ran = instance.run(&["relays", "add", &format!("ws://127.0.0.1:{port}"), "--wait", "--timeout", "1"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(ran.stderr.contains("not archived after 1 s"), "{ran:?}");

    // A relay of a disabled network is never dialled.
    let onion = "ws://vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion";
    instance.run(&["relays", "add", onion]).ok();
    let told = instance.run(&["relays", "show", onion]).ok().stdout;
    assert!(told.contains("not dialled yet"), "{told}");
    instance.stop();
}
