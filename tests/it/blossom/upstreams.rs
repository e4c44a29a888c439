//! What one upstream can be asked: Blossom servers that behave well and badly, and stores.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use quipu::base::{Clock, Secret, Sha256, SystemClock};
use quipu::config::{self, BlossomUpstream, Networks, ObjectKeys};
use quipu::net::Egress;
use quipu::services::blossom::decide::authorization::{Credential, Token, Verb};
use quipu::services::blossom::decide::choice::Strategy;
use quipu::services::blossom::metrics::BlobMetrics;
use quipu::services::blossom::upstream::{
    Accepted, Announced, BlobReader, BodyBroken, Deleted, HashToCome, Preflight, PutBlob, Upstream,
    UpstreamError, UpstreamKeys, Upstreams,
};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::client_kit::{User, content, within_deadline};
use super::kit::upstream;
use super::server_kit::{Character, Server};
use crate::support::bucket;

/// Time for a request of these tests; far more than a request takes, and short enough to wait for.
const WITHIN: Duration = Duration::from_secs(2);

/// Failures in a row until an upstream gets no requests.
const FAILURES_MAX: u32 = 3;

fn open(change: impl FnOnce(&mut config::Blossom), keys: &UpstreamKeys) -> Upstreams {
    let mut settings = config::Blossom {
        timeout_s: NonZeroU32::new(2).unwrap(),
        failures_max: NonZeroU32::new(FAILURES_MAX).unwrap(),
        attempts_max: NonZeroU32::MIN,
        ..config::Blossom::default()
    };
    change(&mut settings);
    let outside = Egress::with_dns_servers(&Networks::default(), &[]).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Upstreams::open(&settings, keys, &outside, &clock, &BlobMetrics::default()).unwrap()
}

fn before(servers: &[&Server]) -> Upstreams {
    let named = servers.iter().map(|server| upstream(&server.url())).collect();
    open(|settings| settings.upstreams = named, &UpstreamKeys::default())
}

/// A server with its only upstream.
async fn one(character: Character) -> (Server, Upstream) {
    let server = Server::start(character).await;
    let upstream = before(&[&server]).list()[0].clone();
    (server, upstream)
}

