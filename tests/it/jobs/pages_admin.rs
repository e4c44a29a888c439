//! What the pages do to many jobs, to workers and their secrets, and the audit.

use quipu::services::jobs::command::Change;
use serde_json::json;

use super::kit::{Job, PDF, Room, fence, http, number};
use super::pages::{Page, ask, form, kept, page};
use crate::support::database::TestDatabase;

/// A job that is dead after its only attempt.
async fn dead(room: &Room, job_type: &str) {
    room.submit(Job { job_type, attempts_max: 1, priority: 1, ..PDF }).await;
    let claim = json!({ "worker_id": "w", "job_type": job_type });
    let job = room.ok("/api/jobs/claim", &claim).await["job"]["id"].clone();
    let fail = json!({ "worker_id": "w", "error": "no such font" });
    room.ok(&format!("/api/jobs/{job}/fail"), &fail).await;
}

fn new_secret(shown: &Page) -> String {
    let secret = shown.body.split("<pre id=\"new-secret\">").nth(1);
    secret.unwrap_or_else(|| panic!("{}", shown.body)).split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn all_jobs_of_a_status_are_shown_before_they_are_retried_or_cancelled() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for job_type in ["pdf", "pdf", "pdf", "zip"] {
        dead(room, job_type).await;
    }
    for _ in 0..12 {
        room.submit(PDF).await;
    }
    let list = page(room, "/jobs?status=dead&type=pdf").await;
    list.has(&["href=\"/jobs/retry-all?status=dead&amp;type=pdf\""]);
    list.lacks(&["cancel-all"]);
    page(room, "/jobs").await.lacks(&["retry-all", "cancel-all"]);
    page(room, "/jobs?status=completed").await.lacks(&["retry-all", "cancel-all"]);

    let preview = page(room, "/jobs/retry-all?status=dead&type=pdf").await;
    assert_eq!(preview.status, 200, "{}", preview.body);
    preview.has(&[
        "Retry 3 dead jobs of the type <b><bdi>pdf</bdi></b>",
        "href=\"/jobs/1\"",
        "href=\"/jobs/3\"",
    ]);
    preview.has(&[
        "<form action=\"/actions/jobs/retry-all\" method=\"post\">",
        "name=\"status\" value=\"dead\"",
    ]);
    preview.lacks(&["href=\"/jobs/4\"", "There are more"]);
    assert_eq!(number(&database, "SELECT count(*) FROM job_states WHERE status = 'dead'").await, 4);
    let body = "status=dead&type=pdf&reset_attempts=1&priority=2&why=new+font";
    let done = form(room, "/actions/jobs/retry-all", body).await;
    assert_eq!(done.status, 200, "{}", done.body);
    done.has(&["3 dead jobs of the type <b><bdi>pdf</bdi></b> were retried"]);
    let retried =
        "SELECT count(*) FROM job_states WHERE status = 'pending' AND priority = 2 AND failures = 0";
    assert_eq!(number(&database, retried).await, 3);
    let why = "SELECT count(*) FROM job_log WHERE kind = 'retried' AND why = 'new font' AND actor = 'local'";
    assert_eq!(number(&database, why).await, 3);
    form(room, "/actions/jobs/retry-all", body).await.has(&["0 dead jobs"]);
    page(room, "/jobs/retry-all?status=dead&type=pdf").await.has(&["There is no such job."]);

    let preview = page(room, "/jobs/cancel-all?status=pending&type=").await;
    preview.has(&["Cancel 15 pending jobs", "and 5 more"]);
    form(room, "/actions/jobs/cancel-all", "status=pending&type=&why=")
        .await
        .has(&["15 pending jobs were cancelled"]);
    assert_eq!(number(&database, "SELECT count(*) FROM job_states WHERE status = 'cancelled'").await, 15);
    assert_eq!(number(&database, "SELECT count(*) FROM job_states WHERE status = 'dead'").await, 1);

    for (path, wrong) in [
        ("retry-all", "status=pending"),
        ("retry-all", ""),
        ("cancel-all", "status=dead"),
        ("cancel-all", "status=%3Cb%3E"),
    ] {
        let refused = form(room, &format!("/actions/jobs/{path}"), wrong).await;
        assert_eq!(refused.status, 400, "{path} {wrong}");
        refused.has(&["status is none of"]);
        assert_eq!(page(room, &format!("/jobs/{path}?{wrong}")).await.status, 400, "{path} {wrong}");
    }
    let wrong = form(room, "/actions/jobs/retry-all", "status=dead&priority=9").await;
    assert_eq!(wrong.status, 400);
    let (reader, from) = (room.token("reader", false, &["read"]).await, ("origin", "http://evil.example"));
    let headers = [("authorization", &*kept(&reader))];
    for path in ["/actions/jobs/retry-all", "/actions/jobs/cancel-all"] {
        assert_eq!(ask(room.address, "POST", path, &headers, "status=failed").await.status, 403, "{path}");
        assert_eq!(ask(room.address, "POST", path, &[from], "status=failed").await.status, 403, "{path}");
    }
    let preview = ask(room.address, "GET", "/jobs/retry-all?status=dead", &headers, "").await;
    assert_eq!(preview.status, 403);
    ask(room.address, "GET", "/jobs?status=dead", &headers, "").await.lacks(&["retry-all"]);
}

