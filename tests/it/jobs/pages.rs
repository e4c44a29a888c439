//! The pages of jobs: what they show, to whom, and what their forms do.

use std::fmt::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu::services::jobs::command::Change;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::kit::{Job, PDF, Room, fence, number, within_deadline};
use crate::support::database::TestDatabase;

/// An answer of a page.
pub(super) struct Page {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Page {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub(super) fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.body.contains(part), "{part} is not in {}", self.body);
        }
    }

    #[track_caller]
    pub(super) fn lacks(&self, parts: &[&str]) {
        for part in parts {
            assert!(!self.body.contains(part), "{part} is in {}", self.body);
        }
    }
}

/// Sends a request as a browser does: a form if there is a body.
pub(super) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Page {
    let mut request =
        format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
    if method == "POST" && headers.iter().all(|(name, _)| *name != "content-type") {
        request += "content-type: application/x-www-form-urlencoded\r\n";
    }
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request += "\r\n";
    request += body;
    let answer = within_deadline(path, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let answer = answer.await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_owned(), body: body.to_owned() }
}

/// Asks for a page.
pub(super) async fn page(room: &Room, path: &str) -> Page {
    ask(room.address, "GET", path, &[], "").await
}

/// Sends a form.
pub(super) async fn form(room: &Room, path: &str, body: &str) -> Page {
    ask(room.address, "POST", path, &[], body).await
}

/// What a browser sends for a token that it keeps.
pub(super) fn kept(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("me:{token}")))
}

#[tokio::test]
async fn empty_pages_say_what_to_do() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for path in ["/", "/jobs"] {
        let shown = page(room, path).await;
        assert_eq!(shown.status, 200);
        shown.has(&["No job was submitted yet.", &format!("curl http://{}/api/jobs", room.address)]);
        shown.has(&["<a href=\"/jobs\" aria-current=\"page\">Queue</a>", "nothing can be claimed"]);
    }
    page(room, "/workers").await.has(&["No worker has registered yet.", "/api/workers/register"]);
    page(room, "/jobs?status=dead").await.has(&["No job has this status and type.", "Show all"]);
    page(room, "/jobs?offset=50").await.has(&["The list ends before this page."]);
    let missing = page(room, "/jobs/99").await;
    assert_eq!(missing.status, 404);
    missing.has(&["<h2>404 Not Found</h2>", "job not found", "To the queue"]);
    let wrong = page(room, "/jobs?status=lost").await;
    assert_eq!(wrong.status, 400);
    wrong.has(&["status is none of pending, waiting"]);
    let hint = format!("Request {}", wrong.header("x-request-id").unwrap());
    wrong.has(&[&hint]);
}

#[tokio::test]
async fn the_queue_counts_filters_and_turns_pages() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for _ in 0..60 {
        room.submit(PDF).await;
    }
    room.submit(Job { job_type: "zip", priority: 1, ..PDF }).await;
    let claimed = room.claim("w1", 1, 600).await;
    room.ok("/api/workers/register", &json!({ "id": "w1", "type": "pdf" })).await;

    let first = page(room, "/jobs").await;
    // A worker is there for `pdf`, and none for `zip`.
    first.has(&["1 to 50 of 61", "rel=\"next\" href=\"/jobs?offset=50\"", "1 of 1 workers online"]);
    first.has(&["No worker is online for <b><bdi>zip</bdi></b>", "<a href=\"/jobs/61\">#61</a>"]);
    first.has(&["<a href=\"/jobs?type=pdf\"><bdi>pdf</bdi></a>"]);
    first.lacks(&["No worker is online for <b><bdi>pdf", "rel=\"prev\""]);
    let rows = |shown: &Page| shown.body.matches("<a class=\"job\"").count();
    assert_eq!(rows(&first), 50);
    let second = page(room, "/jobs?offset=50").await;
    assert_eq!(rows(&second), 11);
    second.has(&["51 to 61 of 61", "rel=\"prev\" href=\"/jobs\""]);
    second.lacks(&["rel=\"next\""]);
    let zip = page(room, "/jobs?type=zip&status=pending&offset=").await;
    assert_eq!(rows(&zip), 1);
    zip.has(&["<option value=\"pending\" title=\"can be claimed\" selected>", "value=\"zip\""]);
    let running = page(room, "/jobs?status=running").await;
    assert_eq!(rows(&running), 1);
    running.has(&[&format!("href=\"/jobs/{}\"", claimed[0].facts.job), "at <bdi>w1</bdi>"]);
}