fn pieces(content: &[u8]) -> Vec<Result<Bytes, BodyBroken>> {
    content.chunks(1_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

/// A blob with a known hash and size.
fn blob(content: &[u8]) -> PutBlob {
    let sha256 = Sha256::of(content);
    PutBlob {
        claimed: Some(sha256),
        sha256: HashToCome::known(sha256),
        size: Some(content.len().try_into().unwrap()),
        media_type: "text/plain".to_owned(),
        token: None,
        body: stream::iter(pieces(content)).boxed(),
        too_slow: CancellationToken::new(),
        within: WITHIN,
    }
}

/// The same, of which the sender knows nothing before the end.
fn unknown(content: &[u8]) -> PutBlob {
    PutBlob { claimed: None, size: None, ..blob(content) }
}

/// The same, which the sender gives up before its last piece.
fn broken(content: &[u8], size: Option<u64>) -> PutBlob {
    let mut pieces = pieces(content);
    *pieces.last_mut().unwrap() = Err(BodyBroken("another hash".to_owned()));
    PutBlob { size, sha256: HashToCome::default(), body: stream::iter(pieces).boxed(), ..blob(content) }
}

async fn put(upstream: &Upstream, blob: PutBlob) -> Result<Accepted, UpstreamError> {
    within_deadline("an upload", upstream.put(blob)).await
}

async fn read(reader: BlobReader) -> Result<Vec<u8>, UpstreamError> {
    let mut bytes = reader.bytes;
    let mut all = Vec::new();
    while let Some(piece) = within_deadline("a piece", bytes.next()).await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

async fn get(upstream: &Upstream, sha256: &Sha256, range: Option<Range<u64>>) -> Vec<u8> {
    read(upstream.get(sha256, range).await.unwrap().unwrap()).await.unwrap()
}

/// Lets this time pass for the circuit breakers.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn bl_02_12_every_success_is_taken_and_the_hash_has_to_be_ours() {
    let text = content(1, 5_000);
    let (server, good) = one(Character::Good).await;
    assert!(put(&good, blob(&text)).await.unwrap().is_new);
    let again = put(&good, unknown(&text)).await.unwrap();
    assert!(!again.is_new && again.descriptor.unwrap().size == Some(5_000));
    assert_eq!(server.completed().len(), 2);

    let (_server, silent) = one(Character::Silent202).await;
    assert_eq!(put(&silent, blob(&text)).await.unwrap().descriptor, None);
    let (_server, old) = one(Character::Old).await;
    assert!(put(&old, blob(&text)).await.is_ok());
    assert_eq!((good.stats().uploads_success, silent.stats().uploads_success), (2, 1));
}

#[tokio::test]
async fn bl_px_05_an_answer_with_another_hash_or_without_end_is_the_upstreams_failure() {
    for character in [Character::WrongHash, Character::HugeJson, Character::Broken(500)] {
        let (_server, upstream) = one(character).await;
        let error = put(&upstream, blob(&content(2, 100))).await.unwrap_err();
        assert!(!error.is_clients_fault && error.retry, "{character:?}: {error:?}");
        let stats = upstream.stats();
        assert_eq!((stats.uploads_failure, stats.consecutive_failures), (1, 1), "{character:?}");
        assert!(stats.last_failure.is_some() && stats.last_success.is_none());
    }
}

#[tokio::test]
async fn bl_02_09_a_body_that_the_sender_gives_up_is_never_whole_and_is_not_the_upstreams_failure() {
    let text = content(3, 50_000);
    for size in [Some(50_000), None] {
        let (server, upstream) = one(Character::Good).await;
        for _ in 0..2 * FAILURES_MAX {
            let error = put(&upstream, broken(&text, size)).await.unwrap_err();
            assert!(error.is_broken_off(), "{error:?}");
        }
        assert_eq!((server.completed().len(), server.count()), (0, 0), "{size:?}");
        assert_eq!((upstream.stats().consecutive_failures, upstream.is_healthy()), (0, true));
    }
    // An empty body is whole as soon as the request is sent, so it is not sent before the sender agrees.
    let (server, upstream) = one(Character::Good).await;
    let refused = vec![Err(BodyBroken("another hash".to_owned()))];
    let empty = PutBlob { body: stream::iter(refused).boxed(), ..blob(b"") };
    assert!(put(&upstream, empty).await.unwrap_err().is_broken_off());
    assert_eq!(server.seen().len(), 0);
    assert!(put(&upstream, blob(b"")).await.unwrap().is_new);
}

#[tokio::test]
async fn bl_px_10_a_refusal_is_the_clients_and_leaves_the_upstream_healthy() {
    for status in [401, 402, 403, 413, 415] {
        for character in [Character::Refuses(status), Character::RefusesLate(status)] {
            let (_server, upstream) = one(character).await;
            for _ in 0..2 * FAILURES_MAX {
                let error = put(&upstream, blob(&content(4, 2_000))).await.unwrap_err();
                assert_eq!((error.status, error.is_clients_fault, error.retry), (Some(status), true, false));
            }
            assert_eq!((upstream.stats().consecutive_failures, upstream.is_healthy()), (0, true));
        }
    }
    let (_server, limited) = one(Character::RefusesLate(429)).await;
    let error = put(&limited, blob(b"x")).await.unwrap_err();
    assert!(error.retry && !error.is_clients_fault);
}

#[tokio::test]
async fn an_upstream_that_reads_nothing_is_given_up_by_the_sender_or_the_time_limit() {
    let (_server, upstream) = one(Character::NeverReads).await;
    let zeros = Bytes::from(vec![0; 65_536]);
    let endless = stream::repeat_with(move || Ok(zeros.clone()));
    let large = PutBlob { size: None, body: endless.boxed(), ..blob(b"") };
    let too_slow = large.too_slow.clone();
    let (ended, ()) = tokio::join!(put(&upstream, large), async { too_slow.cancel() });
    assert_eq!(ended.unwrap_err().reason, "too slow");
    let (_server, mute) = one(Character::NeverAnswers).await;
    let short = PutBlob { within: Duration::from_millis(200), ..blob(b"text") };
    let error = put(&mute, short).await.unwrap_err();
    assert!(error.status.is_none() && error.retry, "{error:?}");
    assert_eq!((upstream.stats().consecutive_failures, mute.stats().consecutive_failures), (1, 1));
}

#[tokio::test]
async fn bl_px_10_failures_open_the_circuit_and_a_probe_without_clients_closes_it() {
    let server = Server::start(Character::Broken(503)).await;
    let upstreams = before(&[&server]);
    let upstream = &upstreams.list()[0];
    let sha256 = Sha256::of(b"blob");
    for _ in 0..FAILURES_MAX {
        assert!(upstream.is_available());
        assert_eq!(upstream.head(&sha256).await.unwrap_err().status, Some(503));
    }
    assert!(!upstream.is_available() && !upstream.is_healthy());
    let asked = server.seen().len();
    assert!(upstream.head(&sha256).await.unwrap_err().retry);
    upstreams.probe().await;
    assert_eq!(server.seen().len(), asked, "nothing is sent while it rests");

    // A probe that fails makes the next pause longer.
    pass(Duration::from_secs(6)).await;
    upstreams.probe().await;
    assert_eq!(server.seen().len(), asked + 1);
    server.be(Character::Good);
    pass(Duration::from_secs(6)).await;
    upstreams.probe().await;
    assert!(!upstream.is_healthy());
    pass(Duration::from_secs(6)).await;
    upstreams.probe().await;
    assert!(upstream.is_healthy() && upstream.is_available());
    assert_eq!(upstream.head(&sha256).await.unwrap(), None);
}

#[tokio::test]
async fn what_an_upstream_says_of_a_blob_is_read_by_its_status() {
    let text = content(5, 3_000);
    let (server, upstream) = one(Character::Good).await;
    let sha256: Sha256 = server.keep(&text, "image/png").parse().unwrap();
    let facts = upstream.head(&sha256).await.unwrap().unwrap();
    assert_eq!(
        (facts.size, facts.media_type.as_deref(), facts.allows_pages),
        (Some(3_000), Some("image/png"), true)
    );
    assert_eq!(upstream.head(&Sha256::of(b"absent")).await.unwrap(), None);
    assert!(upstream.stats().latency.is_some());
    server.be(Character::FakeNotFound);
    assert_eq!(upstream.head(&Sha256::of(b"absent")).await.unwrap(), None);
    assert!(upstream.get(&Sha256::of(b"absent"), None).await.unwrap().is_none());
    assert!(upstream.head(&sha256).await.unwrap().is_some());
    server.be(Character::RedirectLoop);
    assert!(upstream.head(&sha256).await.is_err());
    assert_eq!(upstream.stats().consecutive_failures, 1);
}

#[tokio::test]
async fn a_range_is_the_asked_part_also_of_a_server_that_knows_no_ranges() {
    let text = content(6, 300_000);
    for character in [Character::Good, Character::Old] {
        let (server, upstream) = one(character).await;
        let sha256: Sha256 = server.keep(&text, "text/plain").parse().unwrap();
        assert_eq!(get(&upstream, &sha256, None).await, text);
        for range in [0..1, 0..300_000, 70_000..200_001, 299_999..300_000] {
            let part = &text[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            let reader = upstream.get(&sha256, Some(range.clone())).await.unwrap().unwrap();
            assert_eq!(reader.size, Some(300_000), "{character:?} {range:?}");
            assert_eq!(read(reader).await.unwrap(), part, "{character:?} {range:?}");
        }
    }
}

#[tokio::test]
async fn bl_01_26_other_bytes_are_never_whole_and_count_against_the_upstream() {
    let text = content(7, 100_000);
    let (server, upstream) = one(Character::Good).await;
    let sha256: Sha256 = server.keep(&text, "text/plain").parse().unwrap();
    let open = async || upstream.get(&sha256, None).await.unwrap().unwrap().verified(sha256);
    assert_eq!(read(open().await).await.unwrap(), text);
    server.be(Character::OtherBytes);
    let reader = open().await;
    let mut received = 0;
    let mut bytes = reader.bytes;
    let error = loop {
        match bytes.next().await.expect("it ends with an error") {
            Ok(piece) => received += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(received < text.len() && error.reason.contains("other bytes"), "{received} {error:?}");
    assert_eq!(upstream.stats().consecutive_failures, 1);
    server.be(Character::HalfBody);
    assert!(read(open().await).await.is_err());
    assert_eq!(upstream.stats().consecutive_failures, 2);
}

#[tokio::test]
async fn a_reader_that_wants_no_more_says_nothing_about_the_upstream() {
    let (server, upstream) = one(Character::Good).await;
    let sha256: Sha256 = server.keep(&content(8, 1_000_000), "text/plain").parse().unwrap();
    for _ in 0..2 * FAILURES_MAX {
        let mut reader = upstream.get(&sha256, None).await.unwrap().unwrap();
        drop(reader.bytes.next().await);
    }
    assert_eq!((upstream.stats().consecutive_failures, upstream.is_healthy()), (0, true));
}

#[tokio::test]
async fn deletions_mirrors_lists_and_preflights_reach_the_server() {
    let text = content(9, 2_000);
    let (source, copy) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let upstreams = before(&[&source, &copy]);
    let [from, to] = upstreams.list() else { panic!("two") };
    let sha256: Sha256 = source.keep(&text, "text/plain").parse().unwrap();
    let token = Secret::new("Nostr abc");

    let url = from.public_url(&sha256, "txt").unwrap();
    assert_eq!(url.as_str(), format!("{}/{sha256}.txt", source.url()));
    assert!(to.mirror(&sha256, url.as_str(), Some(&token), WITHIN).await.unwrap().is_new);
    assert!(copy.has(&sha256.to_string()));
    let wrong = to.mirror(&Sha256::of(b"other"), url.as_str(), None, WITHIN).await;
    assert!(wrong.unwrap_err().reason.contains("another hash"));

    let listed = to.blobs_of(&[7; 32], None).await.unwrap();
    assert_eq!(listed.iter().map(|blob| blob.sha256).collect::<Vec<_>>(), [sha256]);
    let announced =
        Announced { sha256, size: Some(1), media_type: None, token: Some(&token), is_media: false };
    assert_eq!(to.preflight(announced).await.unwrap(), Preflight::Welcome);
    copy.be(Character::Old);
    assert_eq!(to.preflight(announced).await.unwrap(), Preflight::Unknown);
    copy.be(Character::Refuses(413));
    assert_eq!(to.preflight(announced).await.unwrap_err().status, Some(413));

    assert_eq!(to.delete(&sha256, Some(&token)).await.unwrap(), Deleted::Done);
    assert_eq!(to.delete(&sha256, Some(&token)).await.unwrap(), Deleted::Absent);
    let deletes = copy.seen().into_iter().filter(|seen| seen.method == "DELETE");
    assert!(deletes.into_iter().all(|seen| seen.authorization.as_deref() == Some("Nostr abc")));
    copy.be(Character::HugeJson);
    assert!(to.blobs_of(&[7; 32], None).await.unwrap_err().reason.contains("too long"));
    let stats = to.stats();
    assert_eq!((stats.mirrors_success, stats.mirrors_failure, stats.deletes_success), (1, 1, 2));
    assert_eq!((stats.lists_success, stats.lists_failure), (1, 1));
}

#[tokio::test]
async fn an_alternative_address_is_dialled_and_tokens_name_the_host_that_clients_know() {
    let server = Server::start(Character::Good).await;
    let settings = BlossomUpstream {
        alternative_address: Some(server.url()),
        sign: true,
        ..upstream("https://blobs.example.com/")
    };
    let keys = UpstreamKeys { signer: Some(Secret::new("11".repeat(32))), objects: None };
    let upstreams = open(|blossom| blossom.upstreams = vec![settings], &keys);
    let upstream = &upstreams.list()[0];
    assert_eq!(upstream.name(), "https://blobs.example.com");
    let text = content(10, 100);
    let sha256 = Sha256::of(&text);
    assert_eq!(
        upstream.public_url(&sha256, "bin").unwrap().as_str(),
        format!("https://blobs.example.com/{sha256}.bin")
    );
    let now = SystemClock.now().timestamp();
    let client = Token::parse(&User::new(1).token("upload", &[&sha256.to_string()])).unwrap();
    let shown = upstreams.credential(upstream, Some(&client), Verb::Upload, Some(sha256), now);
    let Credential::Token(token) = shown else { panic!("{shown:?}") };
    assert_ne!(Token::parse(token.expose()).unwrap().pubkey(), client.pubkey());
    put(upstream, PutBlob { token: Some(token.clone()), ..blob(&text) }).await.unwrap();
    assert_eq!(server.seen()[0].authorization.as_deref(), Some(token.expose()));
}

#[tokio::test]
async fn one_that_fails_is_avoided_at_once() {
    let (bad, good) = (Server::start(Character::Broken(500)).await, Server::start(Character::Good).await);
    let upstreams = before(&[&bad, &good]);
    let (bad_url, good_url) = (bad.url(), good.url());
    let names = [bad_url.as_str(), good_url.as_str(), "https://gone.example.com"];
    assert_eq!(upstreams.choose(Strategy::RoundRobin, names).len(), 2);
    for _ in 0..FAILURES_MAX {
        assert!(upstreams.list()[0].head(&Sha256::MIN).await.is_err());
    }
    for strategy in Strategy::ALL {
        for _ in 0..8 {
            let chosen = upstreams.choose(*strategy, names);
            assert_eq!((chosen[0].name(), chosen[1].name()), (good_url.as_str(), bad_url.as_str()));
        }
    }
}

#[tokio::test]
async fn the_built_in_store_keeps_whole_blobs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("blobs");
    let upstreams = open(|settings| settings.folder = Some(root.clone()), &UpstreamKeys::default());
    let store = &upstreams.list()[0];
    assert!(store.is_store() && store.name().starts_with("file:///") && !store.name().ends_with('/'));
    assert!(upstreams.named(store.name()).is_some());
    let text = content(11, 3_000_000);
    let sha256 = Sha256::of(&text);
    assert_eq!(store.public_url(&sha256, "bin"), None);

    assert!(put(store, broken(&text, None)).await.unwrap_err().is_broken_off());
    let short = PutBlob { size: Some(3_000_001), ..blob(&text) };
    assert!(put(store, short).await.unwrap_err().is_broken_off());
    assert_eq!(store.head(&sha256).await.unwrap(), None);
    assert!(store.get(&sha256, None).await.unwrap().is_none());
    assert!(store.is_healthy() && store.stats().consecutive_failures == 0);

    put(store, unknown(&text)).await.unwrap();
    assert_eq!(store.head(&sha256).await.unwrap().unwrap().size, Some(3_000_000));
    assert_eq!(get(store, &sha256, None).await, text);
    assert_eq!(get(store, &sha256, Some(1_000_000..2_500_000)).await, &text[1_000_000..2_500_000]);
    put(store, blob(b"")).await.unwrap();
    assert_eq!(get(store, &Sha256::of(b""), None).await, b"");
    assert_eq!(upstreams.sweep(SystemTime::UNIX_EPOCH).await.unwrap(), 0);

    // The same folder, named as an upstream, is the same place.
    let named = open(|settings| settings.upstreams = vec![upstream(store.name())], &UpstreamKeys::default());
    assert_eq!(named.list()[0].name(), store.name());
    assert_eq!(get(&named.list()[0], &sha256, None).await.len(), text.len());
    assert_eq!(store.delete(&sha256, None).await.unwrap(), Deleted::Done);
    assert_eq!(store.delete(&sha256, None).await.unwrap(), Deleted::Absent);
    assert!(store.mirror(&sha256, "http://x", None, WITHIN).await.is_err());
}

#[tokio::test]
async fn a_bucket_keeps_whole_blobs_alone() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("bucket")).unwrap();
    let (address, _server) = bucket::serve(data.path()).await;
    let settings =
        BlossomUpstream { s3_endpoint: Some(format!("http://{address}")), ..upstream("s3://bucket/blobs") };
    let objects = ObjectKeys {
        access_key: Secret::new(bucket::ACCESS_KEY),
        secret_key: Secret::new(bucket::SECRET_KEY),
    };
    let keys = UpstreamKeys { signer: None, objects: Some(objects) };
    let upstreams = open(|blossom| blossom.upstreams = vec![settings], &keys);
    let store = &upstreams.list()[0];
    assert!(store.is_store() && store.name() == "s3://bucket/blobs");
    // More than one part of a multipart upload.
    let text = content(13, 11_000_000);
    let sha256 = Sha256::of(&text);
    assert!(put(store, broken(&text, None)).await.unwrap_err().is_broken_off());
    assert_eq!(store.head(&sha256).await.unwrap(), None);
    let within = Duration::from_mins(1);
    put(store, PutBlob { within, ..unknown(&text) }).await.unwrap();
    let hash = sha256.to_string();
    assert!(data.path().join("bucket/blobs").join(&hash[..2]).join(&hash).exists());
    assert_eq!(store.head(&sha256).await.unwrap().unwrap().size, Some(11_000_000));
    assert_eq!(get(store, &sha256, Some(6_000_000..6_000_100)).await, &text[6_000_000..6_000_100]);
    assert!(get(store, &sha256, None).await == text);
    assert_eq!(store.delete(&sha256, None).await.unwrap(), Deleted::Done);
    assert_eq!(store.delete(&sha256, None).await.unwrap(), Deleted::Absent);
}

#[tokio::test]
async fn bl_04_07_private_servers_are_read_only_if_the_settings_name_them() {
    let (own, stranger) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let text = content(12, 4_000);
    let hash = own.keep(&text, "text/plain");
    stranger.keep(&text, "text/plain");
    let at = |server: &Server| format!("{}/{hash}", server.url()).parse().unwrap();
    let upstreams = before(&[&own]);
    assert!(upstreams.look(&at(&own)).await.unwrap().is_some());
    let refused = upstreams.fetch(&at(&stranger), 10_000).await.unwrap_err();
    assert!(refused.reason.contains("private address"), "{refused:?}");
    assert!(upstreams.look(&at(&stranger)).await.is_err());
    assert_eq!(stranger.seen().len(), 0);

    let allowed = open(
        |settings| {
            settings.upstreams = vec![upstream(&own.url())];
            settings.private_origins = vec![stranger.url()];
        },
        &UpstreamKeys::default(),
    );
    let reader = allowed.fetch(&at(&stranger), 4_000).await.unwrap().unwrap();
    assert_eq!(read(reader).await.unwrap(), text);
    assert_eq!(allowed.fetch(&at(&stranger), 3_999).await.unwrap_err().status, Some(413));
    stranger.be(Character::HugeJson);
    let endless = allowed.fetch(&at(&stranger), 1_000_000).await.unwrap().unwrap();
    assert_eq!(read(endless).await.unwrap_err().status, Some(413));
    stranger.be(Character::RedirectLoop);
    assert!(allowed.fetch(&at(&stranger), 4_000).await.is_err());
}
