//! Login of people at a certified `OpenID` provider: who gets a session, what it is good for, and when it ends.

use quipu::services::jobs::append::forget_expired_sessions;
use serde_json::json;

use super::kit::{Room, http, number};
use super::login_kit::{Browser, ORIGIN, Provider, SESSION};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_person_logs_in_and_manages_jobs_under_the_own_name() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let stranger = json!({ "authenticated": false, "oidc_enabled": true });
    let mut browser = Browser::at(&room);
    assert_eq!(browser.get("/api/auth/info").await.json(), stranger);
    assert_eq!(browser.get("/api/jobs").await.status, 401, "where people log in, programs need a token");

    let begun = browser.begin("/auth/login?return_to=/jobs%3Fstatus%3Dfailed").await;
    for (name, value) in begun.query_pairs() {
        match &*name {
            "scope" => assert_eq!(value, "openid profile email groups"),
            "code_challenge_method" => assert_eq!(value, "S256"),
            "response_type" => assert_eq!(value, "code"),
            "state" | "nonce" => assert_eq!(value.len(), 22, "{name}"),
            _ => {}
        }
    }
    let back = browser.through_provider(&begun, "root").await;
    let answer = browser.send("GET", &back, &[], "").await;
    assert_eq!((answer.status, answer.location()), (302, "/jobs?status=failed"));
    let cookies = answer.all("set-cookie");
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    let session = browser.cookie(SESSION).unwrap().to_owned();
    let written = format!("{SESSION}={session}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400");
    assert!(cookies.contains(&&*written), "{cookies:?}");
    assert_eq!(browser.cookie("blobforge_login"), None);

    let info = browser.get("/api/auth/info").await.json();
    assert_eq!(
        (&info["user"]["name"], &info["user"]["email"]),
        (&json!("The root"), &json!("root@example.test"))
    );
    assert_eq!(
        (&info["user"]["is_admin"], &info["user"]["groups"]),
        (&json!(true), &json!(["admins", "users"]))
    );
    let submit = json!({ "type": "pdf", "source_hash": "a" });
    assert_eq!(browser.post("/api/jobs", &submit).await.status, 201);
    assert_eq!(browser.post("/api/jobs/1/cancel", &json!({ "why": "not now" })).await.status, 200);
    let history = browser.get("/api/jobs/1/history").await.body;
    assert!(history.contains("user:root@example.test"), "{history}");
    // The value itself is nowhere, and the cookie is no token.
    let hashes = format!("SELECT count(*) FROM job_sessions WHERE secret_sha256 = sha256('{session}')");
    assert_eq!(number(&database, &hashes).await, 1);
    let bearer = format!("Bearer {session}");
    assert_eq!(http(room.address, "GET", "/api/jobs", &[("authorization", &bearer)], None).await.0, 401);
    let token = room.token("reader", false, &["read"]).await;
    browser.set_cookie(SESSION, &token);
    assert_eq!(browser.get("/api/jobs").await.status, 401, "a token is no cookie");
}

