//! Upstreams behind TLS: a certificate that has expired is the upstream's failure, and nothing is sent to it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use quipu::base::{Clock, Sha256, SystemClock};
use quipu::config::{self, Networks};
use quipu::net::Egress;
use quipu::services::blossom::metrics::BlobMetrics;
use quipu::services::blossom::upstream::{UpstreamKeys, Upstreams};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::kit::upstream;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server at 127.0.0.1 without blobs, whose certificate is valid until this year. Returns its URL.
async fn server(authority: &CertifiedIssuer<'static, KeyPair>, until_year: i32) -> (String, JoinSet<()>) {
    let mut params = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()]).unwrap();
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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn an_expired_certificate_is_the_upstreams_failure() {
    let authority = authority();
    let (valid, _valid) = server(&authority, 2_100).await;
    let (expired, _expired) = server(&authority, 2_002).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let networks = Networks { ca_file: Some(ca_file), ..Networks::default() };
    let outside = Egress::with_dns_servers(&networks, &[]).unwrap();
    let settings = config::Blossom {
        upstreams: vec![upstream(&valid), upstream(&expired)],
        ..config::Blossom::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (keys, metrics) = (UpstreamKeys::default(), BlobMetrics::default());
    let upstreams = Upstreams::open(&settings, &keys, &outside, &clock, &metrics).unwrap();
    let [valid, expired] = upstreams.list() else { panic!("two") };
    assert_eq!(valid.head(&Sha256::MIN).await.unwrap(), None);
    let error = expired.head(&Sha256::MIN).await.unwrap_err();
    assert!(error.reason.contains("TLS") && error.reason.contains("expired"), "{error:?}");
    assert_eq!((valid.stats().consecutive_failures, expired.stats().consecutive_failures), (0, 1));
}