#[tokio::test]
async fn a_job_shows_its_failures_progress_result_and_history() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let submit = json!({ "type": "pdf", "source_hash": "abc", "source_path": "in/a.pdf", "source_size": 1_572_864,
                         "tags": ["urgent"], "metadata": { "pages": "all" }, "priority": 2 });
    let job = room.ok("/api/jobs", &submit).await["job_id"].as_i64().unwrap();
    let path = format!("/jobs/{job}");
    let pending = page(room, &path).await;
    pending.has(&[
        "<bdi>pdf</bdi>",
        "can be claimed",
        "<bdi>in/a.pdf</bdi>",
        "1.5\u{202f}MB",
        "urgent",
        "&quot;pages&quot;",
    ]);
    pending.has(&[
        "action=\"/actions/jobs/1/cancel\"",
        "action=\"/actions/jobs/1/priority\"",
        "by <bdi>local</bdi>",
    ]);
    pending.lacks(&["action=\"/actions/jobs/1/retry\"", "<h2>Failures</h2>", "<h2>Result</h2>"]);

    let claimed = room.claim("w1", 1, 600).await;
    let progress = Some(json!({ "percent": 40, "stage": "converting" }));
    room.change(job, Change::Heartbeat { fence: fence(&claimed[0], "w1"), lease_s: Some(700), progress })
        .await
        .unwrap();
    let running = page(room, &path).await;
    running.has(&[
        "leased to a worker",
        "<b><bdi>w1</bdi></b>; the lease ends",
        "<progress max=\"100\" value=\"40\">",
        "converting",
    ]);

    let body = json!({ "worker_id": "w1", "error": "no such font", "traceback": "line 7" });
    room.ok(&format!("/api/jobs/{job}/fail"), &body).await;
    let failed = page(room, &path).await;
    failed.has(&[
        "an attempt failed, the next one is planned, ",
        "<h2>Failures</h2>",
        "no such font",
        "line 7",
        "Attempt 1 at <bdi>w1</bdi>",
    ]);
    failed.has(&["action=\"/actions/jobs/1/retry\"", "1 of 3"]);
    failed.lacks(&["<progress"]);

    let retried = form(room, "/actions/jobs/1/retry", "reset_attempts=1&why=new+font&priority=").await;
    assert_eq!((retried.status, retried.header("location")), (303, Some("/jobs/1")), "{}", retried.body);
    let again = page(room, &path).await;
    again.has(&["can be claimed", "<b>retried</b>", "by <bdi>local</bdi>: <bdi>new font</bdi>", "0 of 3"]);
    assert_eq!(form(room, "/actions/jobs/1/priority", "priority=5").await.status, 303);
    page(room, &path).await.has(&["5 (last)", "<b>reprioritized</b>"]);
    for wrong in ["priority=6", "priority=x", ""] {
        let refused = form(room, "/actions/jobs/1/priority", wrong).await;
        assert_eq!(refused.status, 400, "{wrong}");
        refused.has(&["priority"]);
    }
    let claimed = room.claim("w1", 1, 600).await;
    let conflict = form(room, "/actions/jobs/1/retry", "").await;
    assert_eq!(conflict.status, 409);
    conflict.has(&["<h2>409 Conflict</h2>"]);
    let result = json!({ "pages": 9 });
    let done = Change::Complete { fence: fence(&claimed[0], "w1"), result: Some(result) };
    room.change(job, done).await.unwrap();
    let completed = page(room, &path).await;
    completed.has(&["<h2>Result</h2>", "&quot;pages&quot;: 9", "<dt>took</dt>", "<b>completed</b>"]);
    completed.lacks(&["<h2>Actions</h2>"]);

    let other = room.submit(PDF).await.job;
    assert_eq!(form(room, &format!("/actions/jobs/{other}/cancel"), "why=").await.status, 303);
    page(room, &format!("/jobs/{other}")).await.has(&["will not run", "<b>cancelled</b>"]);
    assert_eq!(
        number(&database, "SELECT count(*) FROM job_log WHERE kind = 'cancelled' AND why IS NULL").await,
        1
    );
}

#[tokio::test]
async fn workers_are_drained_suspended_resumed_and_removed() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    room.ok("/api/workers/register", &json!({ "id": "w/1", "type": "pdf" })).await;
    page(room, "/workers").await.has(&["<bdi>w/1</bdi>", "online", "/actions/workers/w%2F1/drain"]);
    for (action, shown, offered) in
        [("drain", "draining", "resume"), ("resume", "online", "suspend"), ("suspend", "suspended", "resume")]
    {
        let answer = form(room, &format!("/actions/workers/w%2F1/{action}"), "").await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/workers")), "{}", answer.body);
        page(room, "/workers").await.has(&[shown, &format!("/actions/workers/w%2F1/{offered}")]);
    }
    assert_eq!(form(room, "/actions/workers/w%2F1/remove", "").await.status, 303);
    page(room, "/workers").await.has(&["No worker has registered yet."]);
    assert_eq!(form(room, "/actions/workers/unknown/drain", "").await.status, 404);
    let by = "SELECT count(*) FROM job_worker_log WHERE actor = 'local' AND kind IN ('draining', 'resumed', 'suspended', 'removed')";
    assert_eq!(number(&database, by).await, 4);
}

