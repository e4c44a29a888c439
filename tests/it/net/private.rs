//! Private addresses: dialled only if this operator named the relay by an address literal or a local
//! name, or listed the name in `private_names`.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quipu::config::Networks;
use quipu::net::relay::RelaySession;
use quipu::net::{Egress, Get, Trust};

use super::kit::{TIMEOUTS, counted, url};
use crate::support::dns::DnsServer;

fn get(url: &str, trust: Trust) -> Get<'_> {
    let timeout = Duration::from_secs(20);
    Get { url, trust, accept: "*/*", bytes_max: 1_000, timeout, redirects_max: 3 }
}

/// The reasons with which a WebSocket and a request to `host` fail.
async fn refused(outside: &Egress, host: &str, port: u16, trust: Trust) -> [&'static str; 2] {
    let address = url(&format!("ws://{host}:{port}"));
    let session = RelaySession::connect(outside, &address, trust, TIMEOUTS).await.map(drop);
    let address = format!("http://{host}:{port}/");
    let fetched = outside.get(get(&address, trust)).await.map(drop);
    [session.unwrap_err().reason(), fetched.unwrap_err().reason()]
}

#[tokio::test]
async fn c_8_a_public_name_with_a_private_address_is_refused_also_when_the_operator_named_it() {
    let dns = DnsServer::start(&[
        ("seed.example.com", &[Ipv4Addr::LOCALHOST]),
        ("cloud.example.com", &[Ipv4Addr::new(169, 254, 169, 254)]),
    ])
    .await;
    let (peer, connections) = counted().await;
    let port = peer.address.port();
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    for host in ["seed.example.com", "cloud.example.com", "seed.example.com."] {
        assert_eq!(refused(&outside, host, port, Trust::Named).await, ["private_name"; 2], "{host}");
        assert_eq!(refused(&outside, host, port, Trust::Discovered).await, ["private_address"; 2], "{host}");
    }
    let address = url(&format!("ws://seed.example.com:{port}"));
    let said =
        RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap_err().to_string();
    assert!(said.contains("networks.clearnet.private_names"), "{said}");
    assert_eq!(connections.load(Ordering::SeqCst), 0);

    // The settings allow one name, but only for a relay that the operator named.
    let mut networks = Networks::default();
    networks.clearnet.private_names = vec!["seed.example.com".to_owned()];
    let outside = Egress::with_dns_servers(&networks, &[dns.address()]).unwrap();
    assert_eq!(refused(&outside, "seed.example.com", port, Trust::Discovered).await, ["private_address"; 2]);
    assert_eq!(refused(&outside, "cloud.example.com", port, Trust::Named).await, ["private_name"; 2]);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let session = RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap();
    assert_eq!(session.handshake().peer, Some(Ipv4Addr::LOCALHOST.into()));
}

#[tokio::test]
async fn c_8_literals_and_local_names_of_the_operator_are_dialled_and_those_of_others_are_not() {
    let dns = DnsServer::start(&[
        ("relay.test", &[Ipv4Addr::LOCALHOST]),
        ("nas.home.arpa", &[Ipv4Addr::LOCALHOST]),
    ])
    .await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let (peer, connections) = counted().await;
    let port = peer.address.port();
    let hosts = ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "relay.test", "nas.home.arpa"];
    for host in
        hosts.into_iter().chain(["[::1]", "[64:ff9b::7f00:1]", "169.254.169.254", "100.64.0.1", "10.0.0.1"])
    {
        assert_eq!(refused(&outside, host, port, Trust::Discovered).await, ["private_address"; 2], "{host}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    for host in hosts {
        let address = url(&format!("ws://{host}:{port}"));
        RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap();
    }
}

#[tokio::test]
async fn c_8_a_name_that_changes_its_address_leads_nowhere_else_than_the_answer_that_was_judged() {
    // A public name: each dial checks the DNS answer that it connects to.
    let documentation = Ipv4Addr::new(203, 0, 113, 1);
    let dns = DnsServer::rebinding("rebind.example.com", &[&[documentation], &[Ipv4Addr::LOCALHOST]]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let (peer, connections) = counted().await;
    let port = peer.address.port();
    for _ in 0..3 {
        assert_eq!(
            refused(&outside, "rebind.example.com", port, Trust::Discovered).await,
            ["private_address"; 2]
        );
        assert_eq!(refused(&outside, "rebind.example.com", port, Trust::Named).await, ["private_name"; 2]);
    }
    // A local name: the first DNS answer is dialled. The peer listens at the second answer, which is never
    // requested.
    let dns =
        DnsServer::rebinding("rebind.test", &[&[Ipv4Addr::new(127, 0, 0, 2)], &[Ipv4Addr::LOCALHOST]]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let address = url(&format!("ws://rebind.test:{port}"));
    let failed = RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap_err();
    assert_eq!(failed.reason(), "refused");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(dns.asked(), ["rebind.test"; 2], "one query per address family");
    RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap();
}
