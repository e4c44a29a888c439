//! Downloads: what is served, where clients are redirected to, and what happens when a copy is not what it should be.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use quipu::config::RedirectStrategy;
use quipu::services::blossom::command::BlobCommand;

use super::client_kit::{Answer, User, content, eventually, fetch, sha256};
use super::kit::{Room, become_states, upstream};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and more";

async fn stored(room: &Room, content: &[u8], media_type: &str) -> String {
    let answer = User::new(1).upload(room.address, content, media_type).await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    sha256(content)
}

/// Waits until downloads are redirected, and returns where to.
async fn redirected(room: &Room, sha256: &str) -> String {
    let mut location = None;
    eventually("a redirect", async || {
        let answer = room.get(&format!("/{sha256}")).await;
        location = answer.header("location");
        answer.status == 307
    })
    .await;
    location.unwrap()
}

async fn get_with(room: &Room, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    fetch(method, &room.url(path), headers, b"").await
}

/// BL-01.9, BL-01.10, BL-01.11, BL-01.18, BL-01.19, BL-01.24
#[tokio::test]
async fn bl_01_09_to_11_18_19_and_24_a_blob_is_served_under_its_hash_with_any_extension() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let hash = stored(&room, PNG, "image/png").await;
    for name in [hash.clone(), format!("{hash}.png"), format!("{hash}.mp4"), hash.to_uppercase()] {
        let answer = room.get(&format!("/{name}")).await;
        assert_eq!((answer.status, &*answer.body), (200, PNG), "{name}");
        let head = room.head(&format!("/{name}")).await;
        assert_eq!((head.status, &*head.body), (200, &b""[..]), "{name}");
        for field in ["content-type", "content-length", "etag", "cache-control", "accept-ranges"] {
            assert_eq!(answer.header(field), head.header(field), "{name} {field}");
        }
        assert_eq!(answer.header("content-type").unwrap(), "image/png");
        assert_eq!(answer.header("content-length").unwrap(), PNG.len().to_string());
        assert_eq!(answer.header("etag").unwrap(), format!("\"{hash}\""));
        assert_eq!(answer.header("cache-control").unwrap(), "public, max-age=31536000, immutable");
        assert!(answer.header("content-security-policy").unwrap().contains("sandbox"), "a page of ours");
    }
    let tag = format!("\"other\", W/\"{hash}\"");
    for method in ["GET", "HEAD"] {
        let cached = get_with(&room, method, &format!("/{hash}"), &[("if-none-match", &tag)]).await;
        assert_eq!((cached.status, cached.body.len()), (304, 0), "{method}");
        let whole = room.get(&format!("/{hash}")).await;
        for field in ["etag", "cache-control", "content-security-policy", "x-content-type-options"] {
            assert!(whole.header(field).is_some(), "{field}");
            assert_eq!(cached.header(field), whole.header(field), "{method} {field}");
        }
    }
    // A client that accepts codings gets the bytes as they are.
    let plain = get_with(&room, "GET", &format!("/{hash}"), &[("accept-encoding", "gzip, br")]).await;
    assert_eq!((&*plain.body, plain.header("content-encoding")), (PNG, None));
}

/// BL-01.12
#[tokio::test]
async fn bl_01_12_a_malformed_name_is_400_and_an_unknown_hash_404() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let hash = sha256(b"nowhere");
    for name in
        ["x", "favicon.ico", &hash[1..], &format!("{hash}0"), &format!("{hash}."), &format!("{hash}.a/b")]
    {
        let status = room.get(&format!("/{name}")).await.status;
        assert!(status == 400 || (status == 404 && name.contains("/b")), "{name}: {status}");
    }
    for method in ["GET", "HEAD"] {
        let answer = get_with(&room, method, &format!("/{hash}"), &[]).await;
        assert_eq!(answer.refusal(), (404, "no such blob".to_owned()));
    }
    assert_eq!(get_with(&room, "POST", &format!("/{hash}"), &[]).await.status, 405);
}