#[tokio::test]
async fn what_strangers_wrote_is_shown_as_text() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let hostile = "<script>alert(1)</script>\u{202e}\"'";
    let submit = json!({ "type": hostile, "source_hash": hostile, "source_path": hostile, "tags": [hostile],
                         "metadata": { hostile: hostile }, "max_attempts": 1 });
    room.ok("/api/jobs", &submit).await;
    room.ok("/api/workers/register", &json!({ "id": hostile, "type": hostile })).await;
    let claim = json!({ "worker_id": hostile, "job_type": hostile });
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], 1);
    let running = page(room, "/jobs").await;
    let fail = json!({ "worker_id": hostile, "error": hostile, "traceback": hostile, "context": { hostile: hostile } });
    room.ok("/api/jobs/1/fail", &fail).await;
    let token = room.token("admin", true, &[]).await;
    let headers = [("authorization", &*kept(&token))];
    let made =
        ask(room.address, "POST", "/actions/tokens", &headers, "name=%3Cscript%3Ealert(1)%E2%80%AE&read=1")
            .await;
    assert_eq!(made.status, 200);
    let encoded = "/jobs?type=%3Cscript%3Ealert%281%29%3C%2Fscript%3E%E2%80%AE%22%27";
    let all = [
        running,
        page(room, "/jobs").await,
        page(room, encoded).await,
        page(room, "/jobs/1").await,
        page(room, "/workers").await,
        page(room, "/jobs?status=%3Cscript%3Ealert(1)%E2%80%AE").await,
        made,
    ];
    for shown in &all {
        shown.lacks(&["<script>", "alert(1)</script>", " style=", " onclick="]);
        assert_eq!(shown.body.matches("<script").count(), 1, "the own script alone");
        // The filter's own field holds what its visitor sent.
        let text = shown
            .body
            .replace(&format!("value=\"{}\"", "&lt;script&gt;alert(1)&lt;/script&gt;\u{202e}&quot;'"), "");
        assert!(!text.contains('\u{202e}'), "{text}");
        let policy = shown.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(shown.header("x-frame-options"), Some("DENY"));
        assert_eq!(shown.header("cache-control"), Some("no-store"));
    }
    all[3].has(&["<bdi>&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩&quot;'</bdi>", "<h2>Failures</h2>"]);
    assert!(all[2].body.contains("href=\"/jobs/1\""), "the type is found by its link: {}", all[2].body);
}

