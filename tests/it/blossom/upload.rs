//! `PUT /upload` (BUD-02) to the built-in store: what is stored, what is answered, what is refused.

use std::num::{NonZeroU32, NonZeroU64};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client_kit::{
    Answer, User, begin, content, eventually, fetch, read_answer, sha256, within_deadline,
};
use super::kit::{Room, history, number, problems};
use crate::support::database::TestDatabase;

/// The value of a tag of NIP-94.
fn tag(descriptor: &Value, name: &str) -> Option<String> {
    let tags = descriptor["nip94"].as_array()?;
    tags.iter().find(|tag| tag[0] == name)?[1].as_str().map(str::to_owned)
}

/// Sends a body in chunks.
async fn upload_chunked(room: &Room, headers: &[(&str, &str)], chunks: &[&[u8]], is_ended: bool) -> Answer {
    let mut all = headers.to_vec();
    all.push(("transfer-encoding", "chunked"));
    let mut stream = begin("PUT", &room.url("/upload"), &all).await;
    for chunk in chunks {
        let head = format!("{:x}\r\n", chunk.len());
        let _ = stream.write_all(&[head.as_bytes(), chunk, b"\r\n"].concat()).await;
    }
    if is_ended {
        let _ = stream.write_all(b"0\r\n\r\n").await;
    } else {
        let _ = stream.shutdown().await;
    }
    within_deadline("an answer", read_answer(stream, "PUT")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_1_to_4_7_and_13_a_blob_is_stored_unchanged_and_described_bl_08_1_and_2_with_its_tags() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (alice, bob) = (User::new(1), User::new(2));
    for bytes in [0, 1, 100_000, 3_000_001] {
        let body = content(7, bytes);
        let hash = sha256(&body);
        let new = alice.upload(room.address, &body, "image/png").await;
        assert_eq!(new.status, 201, "{:?}", new.refusal());
        assert_eq!(new.header("content-type").as_deref(), Some("application/json"), "BL-02.13");
        let descriptor = new.json();
        assert_eq!(descriptor["sha256"], hash);
        assert_eq!(descriptor["size"], bytes);
        assert_eq!(descriptor["type"], "image/png");
        assert_eq!(descriptor["url"], room.url(&format!("/{hash}.png")));
        let uploaded = descriptor["uploaded"].as_i64().unwrap();
        // BL-08.1, BL-08.2.
        assert_eq!(tag(&descriptor, "url").as_deref(), descriptor["url"].as_str());
        assert_eq!(tag(&descriptor, "x").as_deref(), Some(&*hash));
        assert_eq!(tag(&descriptor, "m").as_deref(), Some("image/png"));
        assert_eq!(tag(&descriptor, "size"), Some(bytes.to_string()));

        let known = alice.upload(room.address, &body, "text/plain").await;
        assert_eq!(known.status, 200, "BL-02.2");
        assert_eq!(known.json()["uploaded"], uploaded, "BL-02.4");
        assert_eq!(known.json()["type"], "image/png", "the type of a known blob does not change");
        assert_eq!(bob.upload(room.address, &body, "image/png").await.status, 201, "a further owner");

        let got = room.get(&format!("/{hash}")).await;
        assert_eq!(got.status, 200, "BL-01.9");
        assert!(got.body == body, "BL-01.9");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 4);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 8);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_1_chunks_are_joined_and_a_content_encoding_is_not_decoded() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let alice = User::new(1);
    let body = content(3, 400_000);
    let token = alice.token("upload", &[&sha256(&body)]);
    let headers = [("authorization", &*token), ("content-encoding", "gzip")];
    let (first, second) = body.split_at(123_456);
    let answer = upload_chunked(&room, &headers, &[first, second], true).await;
    assert_eq!((answer.status, &answer.json()["sha256"]), (201, &Value::from(sha256(&body))));
    let got = room.get(&format!("/{}", sha256(&body))).await;
    assert!(got.body == body && got.header("content-encoding").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_3_and_10_types_are_sniffed_if_missing_and_parameters_are_dropped() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let alice = User::new(1);
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &content(1, 100)].concat();
    for (body, stated, media_type, extension) in [
        (content(2, 10), None, "application/octet-stream", ".bin"),
        (png, None, "image/png", ".png"),
        (content(3, 10), Some("Text/Plain; charset=utf-8"), "text/plain", ".txt"),
    ] {
        let token = alice.token("upload", &[&sha256(&body)]);
        let mut headers = vec![("authorization", &*token)];
        headers.extend(stated.map(|stated| ("content-type", stated)));
        let answer = fetch("PUT", &room.url("/upload"), &headers, &body).await;
        let descriptor = answer.json();
        assert_eq!(descriptor["type"], media_type, "{:?}", answer.refusal());
        assert!(descriptor["url"].as_str().unwrap().ends_with(extension));
        let got = room.get(&format!("/{}", sha256(&body))).await;
        assert_eq!(got.header("content-type").as_deref(), Some(media_type), "BL-01.11");
    }
    let token = alice.token("upload", &[&sha256(b"x")]);
    let headers = [("authorization", &*token), ("content-type", "nonsense")];
    assert_eq!(fetch("PUT", &room.url("/upload"), &headers, b"x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_5_bl_11_10_to_12_hash_header_token_and_body_have_to_agree() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let alice = User::new(1);
    for bytes in [1_000, 500_000] {
        let body = content(9, bytes);
        let (hash, other) = (sha256(&body), sha256(b"another"));
        let put = async |token: &str, claimed: Option<&str>| {
            let mut headers = vec![("authorization", token)];
            headers.extend(claimed.map(|claimed| ("x-sha-256", claimed)));
            fetch("PUT", &room.url("/upload"), &headers, &body).await.status
        };
        let (right, wrong) = (alice.token("upload", &[&hash]), alice.token("upload", &[&other]));
        assert_eq!(put(&wrong, Some(&other)).await, 409, "BL-02.5");
        assert_eq!(put(&right, Some(&other)).await, 401, "BL-11.12");
        assert_eq!(put(&wrong, None).await, 401, "BL-11.11");
        assert_eq!(put(&alice.token("upload", &[&other, &sha256(b"third")]), None).await, 401, "BL-11.11");
        assert_eq!(put(&alice.token("upload", &[]), Some(&hash)).await, 401, "BL-11.10");
        for malformed in ["abc", &hash.to_uppercase(), &format!("{hash}00")] {
            assert_eq!(put(&right, Some(malformed)).await, 400, "BL-02.5: {malformed}");
        }
        for verb in ["get", "list", "delete", "media"] {
            assert_eq!(put(&alice.token(verb, &[&hash]), Some(&hash)).await, 401, "BL-11.6: {verb}");
        }
        let expired = alice.token_with("upload", -1, &[["x", &hash]]);
        assert_eq!(put(&expired, Some(&hash)).await, 401, "BL-11.5");
        let elsewhere = alice.token_with("upload", 60, &[["x", &hash], ["server", "cdn.example.com"]]);
        assert_eq!(put(&elsewhere, Some(&hash)).await, 401, "BL-11.7");
        assert_eq!(fetch("PUT", &room.url("/upload"), &[], &body).await.status, 401, "BL-11.13");
        assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
        let here = format!("http://127.0.0.1:{}/", room.address.port());
        let scoped = alice.token_with("upload", 60, &[["x", &other], ["x", &hash], ["server", &here]]);
        assert_eq!(put(&scoped, None).await, 201, "BL-11.7, BL-11.9");
        assert_eq!(put(&scoped, Some(&hash)).await, 200, "BL-11.15");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 2, "nothing else was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_6_sizes_types_rates_and_keys_are_limited() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.upload_bytes_max = NonZeroU64::new(200_000).unwrap();
        settings.media_types = vec!["image/*".to_owned()];
        settings.uploads_per_minute = 20;
        settings.allowed_pubkeys = vec![User::new(1).pubkey(), User::new(3).pubkey()];
        settings.key_bytes_max = 150_000;
        settings.key_blobs_max = 2;
    })
    .await;
    let (alice, bob, carol) = (User::new(1), User::new(2), User::new(3));
    let png = |seed, bytes| [b"\x89PNG\r\n\x1a\n".as_slice(), &content(seed, bytes)].concat();

    assert_eq!(bob.upload(room.address, &png(1, 10), "image/png").await.status, 403, "BL-11.13");
    let large = png(1, 200_000);
    // By the head, before the body.
    let token = alice.token("upload", &[&sha256(&large)]);
    let length = large.len().to_string();
    let headers = [("authorization", &*token), ("content-length", &*length)];
    let stream = begin("PUT", &room.url("/upload"), &headers).await;
    assert_eq!(within_deadline("413", read_answer(stream, "PUT")).await.status, 413);
    // While streaming.
    let answer = upload_chunked(&room, &[("authorization", &token)], &[&large], true).await;
    assert_eq!(answer.status, 413);
    let fake = b"<html>".to_vec();
    let refused = alice.upload(room.address, &fake, "image/png").await;
    assert_eq!(refused.status, 415, "{:?}", refused.refusal());

    assert_eq!(alice.upload(room.address, &png(2, 100_000), "image/png").await.status, 201);
    let refused = alice.upload(room.address, &png(3, 100_000), "image/png").await;
    assert_eq!(refused.status, 413, "{:?}", refused.refusal());
    assert_eq!(alice.upload(room.address, &png(2, 100_000), "image/png").await.status, 200, "owned already");
    assert_eq!(alice.upload(room.address, &png(4, 10), "image/png").await.status, 201);
    assert_eq!(alice.upload(room.address, &png(5, 10), "image/png").await.status, 403, "two blobs");

    let mut statuses = Vec::new();
    for _ in 0..25 {
        statuses.push(carol.upload(room.address, &png(6, 10), "image/png").await);
    }
    assert_eq!(statuses[0].status, 201);
    let limited = statuses.iter().find(|answer| answer.status == 429).expect("the rate is limited");
    assert!(limited.header("retry-after").is_some());
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_8_an_expected_continue_is_answered_and_a_refusal_comes_instead() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let body = content(1, 1_000);
    let token = User::new(1).token("upload", &[&sha256(&body)]);
    let headers = [("authorization", &*token), ("content-length", "1000"), ("expect", "100-continue")];
    let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
    let mut interim = [0; 25];
    within_deadline("100", stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body).await.unwrap();
    assert_eq!(within_deadline("201", read_answer(stream, "PUT")).await.status, 201);

    let headers = [("content-length", "1000"), ("expect", "100-continue")];
    let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
    let mut answer = Vec::new();
    within_deadline("401", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_9_a_connection_cut_in_mid_body_leaves_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let alice = User::new(1);
    let body = content(5, 3_000_000);
    let hash = sha256(&body);
    let token = alice.token("upload", &[&hash]);
    let headers = [("authorization", &*token), ("content-length", "3000000"), ("x-sha-256", &hash)];
    for sent in [0, 1, 100_000, 2_999_999] {
        let mut stream = begin("PUT", &room.url("/upload"), &headers).await;
        let _ = stream.write_all(&body[..sent]).await;
        drop(stream);
    }
    // A chunked body without its end.
    let answer = upload_chunked(&room, &[("authorization", &token)], &[&body], false).await;
    assert!(matches!(answer.status, 0 | 400), "{}", answer.status);
    let staging = room.folder.path().join("blobs/staging");
    eventually("no temporary file", async || {
        std::fs::read_dir(&staging).is_ok_and(|mut files| files.next().is_none())
    })
    .await;
    assert_eq!(room.get(&format!("/{hash}")).await.status, 404);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_log").await, 0);
    // The same upload, whole.
    assert_eq!(alice.upload(room.address, &body, "image/png").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_02_12_old_clients_get_200_if_the_operator_says_so_and_no_token_is_needed_either() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.compat_always_200 = true;
        settings.compat_unauthenticated = true;
    })
    .await;
    let body = content(1, 10);
    assert_eq!(fetch("PUT", &room.url("/upload"), &[], &body).await.status, 200);
    assert_eq!(room.get(&format!("/{}", sha256(&body))).await.body, body);
    assert_eq!(User::new(1).upload(room.address, &body, "text/plain").await.status, 200);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 2, "the first has no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_06_1_2_5_and_7_a_preflight_says_what_an_upload_would_be_refused_for() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.upload_bytes_max = NonZeroU64::new(1_000).unwrap();
        settings.media_types = vec!["image/png".to_owned()];
    })
    .await;
    let hash = sha256(b"later");
    let token = User::new(1).token("upload", &[&hash]);
    let media = User::new(1).token("media", &[&hash]);
    let whole = [("x-sha-256", &*hash), ("x-content-length", "5"), ("x-content-type", "image/png")];
    let ask = async |path: &str, token: Option<&str>, change: &[(&str, Option<&str>)]| {
        let mut headers: Vec<(&str, &str)> =
            token.map(|token| ("authorization", token)).into_iter().collect();
        for (name, value) in whole {
            let changed = change.iter().find(|(changed, _)| *changed == name);
            headers.extend(changed.map_or(Some(value), |(_, value)| *value).map(|value| (name, value)));
        }
        let answer = fetch("HEAD", &room.url(path), &headers, b"").await;
        assert!(answer.body.is_empty(), "BL-06.1");
        (answer.status, answer.header("x-reason").is_some())
    };
    assert_eq!(ask("/upload", Some(&token), &[]).await, (200, false));
    assert_eq!(ask("/media", Some(&media), &[]).await, (200, false), "BL-05.4");
    assert_eq!(ask("/upload", None, &[]).await, (401, true), "BL-06.5");
    assert_eq!(ask("/media", Some(&token), &[]).await, (401, true), "BL-05.3");
    assert_eq!(ask("/upload", Some(&token), &[("x-sha-256", None)]).await, (400, true), "BL-06.7");
    assert_eq!(ask("/upload", Some(&token), &[("x-sha-256", Some("zz"))]).await, (400, true));
    assert_eq!(ask("/upload", Some(&token), &[("x-content-length", None)]).await, (411, true));
    assert_eq!(ask("/upload", Some(&token), &[("x-content-length", Some("x"))]).await, (400, true));
    assert_eq!(ask("/upload", Some(&token), &[("x-content-length", Some("1001"))]).await, (413, true));
    assert_eq!(ask("/upload", Some(&token), &[("x-content-type", Some("text/html"))]).await, (415, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_blob_is_refused_before_its_body() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (alice, body) = (User::new(1), content(1, 1_000));
    assert_eq!(alice.upload(room.address, &body, "text/plain").await.status, 201);
    let sha256 = sha256(&body).parse().unwrap();
    let ban = quipu::services::blossom::command::BlobCommand::Ban {
        sha256,
        why: "malware".to_owned(),
        actor: "test".to_owned(),
    };
    room.started.journal.append(ban).await.unwrap();
    let refused = alice.upload(room.address, &body, "text/plain").await;
    assert_eq!(refused.status, 403);
    assert!(refused.refusal().1.contains("malware"));
    // Without a hash in the head, at the end of the body.
    let token = alice.token("upload", &[&sha256.to_string(), &"0".repeat(64)]);
    let refused = fetch("PUT", &room.url("/upload"), &[("authorization", &token)], &body).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_with_one_blob_make_one_blob_with_many_owners() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.upload_timeout_min_s = NonZeroU32::new(30).unwrap();
    })
    .await;
    let body = content(1, 700_000);
    let uploads = (1..=20_u8).map(|number| {
        let (user, body, address) = (User::new(number), &body, room.address);
        async move { user.upload(address, body, "image/png").await.status }
    });
    let statuses = futures_util::future::join_all(uploads).await;
    assert_eq!(statuses, [201; 20]);
    assert_eq!(number(&database, "SELECT count(*) FROM blobs").await, 1);
    assert_eq!(number(&database, "SELECT count(*) FROM blob_owners").await, 20);
    let accepted = history(&database, &sha256(&body), &[]).await;
    assert!(accepted.iter().any(|kind| kind.starts_with("accepted ")), "{accepted:?}");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn bl_px_9_headers_of_proxies_do_not_change_the_urls_that_are_told() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let body = content(1, 10);
    let token = User::new(1).token("upload", &[&sha256(&body)]);
    let headers = [
        ("authorization", &*token),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "proto=https;host=evil.example"),
    ];
    let answer = fetch("PUT", &room.url("/upload"), &headers, &body).await;
    assert_eq!(answer.json()["url"], room.url(&format!("/{}.bin", sha256(&body))));
    let named = Room::with(&database, |settings| {
        settings.public_url = Some("https://blobs.example.com/".to_owned());
    })
    .await;
    let answer = fetch("PUT", &named.url("/upload"), &headers, &body).await;
    let expected = format!("https://blobs.example.com/{}.bin", sha256(&body));
    assert_eq!(answer.json()["url"], expected);
}
