//! Which relays are checked, when, and by which process.

use std::net::TcpListener;
use std::time::Duration;

use nostr_relay_builder::{LocalRelay, RelayBuilder};
use prometheus_client::registry::Registry;
use quipu::lifecycle::Service as _;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::{RelayJournal, read};
use quipu::store::Relay;
use quipu::store::lease::Leases;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::kit::{Bench, failure};
use super::stub::{Manner, Page, Stub};
use crate::support::proxy::eventually;

#[tokio::test]
async fn a_restart_does_not_check_again_what_is_not_due() {
    let mut bench = Bench::new().await;
    let stubs = [Stub::honest().await, Stub::honest().await];
    for stub in &stubs {
        bench.add(&stub.url(), "operator").await;
    }
    bench.round().await;
    for _ in 0..3 {
        // Each round is a new process, which only knows the database.
        bench.later(4_000);
        bench.round().await;
    }
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 2);
    bench.next_round();
    bench.round().await;
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 4);
    for stub in &stubs {
        assert_eq!((stub.requests(), stub.sessions()), (2, 2));
    }
    assert_eq!(bench.count("SELECT count(*) FROM lease").await, 0, "all were given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_monitors_share_the_relays_and_each_relay_is_checked_once() {
    let mut bench = Bench::new().await;
    bench.networks.clearnet.relays_at_once = 4.try_into().unwrap();
    let mut stubs = Vec::new();
    for _ in 0..40 {
        let stub = Stub::honest().await;
        bench.add(&stub.url(), "operator").await;
        stubs.push(stub);
    }
    let (one, other) = (bench.monitor().0, bench.monitor().0);
    let drain = CancellationToken::new();
    let mut both = JoinSet::new();
    for monitor in [one, other] {
        let drain = drain.clone();
        both.spawn(async move { monitor.cycle(&drain).await.unwrap() });
    }
    both.join_all().await;
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 40);
    assert!(stubs.iter().all(|stub| (stub.requests(), stub.sessions()) == (1, 1)));
    assert_eq!(bench.count("SELECT count(*) FROM lease").await, 0);
}

#[tokio::test]
async fn what_another_process_holds_is_left_to_it_until_its_lease_ends() {
    let mut bench = Bench::new().await;
    let stub = Stub::honest().await;
    bench.add(&stub.url(), "operator").await;
    let killed = Leases::new(bench.kit.pools.write.clone());
    killed.take(&["monitor/1".to_owned()], Duration::from_secs(2)).await.unwrap();
    bench.round().await;
    assert_eq!(stub.sessions(), 0);
    let ended = "SELECT count(*) FROM lease WHERE expires_at <= clock_timestamp()";
    eventually("the lease ends", || async { bench.count(ended).await == 1 }).await;
    bench.round().await;
    assert_eq!(stub.sessions(), 1);
}

#[tokio::test]
async fn relays_never_checked_come_first_and_retired_and_unnamed_ones_are_left_out() {
    let mut bench = Bench::new().await;
    let stubs = [Stub::honest().await, Stub::honest().await, Stub::honest().await];
    bench.add(&stubs[0].url(), "operator").await;
    bench.round().await;
    bench.next_round();
    bench.add(&stubs[1].url(), "operator").await;
    bench.add(&stubs[2].url(), "operator").await;
    let retire = RelayCommand::Retire { relay: Relay(3), detail: json!({ "reason": "test" }) };
    bench.kit.writer(RelayJournal).append(retire).await.unwrap();
    let now = quipu::base::Clock::now(&*bench.clock).timestamp();
    let network = quipu::base::Network::Clearnet;
    let due = read::due_relays(&bench.kit.pools.session, network, &[], now, 14_400, 10).await.unwrap();
    let order: Vec<_> = due.iter().map(|due| (due.url.clone(), due.checked_at.is_none(), due.due)).collect();
    assert_eq!(order, [(stubs[1].url(), true, 2), (stubs[0].url(), false, 2)]);
    bench.settings.only_relays = vec![stubs[0].url()];
    bench.round().await;
    assert_eq!(stubs.each_ref().map(Stub::sessions), [2, 0, 0]);
}

#[tokio::test]
async fn a_relay_dies_and_recovers_and_its_newest_snapshot_decides() {
    let mut bench = Bench::new().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = || async move {
        let relay = LocalRelay::new(RelayBuilder::default().addr([127, 0, 0, 1].into()).port(port));
        relay.run().await.unwrap();
        relay
    };
    let url = format!("ws://127.0.0.1:{port}");
    bench.add(&url, "operator").await;
    let readable = "SELECT count(*) FROM readable_relays";

    let relay = start().await;
    bench.round().await;
    let alive = bench.newest(&url).await;
    assert!(alive.is_readable, "{alive:?}");
    assert_eq!(bench.count(readable).await, 1);

    relay.shutdown();
    eventually("the port is free", || async { TcpListener::bind(("127.0.0.1", port)).is_ok() }).await;
    bench.next_round();
    bench.round().await;
    let dead = bench.newest(&url).await;
    assert_eq!(failure(&dead, "open")["reason"], "refused", "{dead:?}");
    assert_eq!(bench.count(readable).await, 0);

    let _relay = start().await;
    bench.next_round();
    bench.round().await;
    assert_eq!(bench.count(readable).await, 1);
    assert_eq!(bench.snapshots(&url).await.len(), 3);
}