#[tokio::test]
async fn each_page_and_form_needs_its_scope() {
    let database = TestDatabase::new().await;
    let room = &Room::with(&database, |jobs| jobs.compat_unauthenticated = Some(false)).await;
    let job = room.submit(PDF).await.job;
    let (admin, reader) =
        (room.token("admin", true, &[]).await, room.token("reader", false, &["read"]).await);
    let manager = room.token("manager", false, &["manage"]).await;
    let (open, closed) = (["/", "/jobs", "/jobs/1", "/workers"], "/admin/tokens");
    for path in open.into_iter().chain([closed]) {
        for headers in
            [vec![], vec![("authorization", kept("bf_wrong"))], vec![("authorization", "Basic !".to_owned())]]
        {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let refused = ask(room.address, "GET", path, &headers, "").await;
            assert_eq!(refused.status, 401, "{path}");
            assert_eq!(
                refused.header("www-authenticate"),
                Some("Basic realm=\"Quipu jobs\", charset=\"UTF-8\"")
            );
            refused.has(&["an API token as the password"]);
            refused.lacks(&["pdf"]);
        }
    }
    for (token, path, expected) in [
        (&reader, "/", 200),
        (&reader, "/jobs/1", 200),
        (&reader, "/workers", 200),
        (&reader, closed, 403),
        (&manager, "/jobs", 403),
        (&admin, closed, 200),
    ] {
        for authorization in [kept(token), format!("Bearer {token}")] {
            let shown = ask(room.address, "GET", path, &[("authorization", &authorization)], "").await;
            assert_eq!(shown.status, expected, "{token} {path}");
        }
    }
    // What a visitor may not do is not offered.
    let shown = ask(room.address, "GET", "/jobs/1", &[("authorization", &kept(&reader))], "").await;
    shown.lacks(&["<form action=\"/actions", "/admin/tokens"]);
    let forms = [
        ("/actions/jobs/1/priority", "priority=1"),
        ("/actions/jobs/1/cancel", ""),
        ("/actions/jobs/1/retry", ""),
        ("/actions/workers/w/drain", ""),
        ("/actions/tokens", "name=x&read=1"),
        ("/actions/tokens/1/revoke", ""),
    ];
    for (path, body) in forms {
        assert_eq!(form(room, path, body).await.status, 401, "{path}");
        let refused = ask(room.address, "POST", path, &[("authorization", &kept(&reader))], body).await;
        assert_eq!(refused.status, 403, "{path}");
    }
    for (path, body) in &forms[..3] {
        let taken = ask(room.address, "POST", path, &[("authorization", &kept(&manager))], body).await;
        assert_eq!(taken.status, 303, "{path}: {}", taken.body);
    }
    let actors = "SELECT count(*) FROM job_log WHERE actor = 'token:manager'";
    assert_eq!(number(&database, actors).await, 3);
    assert_eq!(job, 1);

    // A token is created, shown once, used, and revoked.
    let headers = [("authorization", &*kept(&admin))];
    let made = ask(room.address, "POST", "/actions/tokens", &headers, "name=ci&read=1&expires_in=30").await;
    assert_eq!(made.status, 200, "{}", made.body);
    let token =
        made.body.split("<pre id=\"new-token\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(token.starts_with("bf_"), "{token}");
    let listed = ask(room.address, "GET", closed, &headers, "").await;
    listed.lacks(&[&token]);
    listed.has(&["<bdi>ci</bdi>", "in 30 days", "administrator"]);
    assert_eq!(ask(room.address, "GET", "/jobs", &[("authorization", &kept(&token))], "").await.status, 200);
    let id = number(&database, "SELECT position FROM job_credentials WHERE name = 'ci'").await;
    let revoked = ask(room.address, "POST", &format!("/actions/tokens/{id}/revoke"), &headers, "").await;
    assert_eq!((revoked.status, revoked.header("location")), (303, Some(closed)));
    assert_eq!(ask(room.address, "GET", "/jobs", &[("authorization", &kept(&token))], "").await.status, 401);
    for wrong in ["name=x", "name=&read=1", "name=x&read=1&expires_in=-1", "name=x&read=1&expires_in=soon"] {
        assert_eq!(
            ask(room.address, "POST", "/actions/tokens", &headers, wrong).await.status,
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_form_is_taken_from_the_own_pages_alone() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    room.submit(PDF).await;
    let admin = room.token("admin", true, &[]).await;
    let own = format!("http://{}", room.address);
    let (basic, bearer) = (kept(&admin), format!("Bearer {admin}"));
    let foreign: [&[(&str, &str)]; 4] = [
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:1")],
    ];
    for from in foreign {
        for credential in [None, Some(&basic), Some(&bearer)] {
            let mut headers = from.to_vec();
            headers.extend(credential.map(|value| ("authorization", &**value)));
            for path in ["/actions/jobs/1/cancel", "/actions/tokens"] {
                let refused = ask(room.address, "POST", path, &headers, "name=x&read=1").await;
                assert_eq!(refused.status, 403, "{path} {headers:?}: {}", refused.body);
            }
        }
    }
    assert_eq!(number(&database, "SELECT count(*) FROM job_log").await, 0);
    // A browser on the own page says so.
    let headers = [("origin", &*own), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(room.address, "POST", "/actions/jobs/1/cancel", &headers, "").await.status, 303);
    // JSON of a page that asks without a form is none.
    let json = [("content-type", "text/plain")];
    let refused = ask(room.address, "POST", "/actions/jobs/1/retry", &json, "").await;
    assert!(refused.status == 415 || refused.status == 400, "{}", refused.status);

    // Other sites may link to a page, and read or frame nothing.
    let site = ("sec-fetch-site", "cross-site");
    let link = [site, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for (path, headers, expected) in [
        ("/jobs", &link[..], 200),
        ("/jobs/1", &link[..], 200),
        ("/jobs", &[site, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], 403),
        ("/jobs", &[site, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], 403),
        ("/api/jobs", &link[..], 403),
    ] {
        let shown = ask(room.address, "GET", path, headers, "").await;
        assert_eq!(shown.status, expected, "{path} {headers:?}");
    }
    // A token that a browser keeps is refused to other sites by the API as well; one that a program shows is not.
    for (credential, expected) in [(&basic, 403), (&bearer, 200)] {
        let headers = [("authorization", &**credential), site];
        assert_eq!(ask(room.address, "GET", "/api/jobs", &headers, "").await.status, expected);
    }
    // A program on this machine is no administrator: its browser is asked for a token.
    assert_eq!(page(room, "/admin/tokens").await.status, 401);
    let forwarded = ask(room.address, "GET", "/jobs", &[("x-forwarded-for", "127.0.0.1")], "").await;
    assert_eq!(forwarded.status, 401);
}
