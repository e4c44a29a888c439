//! Which hosts are dialled, which are refused, and which servers learn of them.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quipu::base::Network;
use quipu::config::Networks;
use quipu::net::relay::{RelayError, RelaySession, Timeouts};
use quipu::net::{DialError, Egress, Get, Trust};
use tokio::net::TcpListener;

use super::kit::{ONION, OTHER_ONION, Peer, TIMEOUTS, counted, hidden, stay, url};
use crate::support::dns::DnsServer;
use crate::support::socks::SocksProxy;

fn get(url: &str, trust: Trust) -> Get<'_> {
    let timeout = Duration::from_secs(20);
    Get { url, trust, accept: "*/*", bytes_max: 1_000, timeout, redirects_max: 3 }
}

#[tokio::test]
async fn a_tor_1_a_hidden_name_goes_to_the_proxy_and_nobody_asks_dns() {
    let dns = DnsServer::start(&[]).await;
    let peer = Peer::start(stay).await;
    let proxy = SocksProxy::start(Ok(peer.address)).await;
    let outside = Egress::with_dns_servers(&hidden(proxy.address()), &[dns.address()]).unwrap();
    for name in [ONION, "relay.i2p", "relay.loki"] {
        // A-TOR.5: without TLS, as is usual there.
        let url = url(&format!("ws://{name}:7777/x"));
        let session = RelaySession::connect(&outside, &url, Trust::Discovered, TIMEOUTS).await.unwrap();
        assert_eq!(session.handshake().peer, None);
        let refused = outside.lookup(&name.to_uppercase()).await.unwrap_err();
        assert!(matches!(refused, DialError::Hidden(_)), "{refused}");
        outside.lookup(&format!("{name}.")).await.unwrap_err();
        // The peer does not speak HTTP, so the error shows that it was reached.
        let address = format!("http://{name}.:80/");
        let refused = outside.get(get(&address, Trust::Discovered)).await.unwrap_err();
        assert_eq!(refused.reason(), "http", "{refused}");
    }
    let asked: Vec<_> = proxy.asked().into_iter().map(|a| (a.address_type, a.name, a.port)).collect();
    let expected = [ONION, "relay.i2p", "relay.loki"];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|name| [(3, (*name).to_owned(), 7777), (3, format!("{name}."), 80)])
        .collect();
    assert_eq!(asked, expected);
    assert_eq!(dns.asked(), [""; 0], "no name reached DNS");
}

#[tokio::test]
async fn a_tor_1_a_hidden_name_is_not_dialled_at_all_when_its_network_is_off() {
    let dns = DnsServer::start(&[]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    assert!(outside.reaches(Network::Clearnet) && !outside.reaches(Network::Tor));
    let address = url(&format!("ws://{ONION}"));
    let refused = RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap_err();
    assert_eq!(refused.reason(), "network_off");
    let address = format!("http://{ONION}/");
    let refused = outside.get(get(&address, Trust::Named)).await.unwrap_err();
    assert_eq!(refused.reason(), "network_off");
    assert_eq!(dns.asked(), [""; 0]);
}

#[tokio::test]
async fn a_tor_2_the_proxys_reply_codes_are_told_apart() {
    for (code, reason) in [
        (0x01, "unreachable"),
        (0x04, "unreachable"),
        (0x05, "refused"),
        (0x06, "timeout"),
        (0xf0, "onion_not_found"),
        (0xf2, "onion_introduction_failed"),
        (0xf4, "onion_needs_authorization"),
        (0xf6, "onion_bad_address"),
        (0xf7, "onion_introduction_timeout"),
    ] {
        let proxy = SocksProxy::start(Err(code)).await;
        let outside = Egress::with_dns_servers(&hidden(proxy.address()), &[]).unwrap();
        let refused =
            RelaySession::connect(&outside, &url(&format!("ws://{ONION}")), Trust::Named, TIMEOUTS).await;
        assert_eq!(refused.unwrap_err().reason(), reason, "{code:x}");
    }
}

#[tokio::test]
async fn an_unreachable_proxy_is_reported_as_the_proxys_fault() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outside = Egress::with_dns_servers(&hidden(address), &[]).unwrap();
    let refused =
        RelaySession::connect(&outside, &url(&format!("ws://{ONION}")), Trust::Named, TIMEOUTS).await;
    assert_eq!(refused.unwrap_err().reason(), "proxy");
}

#[tokio::test]
async fn a_tor_3_each_relay_has_a_circuit_of_its_own() {
    let peer = Peer::start(stay).await;
    let proxy = SocksProxy::start(Ok(peer.address)).await;
    let outside = Egress::with_dns_servers(&hidden(proxy.address()), &[]).unwrap();
    for name in [ONION, OTHER_ONION, ONION] {
        let url = url(&format!("ws://{name}"));
        RelaySession::connect(&outside, &url, Trust::Discovered, TIMEOUTS).await.unwrap();
        let address = format!("http://{name}/");
        outside.get(get(&address, Trust::Discovered)).await.unwrap_err();
    }
    let passwords: Vec<_> = proxy.asked().into_iter().map(|asked| (asked.user, asked.password)).collect();
    let [first, first_get, other, other_get, again, again_get] = passwords.as_slice() else { panic!() };
    assert_eq!((first, first_get), (again, again_get));
    assert_ne!(first.1, other.1);
    assert_ne!(first_get.1, other_get.1);
    assert!(passwords.iter().all(|(user, password)| user == "quipu" && password.len() == 64));
    assert!(!first.1.contains(&ONION[..10]));
}

