//! The checks of a relay: open, read, write, authentication, DNS, certificates.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use quipu::net::Egress;
use serde_json::{Value, json};

use super::kit::{Bench, failure};
use super::stub::{Manner, Page, Stub};
use crate::support::dns::DnsServer;
use crate::support::socks::SocksProxy;

const ONION: &str = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd.onion";

async fn stub(bench: &mut Bench, manner: Manner) -> Stub {
    let stub = Stub::start(manner, Page::document(&json!({}))).await;
    bench.add(&stub.url(), "operator").await;
    stub
}

#[tokio::test]
async fn n_42_9_a_relay_that_wants_a_key_is_asked_with_one_and_is_no_outage() {
    let mut bench = Bench::new().await;
    let any = stub(&mut bench, Manner::WantsAnyKey).await;
    let other = stub(&mut bench, Manner::WantsAnotherKey).await;
    let none = stub(&mut bench, Manner::Honest).await;
    bench.round().await;
    for (stub, auth, is_readable) in
        [(any, "accepted", true), (other, "refused", false), (none, "not_required", true)]
    {
        let snapshot = bench.newest(&stub.url()).await;
        assert_eq!(snapshot.detail["auth"], auth, "{snapshot:?}");
        assert!(snapshot.is_openable && snapshot.is_readable == is_readable, "{snapshot:?}");
        assert_eq!(snapshot.rtt_read.is_some(), is_readable);
        assert!(!snapshot.detail.contains_key("failures"), "{snapshot:?}");
    }
}

#[tokio::test]
async fn n_66_2_what_fails_has_a_reason_and_no_time() {
    let mut bench = Bench::new().await;
    bench.networks.clearnet.idle_timeout_s = NonZeroU32::MIN;
    let silent = stub(&mut bench, Manner::Silent).await;
    bench.add("ws://127.0.0.1:1", "operator").await;
    bench.round().await;
    let snapshot = bench.newest(&silent.url()).await;
    assert_eq!(failure(&snapshot, "read")["reason"], "silent");
    assert!(snapshot.is_openable && snapshot.rtt_open.is_some() && !snapshot.is_readable, "{snapshot:?}");
    let snapshot = bench.newest("ws://127.0.0.1:1").await;
    assert_eq!(failure(&snapshot, "open")["reason"], "refused");
    assert!(!snapshot.is_openable && snapshot.rtt_open.is_none(), "{snapshot:?}");
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata_latest").await, 2);
    assert_eq!(bench.count("SELECT count(*) FROM readable_relays").await, 0);
}

#[tokio::test]
async fn n_66_10_writing_is_proven_by_reading_back_a_throw_away_event() {
    let mut bench = Bench::new().await;
    bench.settings.write_check = true;
    bench.networks.clearnet.idle_timeout_s = NonZeroU32::new(2).unwrap();
    let honest = stub(&mut bench, Manner::Honest).await;
    let forgetful = stub(&mut bench, Manner::Forgetful).await;
    let closed = stub(&mut bench, Manner::ReadOnly).await;
    let with_key = stub(&mut bench, Manner::WantsAnyKey).await;
    bench.round().await;
    for (stub, reason) in
        [(&honest, None), (&forgetful, Some("not_read_back")), (&closed, Some("blocked")), (&with_key, None)]
    {
        let snapshot = bench.newest(&stub.url()).await;
        assert_eq!(snapshot.is_writable, Some(reason.is_none()), "{snapshot:?}");
        assert_eq!(snapshot.rtt_write.is_some(), reason.is_none());
        assert_eq!(failure(&snapshot, "write")["reason"].as_str(), reason, "{snapshot:?}");
        let events = stub.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0]["kind"] == 22_456 && events[0]["pubkey"] == bench.keys.public_key().to_hex());
        assert!(events[0]["tags"].to_string().contains("expiration"), "{events:?}");
    }
}

#[tokio::test]
async fn nothing_is_written_unless_it_is_enabled() {
    let mut bench = Bench::new().await;
    let honest = stub(&mut bench, Manner::Honest).await;
    bench.round().await;
    let snapshot = bench.newest(&honest.url()).await;
    assert!(snapshot.is_writable.is_none() && snapshot.rtt_write.is_none() && honest.events().is_empty());
    assert_eq!(failure(&snapshot, "write"), Value::Null);
}

#[tokio::test]
async fn a_name_is_asked_for_and_what_dns_says_is_kept_without_its_time() {
    let mut bench = Bench::new().await;
    let honest = Stub::honest().await;
    let dns = DnsServer::start(&[("relay.example.com", &[Ipv4Addr::LOCALHOST])]).await;
    bench.networks.clearnet.private_names = vec!["relay.example.com".to_owned()];
    bench.outside = Some(Egress::with_dns_servers(&bench.networks, &[dns.address()]).unwrap());
    let port = honest.address.port();
    let (known, unknown) =
        (format!("ws://relay.example.com:{port}"), format!("ws://gone.example.com:{port}"));
    bench.add(&known, "operator").await;
    bench.add(&unknown, "operator").await;
    bench.round().await;
    let snapshot = bench.newest(&known).await;
    assert_eq!(snapshot.detail["dns"], json!({ "a": ["127.0.0.1"] }), "{snapshot:?}");
    assert!(snapshot.is_readable && snapshot.dns_ttl.is_some(), "{snapshot:?}");
    let snapshot = bench.newest(&unknown).await;
    for check in ["open", "nip11", "dns"] {
        assert_eq!(failure(&snapshot, check)["reason"], "dns", "{check}: {snapshot:?}");
    }
}

#[tokio::test]
async fn a_private_address_that_the_operator_did_not_name_is_not_dialled() {
    let mut bench = Bench::new().await;
    let honest = Stub::honest().await;
    bench.add(&honest.url(), "validator").await;
    bench.round().await;
    let snapshot = bench.newest(&honest.url()).await;
    assert_eq!(failure(&snapshot, "open")["reason"], "private_address", "{snapshot:?}");
    assert_eq!(failure(&snapshot, "nip11")["reason"], "private_address", "{snapshot:?}");
    assert_eq!((honest.requests(), honest.sessions()), (0, 0));
}

#[tokio::test]
async fn a_tor_1_an_onion_relay_is_checked_through_the_proxy_and_no_name_is_asked_for() {
    let mut bench = Bench::new().await;
    let honest = Stub::honest().await;
    let proxy = SocksProxy::start(Ok(honest.address)).await;
    let dns = DnsServer::start(&[]).await;
    bench.networks.tor.enabled = true;
    bench.networks.tor.proxy_address = Some(proxy.address().to_string());
    bench.outside = Some(Egress::with_dns_servers(&bench.networks, &[dns.address()]).unwrap());
    let url = format!("ws://{ONION}");
    bench.add(&url, "validator").await;
    bench.round().await;
    let snapshot = bench.newest(&url).await;
    assert!(snapshot.is_readable && snapshot.nip11.is_some(), "{snapshot:?}");
    assert!(!snapshot.detail.contains_key("dns"), "{snapshot:?}");
    assert_eq!(dns.asked(), Vec::<String>::new());
    assert!(proxy.asked().iter().all(|asked| asked.address_type == 3 && asked.name == ONION));
    assert_eq!(proxy.asked().len(), 2, "the document and the session");
}

#[tokio::test]
async fn a_network_that_is_switched_off_is_not_looked_at() {
    let mut bench = Bench::new().await;
    bench.add(&format!("ws://{ONION}"), "operator").await;
    bench.round().await;
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 0);
}