#[tokio::test]
async fn administrators_create_workers_with_secrets_and_enable_and_disable_them() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("admin", true, &[]).await;
    let headers = [("authorization", &*kept(&admin))];
    let act = async |path: &str, body: &str| ask(room.address, "POST", path, &headers, body).await;

    let made = act("/actions/workers", "id=+w%2F1+&type=pdf&name=%3Cb%3Eone").await;
    assert_eq!(made.status, 200, "{}", made.body);
    made.has(&["The secret of <bdi>w/1</bdi>", "<bdi>&lt;b&gt;one</bdi>", "cannot be shown again"]);
    let secret = new_secret(&made);
    assert!(secret.starts_with("bfw_"), "{secret}");
    page(room, "/workers").await.lacks(&["bfw_"]);
    let claim = json!({ "worker_id": "w/1", "job_type": "pdf" });
    let claims = async |secret: &str| {
        let headers = [("x-worker-id", "w/1"), ("x-worker-secret", secret)];
        http(room.address, "POST", "/api/jobs/claim", &headers, Some(&claim)).await.0
    };
    assert_eq!(claims(&secret).await, 200);

    let disabled = act("/actions/workers/w%2F1/disable", "").await;
    assert_eq!((disabled.status, disabled.header("location")), (303, Some("/workers")), "{}", disabled.body);
    assert_eq!(claims(&secret).await, 401);
    let shown = page(room, "/workers").await;
    shown.has(&["disabled", "action=\"/actions/workers/w%2F1/enable\""]);
    shown.lacks(&["/actions/workers/w%2F1/disable"]);
    assert_eq!(act("/actions/workers/w%2F1/enable", "").await.status, 303);
    assert_eq!(claims(&secret).await, 200);
    let renewed = act("/actions/workers/w%2F1/regenerate", "").await;
    assert_eq!(renewed.status, 200);
    let second = new_secret(&renewed);
    assert_eq!((claims(&secret).await, claims(&second).await), (401, 200));

    assert_eq!(act("/actions/workers", "id=w%2F1&type=pdf").await.status, 409, "it exists");
    assert_eq!(act("/actions/workers", "id=&type=pdf").await.status, 400);
    for action in ["enable", "disable", "regenerate"] {
        assert_eq!(act(&format!("/actions/workers/unknown/{action}"), "").await.status, 404, "{action}");
    }
    // A program on this machine is shown the forms, and asked for a token; others are not shown them.
    page(room, "/workers").await.has(&["<h2 id=\"new-title\">New worker"]);
    let manager = room.token("manager", false, &["read", "manage"]).await;
    let theirs = [("authorization", &*kept(&manager))];
    let shown = ask(room.address, "GET", "/workers", &theirs, "").await;
    shown.has(&["/actions/workers/w%2F1/remove"]);
    shown.lacks(&["New worker", "/disable", "/regenerate"]);
    for (path, body) in [
        ("/actions/workers", "id=w2&type=pdf"),
        ("/actions/workers/w%2F1/enable", ""),
        ("/actions/workers/w%2F1/disable", ""),
        ("/actions/workers/w%2F1/regenerate", ""),
    ] {
        let local = form(room, path, body).await;
        assert_eq!(local.status, 401, "{path}");
        assert!(local.header("www-authenticate").is_some(), "{path}");
        assert_eq!(ask(room.address, "POST", path, &theirs, body).await.status, 403, "{path}");
        let foreign = [headers[0], ("origin", "http://evil.example")];
        assert_eq!(ask(room.address, "POST", path, &foreign, body).await.status, 403, "{path}");
    }
    assert_eq!(claims(&second).await, 200, "nothing of that was done");
}

