//! A-TOR, with Tor itself: an onion relay is archived through the proxy, and no traffic about it takes
//! another path.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::time::Duration;

use nostr_sdk::{Event, EventId, Filter, JsonUtil as _, Timestamp};
use quipu::base::RelayUrl;
use quipu::config;
use quipu::net::relay::{RelaySession, Timeouts};
use quipu::net::{Egress, Get, Trust};
use quipu::sample::{SampleGenerator, SampleRelay};
use serde_json::Value;

use super::kit::{assert_exported_as_signed, await_complete, await_count, exported, now};
use crate::support::dns::DnsServer;
use crate::support::instance::Instance;
use crate::support::socks::SocksProxy;
use crate::support::tor::Tor;

const PATIENCE: Timeouts = Timeouts { connect: Duration::from_mins(1), idle: Duration::from_mins(1) };

/// Settings that reach onion relays through this proxy, and no other network.
fn through(proxy: &SocksProxy) -> config::Networks {
    let mut networks = config::Networks::default();
    networks.tor.enabled = true;
    networks.tor.proxy_address = Some(proxy.address().to_string());
    networks
}

/// Starts a relay behind the onion address, and returns it with its URL.
async fn onion_relay(tor: &Tor, seed: u64, events: u64) -> (SampleRelay, RelayUrl) {
    let (url, port) = tor.service();
    let events = SampleGenerator::paced(seed, events);
    let relay = SampleRelay::start(([127, 0, 0, 1], port).into(), events).await.unwrap();
    (relay, RelayUrl::parse(&url).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tor_onion_names_go_to_the_proxy_with_a_circuit_of_their_own_and_never_to_dns() {
    let tor = Tor::get().await;
    let (first, first_url) = onion_relay(&tor, 41, 50).await;
    let (second, second_url) = onion_relay(&tor, 42, 50).await;
    let proxy = SocksProxy::before(tor.socks).await;
    let dns = DnsServer::start(&[]).await;
    let outside = Egress::with_dns_servers(&through(&proxy), &[dns.address()]).unwrap();

    for (relay, url) in [(&first, &first_url), (&second, &second_url), (&first, &first_url)] {
        let mut session = RelaySession::connect(&outside, url, Trust::Discovered, PATIENCE).await.unwrap();
        assert_eq!(session.handshake().peer, None, "the address of an onion relay is not known");
        let filter = Filter::new().until(Timestamp::from_secs(u64::try_from(now()).unwrap())).limit(500);
        let page = session.page(&filter).await.unwrap();
        assert_eq!(page.events.len(), relay.events());
        session.close().await;
    }
    let document = first_url.as_str().replacen("ws:", "http:", 1);
    let get = Get {
        url: &document,
        trust: Trust::Discovered,
        accept: "application/nostr+json",
        bytes_max: 10_000,
        timeout: Duration::from_mins(1),
        redirects_max: 0,
    };
    // The relay has no document; only the request matters.
    drop(outside.get(get).await);
    outside.lookup(&tor.onion).await.unwrap_err();

    let asked = proxy.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.address_type == 3 && asked.name == tor.onion), "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.user.is_empty() && !asked.password.is_empty()), "{asked:?}");
    assert_ne!(asked[0].password, asked[1].password, "a circuit for each relay");
    assert_eq!(asked[0].password, asked[2].password, "and the same one for the same relay");
    assert_eq!(dns.asked(), Vec::<String>::new(), "an onion name was asked for");

    // Control: a clearnet name does query this server.
    let asking = outside.lookup("relay.example");
    tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap().unwrap_err();
    assert!(!dns.asked().is_empty());
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tor_an_onion_relay_is_archived_whole_and_the_process_connects_to_the_proxy_only() {
    let tor = Tor::get().await;
    let (relay, url) = onion_relay(&tor, 43, 1_500).await;
    let proxy = SocksProxy::before(tor.socks).await;
    let proxied = format!("networks.tor.proxy_address=\"{}\"", proxy.address());
    let settings = ["--set", "networks.tor.enabled=true", "--set", &proxied];
    let instance = Instance::crawling(&[url.as_str()], &settings);
    instance.run(&["relays", "add", url.as_str()]).ok();

    let watched = watch_sockets(&instance, async {
        await_complete(&instance, url.as_str(), now() - 120).await;
    })
    .await;
    let held = i64::try_from(relay.events()).unwrap();
    await_count(&instance, "SELECT count(*) FROM events", held).await;
    let signed: Vec<Value> = held_by(&relay).await;
    assert_exported_as_signed(&exported(&instance, &["--relay", url.as_str()]), &signed);

    let asked = proxy.asked();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|asked| asked.name == tor.onion), "{asked:?}");
    assert!(watched.udp == 0, "something was asked over UDP");
    assert!(watched.peers.contains(&proxy.address().port()), "{:?} does not hold the proxy", watched.peers);
    assert!(!watched.peers.contains(&relay.address().port()), "it went past the proxy");
    assert!(watched.strangers.is_empty(), "connected beyond the loopback: {:?}", watched.strangers);
    instance.stop();
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tor_an_onion_relay_is_monitored_through_the_proxy() {
    let tor = Tor::get().await;
    let (relay, url) = onion_relay(&tor, 44, 20).await;
    let proxy = SocksProxy::before(tor.socks).await;
    let proxied = format!("networks.tor.proxy_address=\"{}\"", proxy.address());
    let only = format!("services.monitor.only_relays={}", serde_json::json!([url.as_str()]));
    let settings =
        ["services.monitor.enabled=true", "networks.tor.enabled=true", proxied.as_str(), only.as_str()];
    let instance = Instance::start(&settings.map(|setting| ["--set", setting]).concat());
    instance.run(&["relays", "add", url.as_str()]).ok();

    let snapshots = format!(
        "SELECT count(*) FROM relay_metadata m JOIN nip66 n ON n.id = m.nip66_id \
         WHERE relay_url = '{url}' AND n.openable AND n.readable AND m.rtt_open > 0"
    );
    let watched = watch_sockets(&instance, await_count(&instance, &snapshots, 1)).await;
    assert!(proxy.asked().iter().all(|asked| asked.name == tor.onion), "{:?}", proxy.asked());
    assert_eq!(watched.udp, 0, "something was asked over UDP");
    assert!(!watched.peers.contains(&relay.address().port()), "it went past the proxy");
    assert!(watched.strangers.is_empty(), "connected beyond the loopback: {:?}", watched.strangers);
    instance.stop();
    relay.shutdown().await;
}

/// Events that the relay sends to a direct connection.
async fn held_by(relay: &SampleRelay) -> Vec<Value> {
    let outside = Egress::new(&config::Networks::default()).unwrap();
    let mut session = RelaySession::connect(&outside, relay.url(), Trust::Named, PATIENCE).await.unwrap();
    let mut events: HashMap<EventId, Event> = HashMap::new();
    let mut until = u64::try_from(now()).unwrap();
    while events.len() < relay.events() {
        let filter = Filter::new().until(Timestamp::from_secs(until)).limit(500);
        let page = session.page(&filter).await.unwrap();
        let shown = page.events.iter().map(|event| event.event().unwrap());
        events.extend(shown.map(|event| (event.id, event)));
        until = events.values().map(|event| event.created_at.as_secs()).min().unwrap();
    }
    session.close().await;
    events.values().map(|event| serde_json::from_str(&event.as_json()).unwrap()).collect()
}

/// Peers of a process, as seen in its sockets.
#[derive(Debug, Default)]
struct Watched {
    /// Loopback ports that it was connected to.
    peers: HashSet<u16>,
    /// Addresses outside the loopback, in the kernel's hex format.
    strangers: HashSet<String>,
    /// Number of UDP sockets.
    udp: usize,
}

/// Samples the process's sockets until `work` is done.
async fn watch_sockets(instance: &Instance, work: impl Future<Output = ()>) -> Watched {
    let mut watched = Watched::default();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    tokio::pin!(work);
    loop {
        tokio::select! {
            () = &mut work => return watched,
            _ = look.tick() => watched.look(instance.pid()),
        }
    }
}

impl Watched {
    fn look(&mut self, pid: u32) {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        let names = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let own: HashSet<String> = names
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let table =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        let rows = |text: &str| -> Vec<String> {
            // Columns: number, local, remote, state, queues, timer, retransmits, user, timeout, inode.
            let lines = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let ours = lines.filter(|row| row.get(9).is_some_and(|inode| own.contains(*inode)));
            ours.map(|row| row[2].to_owned()).collect()
        };
        self.udp += rows(&table("udp")).len() + rows(&table("udp6")).len();
        for remote in rows(&table("tcp")).into_iter().chain(rows(&table("tcp6"))) {
            let (address, port) = remote.rsplit_once(':').unwrap();
            if address.trim_start_matches('0').is_empty() {
                continue; // It listens.
            }
            // 127.x.y.z in the kernel's byte order, also inside IPv6.
            if address.ends_with("7F") {
                self.peers.insert(u16::from_str_radix(port, 16).unwrap());
            } else {
                self.strangers.insert(remote);
            }
        }
    }
}

/// Control: sampling sees an existing connection.
#[test]
fn sockets_of_a_process_are_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _open = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _asks = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut watched = Watched::default();
    watched.look(std::process::id());
    assert!(watched.peers.contains(&port) && watched.udp > 0, "{watched:?}");
}