#[tokio::test]
async fn groups_decide_who_logs_in_and_who_administers() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut mallory = Browser::at(&room);
    let denied = mallory.log_in("mallory").await;
    assert_eq!(denied.status, 403, "{denied:?}");
    assert!(
        denied.all("content-type")[0].starts_with("text/html") && denied.body.contains("groups"),
        "{denied:?}"
    );
    assert_eq!(mallory.cookie(SESSION), None);
    assert_eq!(number(&database, "SELECT count(*) FROM job_sessions").await, 0);

    // Her address is not verified, so entries show her subject.
    let mut alice = Browser::at(&room);
    assert_eq!(alice.log_in("alice").await.status, 302);
    let info = alice.get("/api/auth/info").await.json();
    assert_eq!((&info["user"]["is_admin"], &info["user"]["email"]), (&json!(false), &json!(null)));
    assert_eq!(info["user"]["groups"], json!(["users"]), "only groups that the operator names are kept");
    for path in ["/api/jobs", "/api/workers", "/api/stats"] {
        assert_eq!(alice.get(path).await.status, 200, "{path}");
    }
    for path in ["/api/tokens", "/api/users", "/api/admin/users", "/api/admin/sessions", "/api/admin/audit"] {
        assert_eq!(alice.get(path).await.status, 403, "{path}");
    }
    let claim = json!({ "worker_id": "w", "job_type": "pdf" });
    assert_eq!(alice.post("/api/jobs/claim", &claim).await.status, 403, "a person does no work");
    let create = json!({ "name": "ci", "scopes": ["submit"] });
    assert_eq!(alice.post("/api/tokens", &create).await.status, 403);

    let mut admin = Browser::at(&room);
    assert_eq!(admin.log_in("root").await.status, 302);
    assert_eq!(admin.post("/api/tokens", &create).await.status, 201);
    assert_eq!(admin.post("/api/admin/workers", &json!({ "id": "w1", "type": "pdf" })).await.status, 201);
    assert_eq!(
        admin
            .post("/api/schedules", &json!({ "name": "s", "cron": "0 0 * * *", "type": "pdf" }))
            .await
            .status,
        200
    );
    let users = admin.get("/api/users").await.json();
    let names: Vec<_> = users
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (&user["id"], &user["is_admin"], &user["sessions"]))
        .collect();
    assert_eq!(
        names,
        [(&json!("alice"), &json!(false), &json!(1)), (&json!("root"), &json!(true), &json!(1))]
    );
    let audit = admin.get("/api/admin/audit?limit=4").await.json();
    let done = |entry: &serde_json::Value| {
        (entry["action"].clone(), entry["subject"].clone(), entry["actor"].clone())
    };
    let by_root = json!("user:root@example.test");
    assert_eq!(
        audit["entries"].as_array().unwrap().iter().map(done).collect::<Vec<_>>(),
        [
            (json!("schedule_set"), json!("s"), by_root.clone()),
            (json!("secret_created"), json!("w1"), by_root.clone()),
            (json!("worker_created"), json!("w1"), by_root.clone()),
            (json!("token_created"), json!("ci"), by_root.clone()),
        ]
    );
    let older = admin.get(&format!("/api/admin/audit?before={}", audit["next_before"])).await.json();
    assert_eq!(
        older["entries"].as_array().unwrap().iter().map(done).collect::<Vec<_>>(),
        [
            (json!("user_login"), json!("root@example.test"), by_root),
            (json!("user_login"), json!("alice"), json!("user:alice")),
        ]
    );
    assert_eq!(older["next_before"], json!(null));
    assert_eq!(admin.get("/api/admin/audit?limit=101").await.status, 400);
}

#[tokio::test]
async fn a_session_ends_by_logout_revocation_and_time() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut admin = Browser::at(&room);
    admin.log_in("root").await;
    let mut alice = Browser::at(&room);
    alice.log_in("alice").await;

    let good = alice.cookie(SESSION).unwrap().to_owned();
    let other = if good.starts_with('A') { "B" } else { "A" };
    for tampered in [format!("{other}{}", &good[1..]), good[1..].to_owned(), String::new()] {
        alice.set_cookie(SESSION, &tampered);
        assert_eq!(alice.get("/api/jobs").await.status, 401, "{tampered}");
    }
    alice.set_cookie(SESSION, &good);
    assert_eq!(alice.get("/api/jobs").await.status, 200);

    let sessions = admin.get("/api/admin/sessions").await.json();
    let sessions = sessions["sessions"].as_array().unwrap();
    let users: Vec<_> = sessions.iter().map(|session| (&session["user"], &session["is_own"])).collect();
    assert_eq!(users, [(&json!("alice"), &json!(false)), (&json!("root@example.test"), &json!(true))]);
    let url = format!("{ORIGIN}/api/admin/sessions/{}", sessions[0]["id"].as_str().unwrap());
    assert_eq!(
        admin.send("DELETE", &url, &[("origin", ORIGIN)], "").await.json(),
        json!({ "status": "revoked" })
    );
    assert_eq!(alice.get("/api/jobs").await.status, 401);
    let unknown = format!("{ORIGIN}/api/admin/sessions/00000000-0000-4000-8000-000000000000");
    assert_eq!(admin.send("DELETE", &unknown, &[("origin", ORIGIN)], "").await.status, 404);

    // The login begins anew, with a new session.
    alice.log_in("alice").await;
    assert_ne!(alice.cookie(SESSION).unwrap(), good);
    let cookie = alice.cookie(SESSION).unwrap().to_owned();
    let answer = alice.post("/auth/logout", &json!({})).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "logged_out" })));
    assert_eq!(alice.cookie(SESSION), None, "the browser is told to forget it");
    alice.set_cookie(SESSION, &cookie);
    assert_eq!(alice.get("/api/jobs").await.status, 401, "and it is refused");
    assert_eq!(alice.post("/logout", &json!({})).await.status, 200, "again");

    // 24 hours after it began, whatever its use. Another process has not seen the session before.
    assert_eq!(admin.get("/api/jobs").await.status, 200);
    let late = "WITH old AS (UPDATE job_sessions SET expires_at = clock_timestamp() RETURNING 1) SELECT count(*) FROM old";
    assert_eq!(number(&database, late).await, 1);
    let second = provider.room(&database).await;
    let mut elsewhere = Browser::at(&second);
    elsewhere.set_cookie(SESSION, admin.cookie(SESSION).unwrap());
    assert_eq!(elsewhere.get("/api/jobs").await.status, 401);
    forget_expired_sessions(&room.parts.pools).await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM job_sessions").await, 0);
    let kinds = "SELECT count(*) FROM job_user_log WHERE (kind, subject, actor) IN
                 (('login', 'alice', 'user:alice'), ('revoked', 'alice', 'user:root@example.test'), ('logout', 'alice', 'user:alice'))";
    assert_eq!(number(&database, kinds).await, 4);
}