/// BL-01.21, BL-01.22, BL-01.23
#[tokio::test]
async fn bl_01_21_to_23_ranges_are_cut_to_the_blob() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    // One that is kept in memory, and one that is read from the disk.
    for (seed, size) in [(1, 1_000), (2, 700_000)] {
        let blob = content(seed, size);
        let hash = stored(&room, &blob, "application/octet-stream").await;
        let last = size - 1;
        for (range, part) in [
            ("bytes=0-0".to_owned(), Some(0..1)),
            ("bytes=10-19".to_owned(), Some(10..20)),
            (format!("bytes=10-{}", size * 2), Some(10..size)),
            ("bytes=-5".to_owned(), Some(size - 5..size)),
            (format!("bytes=-{}", size * 2), Some(0..size)),
            (format!("bytes={last}-"), Some(last..size)),
            ("items=0-1".to_owned(), None),
            ("bytes=5-1".to_owned(), None),
            ("bytes=0-1,4-5".to_owned(), None),
        ] {
            let answer = get_with(&room, "GET", &format!("/{hash}"), &[("range", &range)]).await;
            let (status, field) = match &part {
                Some(part) => (206, Some(format!("bytes {}-{}/{size}", part.start, part.end - 1))),
                None => (200, None),
            };
            assert_eq!((answer.status, answer.header("content-range")), (status, field), "{range}");
            assert_eq!(answer.body, blob[part.unwrap_or(0..size)], "{range}");
            assert!(answer.is_whole, "{range}");
            let head = get_with(&room, "HEAD", &format!("/{hash}"), &[("range", &range)]).await;
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some(size.to_string())),
                "{range}"
            );
        }
        for range in [format!("bytes={size}-"), "bytes=-0".to_owned()] {
            let answer = get_with(&room, "GET", &format!("/{hash}"), &[("range", &range)]).await;
            assert_eq!(answer.status, 416, "{range}");
            assert_eq!(answer.header("content-range").unwrap(), format!("bytes */{size}"), "{range}");
        }
        let own = format!("\"{hash}\"");
        for (validator, status) in [(&*own, 206), ("\"other\"", 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)]
        {
            let fields = [("range", "bytes=0-0"), ("if-range", validator)];
            assert_eq!(
                get_with(&room, "GET", &format!("/{hash}"), &fields).await.status,
                status,
                "{validator}"
            );
        }
    }
    let empty = stored(&room, b"", "text/plain").await;
    let answer = room.get(&format!("/{empty}")).await;
    assert_eq!((answer.status, answer.header("content-length").unwrap().as_str()), (200, "0"));
    let part = get_with(&room, "GET", &format!("/{empty}"), &[("range", "bytes=0-0")]).await;
    assert_eq!((part.status, part.header("content-range").unwrap().as_str()), (416, "bytes */0"));
}

/// BL-01.15, BL-01.17, BL-01.20
#[tokio::test]
async fn bl_01_15_17_and_20_downloads_are_redirected_in_turn_to_copies_that_can_be_read() {
    let database = TestDatabase::new().await;
    let (one, two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before(&database, &[&one, &two]).await;
    let blob = content(1, 5_000);
    let hash = stored(&room, &blob, "image/png").await;
    become_states(&database, &hash, &[&one, &two], &["readable", "readable"]).await;
    let mut places = Vec::new();
    for _ in 0..4 {
        let answer = room.get(&format!("/{hash}.png")).await;
        assert_eq!(answer.status, 307, "{:?}", answer.refusal());
        places.push(answer.header("location").unwrap());
    }
    let of = |server: &Server| format!("{}/{hash}.png", server.url());
    places.sort();
    let mut expected = vec![of(&one), of(&one), of(&two), of(&two)];
    expected.sort();
    assert_eq!(places, expected);
    let head = room.head(&format!("/{hash}")).await;
    assert_eq!((head.status, head.header("content-length").unwrap()), (200, "5000".to_owned()));
    let followed = fetch("GET", &places[0], &[], b"").await;
    assert_eq!(followed.body, blob);
    // Known copies are not asked for again.
    let asked = one.asked("HEAD", &format!("/{hash}"));
    assert_eq!(room.get(&format!("/{hash}")).await.status, 307);
    assert_eq!(one.asked("HEAD", &format!("/{hash}")), asked);
}

#[tokio::test]
async fn an_upstream_that_took_a_blob_gets_downloads_only_when_it_can_be_read_there() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::NotYetReadable(4)).await;
    let room = Room::before(&database, &[&server]).await;
    let hash = stored(&room, &content(1, 100), "image/png").await;
    eventually("a redirect", async || {
        let answer = room.get(&format!("/{hash}")).await;
        assert!(matches!(answer.status, 307 | 503), "{:?}", answer.refusal());
        let readable = fetch("HEAD", &format!("{}/{hash}", server.url()), &[], b"").await.status == 200;
        assert!(answer.status == 503 || readable, "a redirect to a copy that cannot be read");
        answer.status == 307
    })
    .await;
}