#[tokio::test]
async fn administrators_read_who_did_what() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("admin", true, &[]).await;
    let headers = [("authorization", &*kept(&admin))];
    let read = async |path: &str| ask(room.address, "GET", path, &headers, "").await;
    let job = room.submit(PDF).await.job;
    let cancel = "why=%3Cscript%3Ealert(1)%E2%80%AE";
    ask(room.address, "POST", &format!("/actions/jobs/{job}/cancel"), &headers, cancel).await;
    let shown = read("/admin/audit").await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    shown.has(&["<b>job cancelled</b>", &format!("<a href=\"/jobs/{job}\">"), "<bdi>token:admin</bdi>"]);
    shown.has(&[
        "why: &lt;script&gt;alert(1)⟨U+202E⟩",
        "<b>token created</b>",
        "aria-current=\"page\">Audit</a>",
    ]);
    shown.lacks(&["alert(1)\u{202e}", "Older"]);
    for number in 0..60 {
        room.token(&format!("t{number}"), false, &["read"]).await;
    }
    let first = read("/admin/audit").await;
    let older = first.body.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    first.has(&["<bdi>t59</bdi>"]);
    first.lacks(&["job cancelled"]);
    let second = read(older).await;
    second.has(&["<bdi>t0</bdi>", "job cancelled", "<a href=\"/admin/audit\">Newest</a>"]);
    second.lacks(&["Older", "<bdi>t59</bdi>"]);
    assert_eq!(read("/admin/audit?before=x").await.status, 400);
    assert_eq!(read("/admin/audit?before=").await.status, 200);
    read("/admin/audit?before=1").await.has(&["There is no older entry."]);

    assert_eq!(page(room, "/admin/audit").await.status, 401);
    let reader = room.token("reader", false, &["read"]).await;
    let theirs = [("authorization", &*kept(&reader))];
    assert_eq!(ask(room.address, "GET", "/admin/audit", &theirs, "").await.status, 403);
    ask(room.address, "GET", "/jobs", &theirs, "").await.lacks(&["/admin/audit"]);
}

#[tokio::test]
async fn a_job_page_shows_the_last_error_and_each_failed_attempt() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let job = room.submit(Job { attempts_max: 3, ..PDF }).await.job;
    let path = format!("/jobs/{job}");
    room.claim("w1", 1, 600).await;
    let first = json!({ "worker_id": "w1", "error": "no such font", "traceback": "line 1\n  <line 2>" });
    room.ok(&format!("/api/jobs/{job}/fail"), &first).await;
    let shown = page(room, &path).await;
    shown.has(&[
        "last error",
        "<pre><bdi>line 1\n  &lt;line 2&gt;</bdi></pre>",
        "Attempt 1 at <bdi>w1</bdi>, ",
    ]);
    shown.lacks(&["\\n"]);
    form(room, &format!("/actions/jobs/{job}/retry"), "").await;
    room.claim("w2", 1, 600).await;
    page(room, &path).await.lacks(&["last error"]);
    let second = json!({ "worker_id": "w2", "error": "disk full", "context": { "free": 0 } });
    room.ok(&format!("/api/jobs/{job}/fail"), &second).await;
    let shown = page(room, &path).await;
    shown.has(&["Attempt 2 at <bdi>w2</bdi>", "Attempt 1 at <bdi>w1</bdi>", "<h2>Failures</h2>"]);
    let last = shown.body.split("last error").nth(1).unwrap();
    assert!(last.split("</div>").next().unwrap().contains("disk full"), "{}", shown.body);
    form(room, &format!("/actions/jobs/{job}/retry"), "").await;
    let claimed = room.claim("w3", 1, 600).await;
    let done = Change::Complete { fence: fence(&claimed[0], "w3"), result: None };
    room.change(job, done).await.unwrap();
    let shown = page(room, &path).await;
    shown.has(&["Attempt 2 at <bdi>w2</bdi>"]);
    shown.lacks(&["last error"]);
}