#[tokio::test]
async fn a_person_has_a_bounded_number_of_sessions() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let first = "INSERT INTO job_sessions (secret_sha256, session, issuer, subject, label, groups, is_admin, created_at, expires_at)
         SELECT sha256(n::text::bytea), gen_random_uuid(), $1, 'alice', 'alice', '{}', false, now() - n * interval '1 minute',
                now() + interval '1 hour' FROM generate_series(1, 32) n";
    database.owner().await.execute(first, &[&provider.issuer]).await.unwrap();
    Browser::at(&room).log_in("alice").await;
    assert_eq!(number(&database, "SELECT count(*) FROM job_sessions").await, 32);
    let oldest = "SELECT count(*) FROM job_sessions WHERE secret_sha256 = sha256('32')";
    assert_eq!(number(&database, oldest).await, 0);
}

#[tokio::test]
async fn only_pages_of_the_listener_change_something_by_a_session_or_end_it() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut alice = Browser::at(&room);
    alice.log_in("alice").await;
    let submit = json!({ "type": "pdf", "source_hash": "a" }).to_string();
    let (jobs, logout) = (format!("{ORIGIN}/api/jobs"), format!("{ORIGIN}/logout"));
    let foreign: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", "http://evil.example")],
        &[("origin", "http://127.0.0.1:5000")],
        &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://127.0.0.1:4999")],
    ];
    for headers in foreign {
        let answer = alice.send("POST", &jobs, headers, &submit).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("cross_site")), "{headers:?}");
        let answer = alice.send("POST", &logout, headers, "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("cross_site")), "{headers:?}");
    }
    // The original logs out by a link, which any page can have.
    for path in ["/logout", "/auth/logout"] {
        let answer = alice.get(path).await;
        assert_eq!((answer.status, answer.all("allow")), (405, vec!["POST"]), "{path}");
    }
    assert_eq!(alice.send("POST", &jobs, &[("sec-fetch-site", "same-origin")], &submit).await.status, 201);
    // Links from elsewhere lead to pages; scripts from elsewhere, and links to the API, do not get an answer.
    let link =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(alice.send("GET", &format!("{ORIGIN}/jobs"), &link, "").await.status, 200);
    assert_eq!(alice.send("GET", &jobs, &link, "").await.status, 403);
    let script = [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")];
    assert_eq!(alice.send("GET", &jobs, &script, "").await.status, 403);
    assert_eq!(alice.send("POST", &logout, &[("origin", ORIGIN)], "").await.status, 200);
    assert_eq!(number(&database, "SELECT count(*) FROM job_sessions").await, 0);
}

#[tokio::test]
async fn without_a_provider_nothing_of_a_login_is_served() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for (method, path) in [
        ("GET", "/login"),
        ("GET", "/auth/login"),
        ("GET", "/auth/callback?code=a&state=b"),
        ("POST", "/logout"),
    ] {
        let (status, answer) = http(room.address, method, path, &[], None).await;
        assert_eq!((status, &answer["code"]), (501, &json!("login_off")), "{path}");
    }
    let cookie = format!("{SESSION}={}", "x".repeat(43));
    assert_eq!(http(room.address, "GET", "/api/jobs", &[("cookie", &cookie)], None).await.0, 200);
}

#[tokio::test]
async fn logins_of_one_address_are_bounded() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut browser = Browser::at(&room);
    let url = format!("{ORIGIN}/login");
    // One more is allowed every two seconds.
    let mut allowed = 0;
    loop {
        match browser.send("GET", &url, &[("x-forwarded-for", "192.0.2.7")], "").await.status {
            302 if allowed < 200 => allowed += 1,
            429 => break,
            other => panic!("{other} after {allowed}"),
        }
    }
    assert!(allowed >= 30, "{allowed}");
    assert_eq!(browser.get("/login").await.status, 302, "a program on this machine is not counted");
    let full = "INSERT INTO job_logins SELECT sha256(n::text::bytea), sha256('b'), '', '', '/', now() + interval '1 minute'
                FROM generate_series(1, 10000) n";
    database.owner().await.execute(full, &[]).await.unwrap();
    assert_eq!(browser.get("/login").await.status, 503);
}