/// BL-01.16
#[tokio::test]
async fn bl_01_16_pages_are_not_sent_to_a_server_that_they_cannot_read() {
    let database = TestDatabase::new().await;
    let (good, old) = (Server::start(Character::Good).await, Server::start(Character::Old).await);
    for (server, status) in [(&good, 307), (&old, 200)] {
        let room = Room::before(&database, &[server]).await;
        let blob = content(u8::try_from(status % 256).unwrap(), 3_000);
        let hash = stored(&room, &blob, "image/png").await;
        assert!(redirected(&room, &hash).await.starts_with(&server.url()));
        let page = get_with(&room, "GET", &format!("/{hash}"), &[("origin", "https://page.example")]).await;
        assert_eq!(page.status, status);
        if status == 200 {
            assert_eq!(page.body, blob);
            let fields = [("origin", "https://page.example"), ("range", "bytes=10-19")];
            let part = get_with(&room, "GET", &format!("/{hash}"), &fields).await;
            assert_eq!(
                (part.status, &part.body[..]),
                (206, &blob[10..20]),
                "ranges of a server without ranges"
            );
        }
    }
}

/// BL-01.26
#[tokio::test]
async fn bl_01_26_a_copy_is_checked_while_it_is_streamed_and_other_bytes_break_off() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before_with(&database, &[&server], |settings| {
        settings.redirect_strategy = RedirectStrategy::Local;
    })
    .await;
    let blob = content(1, 3_000_000);
    let hash = stored(&room, &blob, "video/mp4").await;
    become_states(&database, &hash, &[&server], &["readable"]).await;
    let answer = room.get(&format!("/{hash}")).await;
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (200, blob.len(), true));
    assert_eq!(answer.body, blob);
    server.be(Character::OtherBytes);
    let answer = room.get(&format!("/{hash}")).await;
    assert_eq!((answer.status, answer.is_whole), (200, false), "{} bytes", answer.body.len());
    become_states(&database, &hash, &[&server], &["lost"]).await;
}

#[tokio::test]
async fn another_copy_is_streamed_when_one_cannot_be_read() {
    let database = TestDatabase::new().await;
    let (mut one, two) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::before_with(&database, &[&one, &two], |settings| {
        settings.redirect_strategy = RedirectStrategy::Local;
    })
    .await;
    let blob = content(1, 50_000);
    let hash = stored(&room, &blob, "video/mp4").await;
    become_states(&database, &hash, &[&one, &two], &["readable", "readable"]).await;
    one.stop().await;
    for _ in 0..6 {
        let answer = room.get(&format!("/{hash}")).await;
        assert_eq!((answer.status, &answer.body), (200, &blob));
    }
}

/// BL-PX.10
#[tokio::test]
async fn a_blob_that_is_not_known_is_searched_once_for_all_that_ask() {
    let database = TestDatabase::new().await;
    let (one, two) = (Server::start(Character::Good).await, Server::start(Character::FakeNotFound).await);
    let room = Room::before(&database, &[&one, &two]).await;
    let hash = one.keep(&content(1, 100), "image/png");
    let path = format!("/{hash}");
    for answer in join_all((0..20).map(|_| room.get(&path))).await {
        assert_eq!(answer.status, 307, "{:?}", answer.refusal());
        assert!(answer.header("location").unwrap().starts_with(&one.url()));
    }
    assert_eq!((one.asked("HEAD", &path), two.asked("HEAD", &path)), (1, 1));
    let head = room.head(&path).await;
    assert_eq!((head.status, head.header("content-length").unwrap().as_str()), (200, "100"));

    let absent = format!("/{}", sha256(b"nowhere"));
    for answer in join_all((0..20).map(|_| room.get(&absent))).await {
        assert_eq!(answer.status, 404);
    }
    assert_eq!((one.asked("HEAD", &absent), two.asked("HEAD", &absent)), (1, 1));
}

#[tokio::test]
async fn look_ups_of_unknown_blobs_are_limited_by_address() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before_with(&database, &[&server], |settings| settings.lookups_per_minute = 5).await;
    let mut statuses = Vec::new();
    for number in 0..7_u8 {
        statuses.push(room.get(&format!("/{}", sha256(&[number]))).await.status);
    }
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429, 429]);
    let hash = stored(&room, PNG, "image/png").await;
    assert!(redirected(&room, &hash).await.contains(&hash), "a known blob is not limited");
}

/// BL-01.12
#[tokio::test]
async fn bl_01_12_no_upstream_that_answers_is_503_and_not_absence() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(Character::Good).await;
    let room = Room::before(&database, &[&server]).await;
    server.stop().await;
    let answer = room.get(&format!("/{}", sha256(b"perhaps"))).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
}

