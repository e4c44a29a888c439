//! Pages of every site may use a listener that has a public URL, and can read why they are refused.

use super::client_kit::{User, content, fetch, sha256};
use super::kit::{Room, serve_pages};
use super::server_kit::{Character, Server};
use crate::support::database::TestDatabase;

const PAGE: (&str, &str) = ("origin", "https://page.example");

/// BL-01.1, BL-01.6, BL-01.8, BL-01.13
#[tokio::test]
async fn bl_01_01_06_08_and_13_every_answer_can_be_read_by_pages_of_other_sites() {
    let database = TestDatabase::new().await;
    let server = Server::start(Character::Good).await;
    let room = Room::before_with(&database, &[&server], serve_pages).await;
    let user = User::new(1);
    let hash = sha256(&content(1, 100));
    let uploaded = user.upload(room.address, &content(1, 100), "image/png").await;
    assert_eq!(uploaded.header("access-control-allow-origin").unwrap(), "*");
    super::client_kit::eventually("a redirect", async || room.get(&format!("/{hash}")).await.status == 307)
        .await;
    let path = format!("/{hash}");
    let list = format!("/list/{}", user.pubkey());
    let tag = format!("\"{hash}\"");
    for (method, path, headers, status) in [
        ("GET", "/", vec![], 200),
        ("HEAD", "/", vec![], 200),
        ("GET", "/health", vec![], 200),
        ("GET", "/stats", vec![], 200),
        ("GET", &*list, vec![], 200),
        ("GET", &*path, vec![], 307),
        ("GET", &*path, vec![("if-none-match", &*tag)], 304),
        ("HEAD", &*path, vec![], 200),
        ("GET", "/unheard-of", vec![], 400),
        ("GET", "/not/a/route", vec![], 404),
        ("POST", &*path, vec![], 405),
        ("PUT", "/upload", vec![], 401),
        ("HEAD", "/upload", vec![], 401),
        ("PUT", "/mirror", vec![], 401),
        ("PUT", "/report", vec![], 400),
        ("DELETE", &*path, vec![], 401),
        ("GET", &*path, vec![("host", "other.example")], 421),
    ] {
        let mut headers = headers;
        headers.push(PAGE);
        let answer = fetch(method, &room.url(path), &headers, b"").await;
        assert_eq!(answer.status, status, "{method} {path}: {:?}", answer.refusal());
        assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"), "{method} {path}");
        let readable = answer.header("access-control-expose-headers").unwrap();
        for field in
            ["x-reason", "content-range", "accept-ranges", "etag", "location", "retry-after", "x-cashu"]
        {
            assert!(readable.contains(field), "{method} {path}: {readable}");
        }
        assert_eq!(status >= 400, answer.header("x-reason").is_some(), "{method} {path}");
        if let Some(reason) = answer.header("x-reason") {
            assert!(reason.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{reason}");
        }
    }
    let range = [("range", "bytes=500-"), PAGE];
    let room = Room::with(&database, serve_pages).await;
    assert_eq!(user.upload(room.address, &content(2, 100), "image/png").await.status, 201);
    let path = format!("/{}", sha256(&content(2, 100)));
    for (range, status) in [(range, 416), ([("range", "bytes=5-9"), PAGE], 206)] {
        let answer = fetch("GET", &room.url(&path), &range, b"").await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin").unwrap().as_str()),
            (status, "*")
        );
    }
}

/// BL-01.2, BL-01.3, BL-01.4, BL-01.5, BL-01.7
#[tokio::test]
async fn bl_01_02_to_05_and_07_a_preflight_of_every_path_allows_what_clients_send() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let unknown = format!("/{}", sha256(b"unknown"));
    for path in ["/", "/upload", "/media", "/mirror", "/report", "/list/x", "/not/a/route", &unknown] {
        let headers = [
            PAGE,
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization,x-sha-256"),
        ];
        let answer = fetch("OPTIONS", &room.url(path), &headers, b"").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        let field =
            |name: &str| answer.header(name).unwrap_or_else(|| panic!("{path}: {name}")).to_lowercase();
        assert_eq!(field("access-control-allow-origin"), "*");
        assert_eq!(field("access-control-max-age"), "86400");
        let methods = field("access-control-allow-methods");
        for method in ["get", "head", "put", "delete"] {
            assert!(methods.contains(method), "{path}: {methods}");
        }
        let names = field("access-control-allow-headers");
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        for name in [
            "authorization",
            "*",
            "x-sha-256",
            "x-content-type",
            "x-content-length",
            "content-type",
            "range",
            "x-cashu",
            "x-lightning",
        ] {
            assert!(names.contains(&name), "{path}: {name} is missing in {names:?}");
        }
    }
}

#[tokio::test]
async fn without_a_public_url_pages_of_other_sites_may_only_download_from_loopback() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (user, blob, other) = (User::new(1), content(1, 100), content(2, 100));
    let (hash, other_hash) = (sha256(&blob), sha256(&other));
    assert_eq!(user.upload(room.address, &blob, "image/png").await.status, 201);
    let (path, list) = (format!("/{hash}"), format!("/list/{}", user.pubkey()));
    let own = format!("http://{}", room.address);
    let (upload, deletion) = (user.token("upload", &[&other_hash]), user.token("delete", &[&hash]));
    for of_page in [
        PAGE,
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path, token, body) in [
            ("PUT", "/upload", Some(&*upload), &*other),
            ("HEAD", "/upload", Some(&*upload), &b""[..]),
            ("PUT", "/upload", None, &*other),
            ("PUT", "/media", Some(&*upload), &*other),
            ("PUT", "/mirror", Some(&*upload), &b"{}"[..]),
            ("PUT", "/report", None, &b"{}"[..]),
            ("DELETE", &*path, Some(&*deletion), &b""[..]),
            ("GET", &*list, None, &b""[..]),
            ("GET", "/stats", None, &b""[..]),
            ("GET", "/health", None, &b""[..]),
        ] {
            let mut headers = vec![of_page];
            headers.extend(token.map(|token| ("authorization", token)));
            let answer = fetch(method, &room.url(path), &headers, body).await;
            let reason = "set services.blossom.public_url to serve pages of other sites";
            assert_eq!(answer.refusal(), (403, reason.to_owned()), "{method} {path} {of_page:?}");
            assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"), "{method} {path}");
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(fetch(method, &room.url(&path), &[of_page], b"").await.status, 200, "{of_page:?}");
        }
    }
    for of_own in [("origin", &*own), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")] {
        assert_eq!(fetch("GET", &room.url(&list), &[of_own], b"").await.status, 200, "{of_own:?}");
        let headers = [of_own, ("authorization", &*upload)];
        let answer = fetch("PUT", &room.url("/upload"), &headers, &other).await;
        assert!(matches!(answer.status, 200 | 201), "{of_own:?} {:?}", answer.refusal());
    }
}
