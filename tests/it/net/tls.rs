//! Certificates: trusted ones, and untrusted ones that are only recorded.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quipu::config::Networks;
use quipu::net::relay::{RelayError, RelaySession};
use quipu::net::{Certificate, DialError, Egress, Get, Trust};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::kit::{ONION, Peer, TIMEOUTS, hidden, url};
use crate::support::dns::DnsServer;
use crate::support::socks::SocksProxy;

const NAME: &str = "relay.example.com";

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "Loopback Authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A relay behind TLS that completes the handshake and keeps the connection open.
async fn relay(authority: &CertifiedIssuer<'static, KeyPair>, name: &str, until_year: i32) -> Peer {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 2, 3);
    params.not_after = date_time_ymd(until_year, 5, 6);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Peer::tcp(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            while let Some(Ok(_)) = futures_util::StreamExt::next(&mut socket).await {}
        }
    })
    .await
}

/// Outgoing connections that trust this authority.
async fn trusting(authority: &CertifiedIssuer<'static, KeyPair>) -> (Egress, DnsServer) {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let dns = DnsServer::start(&[(NAME, &[Ipv4Addr::LOCALHOST])]).await;
    let mut networks = Networks { ca_file: Some(ca_file), ..Networks::default() };
    networks.clearnet.private_names = vec![NAME.to_owned()];
    (Egress::with_dns_servers(&networks, &[dns.address()]).unwrap(), dns)
}

async fn dialled(outside: &Egress, address: SocketAddr) -> Result<Certificate, DialError> {
    let url = url(&format!("wss://{NAME}:{}", address.port()));
    match RelaySession::connect(outside, &url, Trust::Named, TIMEOUTS).await {
        Ok(session) => Ok(session.handshake().certificate.clone().unwrap()),
        Err(RelayError::Connect(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// Fetches a document; on failure the reason.
async fn fetched(outside: &Egress, address: SocketAddr) -> Result<(), &'static str> {
    let get = Get {
        url: &format!("https://{NAME}:{}/", address.port()),
        trust: Trust::Named,
        accept: "*/*",
        bytes_max: 1_000,
        timeout: TIMEOUTS.connect,
        redirects_max: 0,
    };
    outside.get(get).await.map(|_| ()).map_err(|error| error.reason())
}

#[tokio::test]
async fn a_certificate_of_the_operators_authority_is_valid() {
    let authority = authority();
    let (outside, _dns) = trusting(&authority).await;
    let peer = relay(&authority, NAME, 2099).await;
    let certificate = dialled(&outside, peer.address).await.unwrap();
    assert!(certificate.valid && certificate.problem.is_none(), "{certificate:?}");
    assert!(certificate.issuer.contains("Loopback Authority"), "{certificate:?}");
    assert_eq!(certificate.names, [NAME]);
    assert_eq!((certificate.not_before, certificate.not_after), (981_158_400, 4_081_708_800));
    assert_eq!(certificate.fingerprint.len(), 64);
    // Over HTTPS the peer expects a WebSocket, but the certificate is accepted.
    assert_ne!(fetched(&outside, peer.address).await, Err("tls"));
}

#[tokio::test]
async fn a_bad_certificate_is_refused_and_written_down_all_the_same() {
    let (trusted, stranger) = (authority(), authority());
    let (outside, _dns) = trusting(&trusted).await;
    for (issuer, name, until_year, problem) in [
        (&trusted, NAME, 2020, "Expired"),
        (&trusted, "other.example.com", 2099, "NotValidForName"),
        (&stranger, NAME, 2099, "UnknownIssuer"),
    ] {
        let peer = relay(issuer, name, until_year).await;
        let error = dialled(&outside, peer.address).await.unwrap_err();
        assert_eq!(error.reason(), "tls");
        let DialError::Tls { why, certificate: Some(certificate) } = error else { panic!("{error}") };
        println!("{why}");
        assert!(!certificate.valid, "{problem}");
        assert_eq!(certificate.names, [name]);
        assert!(certificate.problem.is_some_and(|said| !said.is_empty()), "{problem}");
        assert_eq!(certificate.not_after < 1_700_000_000, until_year == 2020);

        assert_eq!(fetched(&outside, peer.address).await, Err("tls"));
    }
}

#[tokio::test]
async fn a_tor_5_inside_onion_a_certificate_proves_nothing_more_and_is_only_written_down() {
    let peer = relay(&authority(), ONION, 2020).await;
    let proxy = SocksProxy::start(Ok(peer.address)).await;
    let outside = Egress::with_dns_servers(&hidden(proxy.address()), &[]).unwrap();
    let session =
        RelaySession::connect(&outside, &url(&format!("wss://{ONION}")), Trust::Discovered, TIMEOUTS).await;
    let certificate = session.unwrap().handshake().certificate.clone().unwrap();
    assert!(!certificate.valid && certificate.problem.is_some());
    assert_eq!(certificate.names, [ONION]);
}

#[test]
fn an_invalid_ca_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    for text in ["", "no certificate"] {
        std::fs::write(&ca_file, text).unwrap();
        let networks = Networks { ca_file: Some(ca_file.clone()), ..Networks::default() };
        let refused = Egress::with_dns_servers(&networks, &[]).unwrap_err().to_string();
        assert!(refused.contains("networks.ca_file") && refused.contains("ca.pem"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_the_tls_handshake_is_given_up_in_time() {
    let mute = Peer::tcp(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    // By its IP address: a DNS query needs a running clock.
    let outside = Egress::with_dns_servers(&Networks::default(), &[]).unwrap();
    let address = url(&format!("wss://{}", mute.address));
    let refused = RelaySession::connect(&outside, &address, Trust::Named, TIMEOUTS).await.unwrap_err();
    assert!(matches!(refused, RelayError::Connect(DialError::Timeout(_))), "{refused}");
    let get = Get {
        url: &format!("https://{}/", mute.address),
        trust: Trust::Named,
        accept: "*/*",
        bytes_max: 1_000,
        timeout: TIMEOUTS.connect,
        redirects_max: 0,
    };
    assert_eq!(outside.get(get).await.unwrap_err().reason(), "timeout");
}
