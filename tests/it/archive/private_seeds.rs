//! Private addresses in seed files are refused and listed with the reason; the operator can permit one by
//! naming it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu::sample::SampleGenerator;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::kit::{Relay, await_count};
use crate::support::instance::Instance;

/// Counts connections to one port on three loopback addresses.
async fn listener() -> (u16, Arc<AtomicUsize>, JoinSet<()>) {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.1.2.3", port)).await.unwrap();
    let third = TcpListener::bind(("::1", port)).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for listener in [first, second, third] {
        let count = Arc::clone(&count);
        tasks.spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    (port, count, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_8_private_addresses_in_a_seed_file_are_not_dialled_and_listed_with_the_reason() {
    let (port, connections, _tasks) = listener().await;
    let relay = Relay::start(SampleGenerator::paced(61, 20)).await;
    let folder = crate::support::database::enterable_folder();
    let file = folder.path().join("seeds.txt");
    let hosts = ["127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "localhost", "relay.localhost"];
    let mut urls: Vec<String> = hosts.iter().map(|host| format!("ws://{host}:{port}")).collect();
    urls.push(relay.url.clone());
    std::fs::write(&file, urls.join("\n")).unwrap();
    let seed_file = format!("services.initializer.seed_file={}", file.display());
    let arguments = ["services.initializer.enabled=true", &seed_file, "services.synchronizer.only_relays=[]"];
    let arguments =
        arguments.into_iter().chain(["services.monitor.enabled=true"]).flat_map(|set| ["--set", set]);
    let instance = Instance::start(&arguments.collect::<Vec<_>>());
    let refused = "SELECT count(*) FROM relays WHERE source = 'seed' AND refused_reason = 'private_address'";
    await_count(&instance, refused, 7).await;
    assert_eq!(instance.count("SELECT count(*) FROM relay_log WHERE kind = 'refused'").await, 7);
    let listed: Vec<Value> = instance.run(&["relays", "list", "--json"]).ok().json_lines();
    assert!(listed.iter().all(|relay| relay["refused_reason"] == "private_address"), "{listed:?}");
    let told = instance.run(&["relays", "list"]).ok().stdout;
    assert!(told.contains("refused: private_address") && !told.contains("crawled"), "{told}");

    // The operator names one of them: it is crawled, the others are not.
    instance.run(&["relays", "add", &relay.url]).ok();
    let held = i64::try_from(relay.events.len()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events", held).await;
    await_count(&instance, refused, 6).await;
    assert_eq!(instance.count("SELECT count(*) FROM relay_log WHERE kind = 'named'").await, 1);
    assert_eq!(connections.load(Ordering::SeqCst), 0, "{}", instance.log());
    instance.run(&["verify"]).ok();
    instance.stop();
}