/// BL-10.2, BL-10.4
#[tokio::test]
async fn bl_10_04_a_server_that_the_client_names_is_asked_last_and_its_bytes_are_checked() {
    let database = TestDatabase::new().await;
    let (own, other) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let blob = content(1, 10_000);
    let hash = other.keep(&blob, "image/png");
    let named = format!("/{hash}?xs=127.0.0.1%3A9&xs={}", other.url().replace("://", "%3A%2F%2F"));
    let room = Room::before(&database, &[&own]).await;
    assert_eq!(room.get(&named).await.status, 404, "a private address that no operator has named");
    assert_eq!(other.seen().len(), 0);
    drop(room);

    let room = Room::before_with(&database, &[&own], |settings| {
        settings.private_origins = vec![other.url()];
    })
    .await;
    let answer = room.get(&named).await;
    assert_eq!((answer.status, &answer.body), (200, &blob), "{:?}", answer.refusal());
    assert_eq!(answer.header("content-type").unwrap(), "image/png");
    let head = room.head(&named).await;
    assert_eq!((head.status, head.header("content-length").unwrap()), (200, blob.len().to_string()));
    assert!(!own.has(&hash), "it is not kept");
    other.be(Character::OtherBytes);
    let answer = room.get(&named).await;
    assert!(answer.status != 200 || !answer.is_whole, "other bytes");
}

/// BL-11.1, BL-11.10, BL-11.13
#[tokio::test]
async fn bl_11_01_10_and_13_downloads_may_need_a_token_that_names_the_blob_or_none() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.get_needs_token = true).await;
    let hash = stored(&room, PNG, "image/png").await;
    let user = User::new(2);
    let other = sha256(b"other");
    for (token, status) in [
        (None, 401),
        (Some(user.token("get", &[])), 200),
        (Some(user.token("get", &[&other, &hash])), 200),
        (Some(user.token("get", &[&other])), 401),
        (Some(user.token("upload", &[&hash])), 401),
        (Some(user.token_with("get", -1, &[])), 401),
        (Some("Nostr nonsense".to_owned()), 401),
    ] {
        let headers: Vec<_> = token.iter().map(|token| ("authorization", &**token)).collect();
        for method in ["GET", "HEAD"] {
            let answer = get_with(&room, method, &format!("/{hash}"), &headers).await;
            assert_eq!(answer.status, status, "{token:?} {:?}", answer.refusal());
            if status == 200 {
                assert_eq!(answer.header("cache-control").unwrap(), "private, max-age=31536000, immutable");
            }
        }
    }
}

#[tokio::test]
async fn what_another_process_commits_is_seen_at_once() {
    let database = TestDatabase::new().await;
    let one = Room::on(&database).await;
    let folder = one.folder.path().join("blobs");
    let two = Room::with(&database, |settings| settings.folder = Some(folder)).await;
    let blob = content(1, 1_000);
    let path = format!("/{}", sha256(&blob));
    assert_eq!((one.get(&path).await.status, two.get(&path).await.status), (404, 404));
    stored(&one, &blob, "image/png").await;
    let begun = Instant::now();
    eventually("the upload is seen", async || two.get(&path).await.status == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(User::new(1).delete(one.address, &sha256(&blob)).await.status, 200);
    assert_eq!(one.get(&path).await.status, 404);
    eventually("the deletion is seen", async || two.get(&path).await.status == 404).await;
}

#[tokio::test]
async fn a_banned_blob_is_403_at_once() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let hash = stored(&room, PNG, "image/png").await;
    assert_eq!(room.get(&format!("/{hash}")).await.status, 200);
    let sha256 = hash.parse().unwrap();
    let ban = BlobCommand::Ban { sha256, why: "not lawful".to_owned(), actor: "local".to_owned() };
    room.started.journal.append(ban).await.unwrap();
    for method in ["GET", "HEAD"] {
        let answer = get_with(&room, method, &format!("/{hash}"), &[]).await;
        assert_eq!(answer.refusal(), (403, "this blob is not served here: not lawful".to_owned()));
    }
    let again = User::new(1).upload(room.address, PNG, "image/png").await;
    assert_eq!(again.status, 403);
    room.started.journal.append(BlobCommand::Unban { sha256, actor: "local".to_owned() }).await.unwrap();
    assert_eq!(room.get(&format!("/{hash}")).await.status, 200);
}

#[tokio::test]
async fn an_upstream_with_a_priority_is_preferred_while_it_works() {
    let database = TestDatabase::new().await;
    let (mut first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let room = Room::with(&database, |settings| {
        settings.upstreams = vec![upstream(&second.url()), upstream(&first.url())];
        settings.upstreams[0].priority = 2;
        settings.upstreams[1].priority = 1;
        settings.redirect_strategy = RedirectStrategy::Priority;
        settings.failures_max = std::num::NonZeroU32::MIN;
    })
    .await;
    let hash = stored(&room, &content(1, 5_000), "image/png").await;
    become_states(&database, &hash, &[&first, &second], &["readable", "readable"]).await;
    for _ in 0..3 {
        assert!(redirected(&room, &hash).await.starts_with(&first.url()));
    }
    first.stop().await;
    // Any request that fails tells.
    room.get(&format!("/{}", sha256(b"unknown"))).await;
    assert!(redirected(&room, &hash).await.starts_with(&second.url()));
}
