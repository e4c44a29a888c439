//! A job is submitted with a file from a browser: a form that works without scripts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::file_kit::{Answer, FileRoom, download, send_raw, sha256, source_key};
use super::kit::{Room, number, problems};
use super::pages::page;
use crate::chromium::Browser;
use crate::support::database::TestDatabase;

const BOUNDARY: &str = "----quipu-test";

/// A field, and with a file name a file, of a form.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// The body of a form as a browser sends it.
pub(super) fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\ncontent-type: application/pdf"));
        let file = file.unwrap_or_default();
        body.extend(
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

/// Sends a form with further headers, each with its end of line.
pub(super) async fn post(room: &Room, headers: &str, body: &[u8]) -> Answer {
    let url = format!("http://{}/actions/jobs", room.address);
    let length = body.len();
    let head = format!(
        "content-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: {length}\r\n{headers}"
    );
    send_raw(&url, "POST", &head, body).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn a_file_of_a_browser_becomes_the_source_of_a_job_byte_by_byte() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let shown = page(room, "/jobs").await;
    shown.has(&[
        "<form action=\"/actions/jobs\" method=\"post\" enctype=\"multipart/form-data\">",
        "Submit a file",
    ]);
    // The end of the part is nearly in the content, again and again.
    let content = b"%PDF\r\n------quipu-tes\r\n--\0\xff\r".repeat(100_000);
    let body = form(&[
        ("type", None, b"pdf"),
        ("priority", None, b"2"),
        ("tags", None, b"urgent, , 2026 "),
        ("file", Some("report.pdf"), &content),
    ]);
    let origin = format!("origin: http://{}\r\nsec-fetch-site: same-origin\r\n", room.address);
    let answer = post(room, &origin, &body).await;
    assert_eq!(answer.status, 303, "{}", text(&answer));
    assert_eq!(answer.header("location").as_deref(), Some("/jobs/1"));
    let (_, job) = room.get("/api/jobs/1").await;
    for (field, expected) in [
        ("type", json!("pdf")),
        ("priority", json!(2)),
        ("source_hash", json!(sha256(&content))),
        ("source_size", json!(content.len())),
        ("source_path", json!("report.pdf")),
        ("tags", json!(["urgent", "2026"])),
    ] {
        assert_eq!(job[field], expected, "{field}");
    }
    let claim = room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await;
    assert_eq!(claim["source_verified"], true);
    assert!(download(&claim["source_url"]).await.body == content, "the bytes differ");
    assert_eq!(files.keys().await, [source_key(&content)]);
    let stored = "SELECT count(*) FROM job_files WHERE kind = 'stored' AND actor = 'local' AND is_bound";
    assert_eq!(number(&files.database, stored).await, 1);

    // The same file is the same job; of another type it is another one.
    let again = post(room, "", &body).await;
    assert_eq!(again.header("location").as_deref(), Some("/jobs/1?known=1"), "{}", text(&again));
    page(room, "/jobs/1?known=1").await.has(&["This file was submitted before under this type."]);
    let other = form(&[("type", None, b"text"), ("file", Some("<b>\u{202e}.pdf"), &content)]);
    let answer = post(room, "", &other).await;
    assert_eq!(answer.status, 303, "{}", text(&answer));
    assert_eq!(number(&files.database, "SELECT count(*) FROM jobs").await, 2);
    page(room, "/jobs").await.has(&["<bdi>&lt;b&gt;⟨U+202E⟩.pdf</bdi>"]);
    // An empty file is one.
    let empty = form(&[("type", None, b"pdf"), ("file", Some("empty"), b"")]);
    assert_eq!(post(room, "", &empty).await.status, 303);
    assert_eq!(files.files().len(), 2, "{:?}", files.files());
    assert_eq!(problems(&files.database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_form_that_is_wrong_or_incomplete_stores_nothing() {
    let files = FileRoom::with(|files| files.file_bytes_max = 1_000.try_into().unwrap()).await;
    let room = &files.room;
    let (pdf, content): (Part<'_>, Part<'_>) = (("type", None, b"pdf"), ("file", Some("a.pdf"), b"content"));
    let large = vec![7; 1_001];
    let long = "x".repeat(70);
    let wrong: [(&[Part<'_>], u16, &str); 10] = [
        (&[content], 400, "type"),
        (&[pdf], 400, "file is required"),
        (&[pdf, ("file", Some(""), b"")], 400, "file has to be chosen"),
        (&[pdf, ("file", None, b"content")], 400, "file has to be chosen"),
        (&[("type", None, long.as_bytes()), content], 400, "type 70 bytes, at most 64"),
        (&[("type", None, b"\xff"), content], 400, "type is not UTF-8"),
        (&[pdf, ("priority", None, b"6"), content], 400, "priority must be between 1 and 5"),
        (&[pdf, ("<i>", None, b"6"), content], 400, "has the field `&lt;i&gt;`"),
        (&[content, pdf], 400, "type"),
        (&[pdf, ("file", Some("a.pdf"), &large)], 413, "1001 bytes, at most 1000"),
    ];
    for (parts, status, says) in wrong {
        let answer = post(room, "", &form(parts)).await;
        let text = text(&answer);
        assert_eq!(answer.status, status, "{says}: {text}");
        assert!(text.contains(says) && text.contains("To the queue"), "{says}: {text}");
    }
    assert_eq!(post(room, "", &form(&[])).await.status, 400);
    let after = post(room, "", &form(&[pdf, content, ("tags", None, b"a")])).await;
    assert_eq!(after.status, 400);
    assert!(text(&after).contains("file has to be the last field"), "{}", text(&after));
    // Each piece may be missing at the end.
    let whole = form(&[pdf, content]);
    for end in [whole.len() - 6, whole.len() - 40, 60, 1] {
        let answer = post(room, "", &whole[..end]).await;
        assert_eq!(answer.status, 400, "{end}: {}", text(&answer));
    }
    // A form that is larger than any file is refused before it is read.
    let url = format!("http://{}/actions/jobs", room.address);
    let head = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: 70000\r\n");
    assert_eq!(send_raw(&url, "POST", &head, b"").await.status, 413);
    let head = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 8\r\n";
    assert_eq!(send_raw(&url, "POST", head, b"type=pdf").await.status, 415);
    assert_eq!(files.files(), Vec::<String>::new());
    assert_eq!(number(&files.database, "SELECT count(*) FROM jobs").await, 0);
    assert_eq!(number(&files.database, "SELECT count(*) FROM job_files").await, 0);
    assert_eq!(post(room, "", &whole).await.status, 303);
}

#[tokio::test]
async fn a_file_is_taken_from_the_own_pages_and_with_the_scope_alone() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let body = form(&[("type", None, b"pdf"), ("file", Some("a.pdf"), b"content")]);
    let reader = room.token("reader", false, &["read", "manage", "work"]).await;
    let submitter = room.token("submitter", false, &["submit"]).await;
    let both = room.token("both", false, &["read", "submit"]).await;
    let kept = |token: &str| format!("authorization: Basic {}\r\n", STANDARD.encode(format!("me:{token}")));
    for headers in [
        "origin: http://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "sec-fetch-site: cross-site\r\n".to_owned(),
        format!("origin: http://evil.example\r\n{}", kept(&submitter)),
        kept(&reader),
    ] {
        assert_eq!(post(room, &headers, &body).await.status, 403, "{headers}");
    }
    assert_eq!(post(room, &kept("bf_wrong"), &body).await.status, 401);
    assert_eq!(post(room, "x-forwarded-for: 127.0.0.1\r\n", &body).await.status, 401);
    assert_eq!(files.files(), Vec::<String>::new());
    assert_eq!(post(room, &kept(&submitter), &body).await.status, 303);
    let by = "SELECT count(*) FROM jobs WHERE actor = 'token:submitter'";
    assert_eq!(number(&files.database, by).await, 1);
    // The form is shown to those who may send it.
    let url = format!("http://{}/jobs", room.address);
    for (token, is_shown) in [(&reader, false), (&both, true)] {
        let shown = text(&send_raw(&url, "GET", &kept(token), b"").await);
        assert!(shown.contains("id=\"panel-list\""), "{shown}");
        assert_eq!(shown.contains("action=\"/actions/jobs\""), is_shown, "{token}");
    }
}

#[tokio::test]
async fn without_a_place_for_files_no_form_is_shown_and_none_is_taken() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    page(room, "/jobs").await.lacks(&["Submit a file", "multipart/form-data"]);
    let body = form(&[("type", None, b"pdf"), ("file", Some("a.pdf"), b"content")]);
    let answer = post(room, "", &body).await;
    assert_eq!(answer.status, 404);
    assert!(text(&answer).contains("no storage for files is configured"), "{}", text(&answer));
}

#[tokio::test]
async fn a_file_is_chosen_and_submitted_in_a_real_browser() {
    let files = FileRoom::with(|files| files.file_bytes_max = 100_000.try_into().unwrap()).await;
    let room = &files.room;
    let mut browser = Browser::open(&format!("http://{}/jobs", room.address)).await;
    // The script of the page has run when the page is complete.
    browser
        .until("document.readyState === 'complete' && document.querySelector('.upload form') !== null")
        .await;
    let choose = |bytes: usize| {
        format!(
            "(() => {{ const chosen = new DataTransfer();
               chosen.items.add(new File(['x'.repeat({bytes})], 'page one.txt', {{ type: 'text/plain' }}));
               const form = document.querySelector('.upload form');
               form.elements.type.value = 'text';
               form.elements.file.files = chosen.files;
               form.elements.file.dispatchEvent(new Event('change', {{ bubbles: true }}));
               return form.checkValidity(); }})()"
        )
    };
    assert_eq!(browser.evaluate(&choose(100_001)).await, false, "it is too large");
    assert_eq!(browser.evaluate(&choose(50_000)).await, true);
    browser.evaluate("document.querySelector('.upload button').click()").await;
    browser.until("location.pathname === '/jobs/1'").await;
    browser.until("document.getElementById('panel-job').innerText.includes('page one.txt')").await;
    let content = "x".repeat(50_000);
    assert_eq!(files.keys().await, [source_key(content.as_bytes())]);
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    browser.close().await;
}