#[test]
fn a_tor_4_a_hidden_network_is_given_more_time() {
    let networks = Networks::default();
    let (clearnet, tor) = (Timeouts::from(&networks.clearnet), Timeouts::from(&networks.tor));
    assert!(tor.connect > clearnet.connect && tor.idle > clearnet.idle);
}

#[tokio::test]
async fn a_discovered_name_with_a_private_address_is_refused_without_a_connection() {
    let dns = DnsServer::start(&[
        ("inside.example.com", &[Ipv4Addr::LOCALHOST]),
        ("mixed.example.com", &[Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(169, 254, 169, 254)]),
    ])
    .await;
    let (peer, connections) = counted().await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let port = peer.address.port();
    let private = [
        "inside.example.com",
        "mixed.example.com",
        "localhost",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "printer",
    ];
    for host in private {
        let address = url(&format!("ws://{host}:{port}"));
        let refused = RelaySession::connect(&outside, &address, Trust::Discovered, TIMEOUTS).await;
        assert_eq!(refused.unwrap_err().reason(), "private_address", "{host}");
        let address = format!("http://{host}:{port}/");
        let refused = outside.get(get(&address, Trust::Discovered)).await.unwrap_err();
        assert_eq!(refused.reason(), "private_address", "{host}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert!(!dns.asked().iter().any(|name| name == "printer" || name == "localhost"));
}

#[tokio::test]
async fn an_address_that_answers_is_found_behind_one_that_does_not() {
    let dns = DnsServer::start(&[("two.test", &[Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST])]).await;
    let (peer, _) = counted().await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let address = url(&format!("ws://two.test:{}", peer.address.port()));
    RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap();
}

#[tokio::test]
async fn lookup_returns_the_dns_records() {
    let dns = DnsServer::start(&[("relay.example.com", &[Ipv4Addr::new(10, 1, 2, 3)])]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let names = outside.lookup("Relay.Example.com").await.unwrap();
    assert_eq!((names.a, names.ttl_s, names.ptr), (vec![Ipv4Addr::new(10, 1, 2, 3)], Some(60), None));
    let missing = outside.lookup("nobody.example.com").await.unwrap_err();
    assert_eq!(missing.to_string(), "cannot resolve nobody.example.com: no such name (NXDOMAIN)");
}

#[tokio::test]
async fn a_server_that_is_not_a_relay_and_a_closed_port_have_different_reasons() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(super::kit::session(&format!("ws://{closed}")).await.unwrap_err().reason(), "refused");
    let web = Peer::tcp(|mut stream| async move {
        let said = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, said).await;
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4_096]).await;
    })
    .await;
    let refused = super::kit::session(&web.url()).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot connect: HTTP status 404");
    assert_eq!(refused.reason(), "not_a_relay");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_shakes_hands_is_given_up_in_time() {
    let mute = Peer::tcp(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let refused = super::kit::session(&mute.url()).await.unwrap_err();
    assert!(matches!(refused, RelayError::Connect(DialError::Timeout(_))), "{refused}");
}

/// One query waits three seconds and is repeated once.
#[tokio::test]
async fn a_name_server_that_is_silent_is_given_up_in_time() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outside = Egress::with_dns_servers(&Networks::default(), &[silent.local_addr().unwrap()]).unwrap();
    let asked = Instant::now();
    let address = url("ws://relay.example.com");
    let failed = RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap_err();
    assert_eq!(failed.reason(), "dns", "{failed}");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn of_a_name_with_many_addresses_four_are_dialled_and_32_are_kept() {
    let many: Vec<Ipv4Addr> = (2..42).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect();
    let dns = DnsServer::start(&[("many.test", &many)]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    assert_eq!(outside.lookup("many.test").await.unwrap().a.len(), 32);
    // The peer counts connections and sends nothing, whichever addresses are tried.
    let mut listeners = Vec::new();
    let port = loop {
        let first = TcpListener::bind((many[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let others = many[1..].iter().map(|ip| std::net::TcpListener::bind((*ip, port)));
        if let Ok(others) = others.collect::<Result<Vec<_>, _>>() {
            listeners.push(first);
            for other in others {
                other.set_nonblocking(true).unwrap();
                listeners.push(TcpListener::from_std(other).unwrap());
            }
            break port;
        }
    };
    let patience = Timeouts { connect: Duration::from_secs(3), idle: Duration::from_secs(3) };
    let address = url(&format!("ws://many.test:{port}"));
    RelaySession::connect(&outside, &address, Trust::Named, patience).await.unwrap_err();
    let mut dialled = 0;
    for listener in &listeners {
        while futures_util::FutureExt::now_or_never(listener.accept()).is_some() {
            dialled += 1;
        }
    }
    assert!((1..=4).contains(&dialled), "{dialled} connections");
}