#[tokio::test]
async fn a_relay_of_another_project_takes_the_write_check() {
    let mut bench = Bench::new().await;
    bench.settings.write_check = true;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let relay = LocalRelay::new(RelayBuilder::default().addr([127, 0, 0, 1].into()).port(port));
    relay.run().await.unwrap();
    let url = format!("ws://127.0.0.1:{port}");
    bench.add(&url, "operator").await;
    bench.round().await;
    let snapshot = bench.newest(&url).await;
    assert!(snapshot.is_readable && snapshot.is_writable == Some(true), "{snapshot:?}");
}

#[tokio::test]
async fn a_drain_ends_a_round_at_once_and_gives_the_leases_back() {
    let mut bench = Bench::new().await;
    let silent = Stub::start(Manner::Silent, Page::document(&json!({}))).await;
    bench.add(&silent.url(), "operator").await;
    let (monitor, _) = bench.monitor();
    let drain = CancellationToken::new();
    let stop = drain.clone();
    let mut cycle = JoinSet::new();
    cycle.spawn(async move { monitor.cycle(&drain).await.unwrap() });
    eventually("the relay is visited", || async { silent.sessions() == 1 }).await;
    stop.cancel();
    timeout(Duration::from_secs(5), cycle.join_all()).await.expect("at once");
    assert_eq!(bench.count("SELECT count(*) FROM lease").await, 0);
    assert_eq!(
        bench.count("SELECT count(*) FROM relay_metadata").await,
        0,
        "an incomplete check is not recorded"
    );
}

#[tokio::test]
async fn snapshots_grow_in_time_even_when_a_clock_goes_backwards() {
    let mut bench = Bench::new().await;
    let stub = Stub::honest().await;
    bench.add(&stub.url(), "operator").await;
    bench.round().await;
    // More than an interval back: a snapshot that far in the future counts as none.
    bench.later(-20_000);
    bench.round().await;
    let snapshots = bench.snapshots(&stub.url()).await;
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[0].generated_at, snapshots[1].generated_at + 1);
}

#[tokio::test]
async fn checks_are_counted_by_network_and_outcome() {
    let mut bench = Bench::new().await;
    let stub = Stub::honest().await;
    bench.add(&stub.url(), "operator").await;
    bench.add("ws://127.0.0.1:1", "operator").await;
    bench.round().await;
    let mut registry = Registry::default();
    bench.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "quipu_archive_checks_total{network=\"clearnet\",outcome=\"ok\"} 1",
        "quipu_archive_checks_total{network=\"clearnet\",outcome=\"refused\"} 1",
        "quipu_archive_check_duration_seconds_count{network=\"clearnet\"} 2",
        "quipu_archive_due_relays{network=\"clearnet\"} 2",
        "quipu_archive_checking_relays{network=\"clearnet\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_relays_are_checked_at_once_and_their_snapshots_share_commits() {
    let mut bench = Bench::new().await;
    let mut stubs = Vec::new();
    let writer = bench.kit.writer(RelayJournal);
    for _ in 0..400 {
        let stub = Stub::honest().await;
        let url = quipu::base::RelayUrl::parse(&stub.url()).unwrap();
        writer.append(RelayCommand::Add { url, source: "operator" }).await.unwrap();
        stubs.push(stub);
    }
    let begun = Instant::now();
    bench.round().await;
    // The requirement is a thousand relays a minute. Sequential checks would take longer on a loaded machine.
    assert!(begun.elapsed() < Duration::from_secs(24), "{:?}", begun.elapsed());
    println!("400 relays in {:?}", begun.elapsed());
    assert_eq!(bench.count("SELECT count(*) FROM readable_relays").await, 400);
    assert_eq!(bench.count("SELECT count(*) FROM nip66").await, 1);
    let commits = bench.count("SELECT count(DISTINCT batch) FROM relay_metadata").await;
    println!("{commits} commits");
    assert!(commits < 400, "{commits}");
}

#[tokio::test]
async fn a_check_that_panics_or_whose_snapshot_fails_is_set_aside_alone() {
    let mut bench = Bench::new().await;
    let stubs = [Stub::honest().await, Stub::honest().await, Stub::honest().await];
    for stub in &stubs {
        bench.add(&stub.url(), "operator").await;
    }
    // The first poll reads the clock once, then each check reads it at its start.
    let panics = || quipu::lifecycle::panics_by_unit().get("monitor_check").copied().unwrap_or(0);
    let before = panics();
    bench.plant_panic(3);
    bench.round().await;
    assert_eq!(panics(), before + 1);
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 2);
    let held = "SELECT count(*) FROM lease WHERE expires_at > now() + interval '50 seconds'";
    assert_eq!(bench.count(held).await, 1, "it is not tried again at once");

    // An error as a bug would raise it, not refused data, in the batch that the three snapshots share.
    let superuser = bench.kit.superuser().await;
    let url = stubs[0].url();
    let fail = format!(
        "DELETE FROM lease;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON relay_metadata FOR EACH ROW WHEN (NEW.relay_url = '{url}') EXECUTE FUNCTION fail()"
    );
    superuser.batch_execute(&fail).await.unwrap();
    bench.next_round();
    bench.round().await;
    let checked = "SELECT count(DISTINCT relay_url) FROM relay_metadata WHERE generated_at = (SELECT max(generated_at) FROM relay_metadata)";
    assert_eq!(bench.count(checked).await, 2);
    assert_eq!(bench.count(held).await, 1);
    assert!(quipu::lifecycle::set_aside_by_unit()["monitor_check"] >= 2);
}
