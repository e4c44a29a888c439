//! Who may do what: tokens with scopes, secrets of workers, programs on this machine, web pages of others.

use serde_json::{Value, json};

use super::kit::{Room, http, number};
use crate::support::database::TestDatabase;

/// A request with a token.
async fn with_token(room: &Room, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    http(room.address, method, path, &[("authorization", &authorization)], body.as_ref()).await
}

/// A request with the secret of a worker.
async fn as_worker(room: &Room, id: &str, secret: &str, path: &str, body: Value) -> (u16, Value) {
    http(room.address, "POST", path, &[("x-worker-id", id), ("x-worker-secret", secret)], Some(&body)).await
}

async fn strict(database: &TestDatabase) -> Room {
    Room::with(database, |jobs| jobs.compat_unauthenticated = Some(false)).await
}

#[tokio::test]
async fn a_token_may_do_what_its_scopes_say_and_nothing_after_it_was_revoked() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let submit = || Some(json!({ "type": "pdf", "source_hash": "a" }));
    for (method, path) in [("GET", "/api/jobs"), ("GET", "/api/tokens"), ("GET", "/events")] {
        assert_eq!(http(room.address, method, path, &[], None).await.0, 401, "{path}");
        assert_eq!(with_token(&room, "bf_wrong", method, path, None).await.0, 401, "{path}");
    }
    let reader = room.token("reader", false, &["read"]).await;
    assert_eq!(with_token(&room, &reader, "GET", "/api/jobs", None).await.0, 200);
    let (status, answer) = with_token(&room, &reader, "POST", "/api/jobs", submit()).await;
    assert_eq!((status, answer["error"].as_str()), (403, Some("the scope `submit` is required")));
    let any = room.token("any", false, &[]).await;
    assert_eq!(with_token(&room, &any, "POST", "/api/jobs", submit()).await.0, 201);
    assert_eq!(with_token(&room, &any, "POST", "/api/jobs/1/cancel", None).await.0, 200);
    assert_eq!(with_token(&room, &any, "GET", "/api/tokens", None).await.0, 403);
    // An unknown scope grants nothing.
    let other = room.token("other", false, &["upload"]).await;
    assert_eq!(with_token(&room, &other, "GET", "/api/jobs", None).await.0, 403);

    let admin = room.token("admin", true, &[]).await;
    let create = json!({ "name": "made", "is_admin": false, "scopes": ["read"], "expires_in": 30 });
    let (status, made) = with_token(&room, &admin, "POST", "/api/admin/tokens", Some(create)).await;
    assert_eq!((status, &made["name"]), (201, &json!("made")));
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("bf_"), "{token}");
    assert_eq!(with_token(&room, token, "GET", "/api/stats", None).await.0, 200);
    let (_, tokens) = with_token(&room, &admin, "GET", "/api/tokens", None).await;
    let names: Vec<_> =
        tokens.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["reader", "any", "other", "admin", "made"]);
    assert!(!tokens.to_string().contains("bf_"));
    let delete = format!("/api/tokens/{}", made["id"]);
    let (status, answer) = with_token(&room, &admin, "DELETE", &delete, None).await;
    assert_eq!((status, answer), (200, json!({ "status": "deleted" })));
    assert_eq!(with_token(&room, token, "GET", "/api/stats", None).await.0, 401);
    assert_eq!(with_token(&room, &admin, "DELETE", "/api/tokens/1", None).await.0, 404);
    let wrong = json!({ "name": "x", "scopes": ["everything"] });
    assert_eq!(with_token(&room, &admin, "POST", "/api/tokens", Some(wrong)).await.0, 400);
    let audit = "SELECT count(*) FROM journal WHERE room = 'jobs' AND kind IN ('credential_created', 'credential_revoked')";
    assert_eq!(number(&database, audit).await, 6);
    let hashes =
        "SELECT count(*) FROM job_credentials WHERE octet_length(secret_sha256) <> 32 OR name LIKE 'bf_%'";
    assert_eq!(number(&database, hashes).await, 0);
}

#[tokio::test]
async fn a_worker_acts_as_itself_alone_until_it_is_disabled() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let admin = room.token("admin", true, &[]).await;
    let mut secrets = Vec::new();
    for id in ["w1", "w2"] {
        let create = json!({ "id": id, "name": "", "type": "pdf" });
        let (status, made) =
            with_token(&room, &admin, "POST", "/api/admin/workers", Some(create.clone())).await;
        assert_eq!((status, &made["id"], &made["type"]), (201, &json!(id), &json!("pdf")));
        secrets.push(made["secret"].as_str().unwrap().to_owned());
        assert_eq!(with_token(&room, &admin, "POST", "/api/admin/workers", Some(create)).await.0, 409);
    }
    assert!(secrets.iter().all(|secret| secret.starts_with("bfw_")));
    let [one, two] = [&secrets[0], &secrets[1]];
    let register = |id: &str| json!({ "id": id, "type": "pdf" });
    assert_eq!(as_worker(&room, "w1", one, "/api/workers/register", register("w1")).await.0, 200);
    assert_eq!(as_worker(&room, "w1", two, "/api/workers/register", register("w1")).await.0, 401);
    assert_eq!(as_worker(&room, "w2", two, "/api/workers/register", register("w1")).await.0, 403);
    let submit = json!({ "type": "pdf", "source_hash": "a" });
    assert_eq!(
        as_worker(&room, "w1", one, "/api/jobs", submit.clone()).await.0,
        403,
        "a worker submits nothing"
    );
    with_token(&room, &admin, "POST", "/api/jobs", Some(submit)).await;

    let claim = |id: &str| json!({ "worker_id": id, "job_type": "pdf" });
    assert_eq!(as_worker(&room, "w2", two, "/api/jobs/claim", claim("w1")).await.0, 403);
    let (_, claimed) = as_worker(&room, "w1", one, "/api/jobs/claim", claim("w1")).await;
    assert_eq!(claimed["job"]["id"], 1);
    let foreign = json!({ "worker_id": "w2", "lease_token": claimed["lease_token"] });
    assert_eq!(as_worker(&room, "w2", two, "/api/jobs/1/complete", foreign).await.0, 409);
    let by_name = json!({ "worker_id": "w1" });
    assert_eq!(as_worker(&room, "w2", two, "/api/jobs/1/complete", by_name.clone()).await.0, 403);

    let disable = "/api/admin/workers/w1/disable";
    assert_eq!(with_token(&room, &admin, "POST", disable, None).await.1, json!({ "status": "disabled" }));
    assert_eq!(as_worker(&room, "w1", one, "/api/jobs/1/complete", by_name.clone()).await.0, 401);
    with_token(&room, &admin, "POST", "/api/admin/workers/w1/enable", None).await;
    let (_, renewed) = with_token(&room, &admin, "POST", "/api/admin/workers/w1/regenerate", None).await;
    assert_eq!(as_worker(&room, "w1", one, "/api/jobs/1/complete", by_name.clone()).await.0, 401);
    let renewed = renewed["secret"].as_str().unwrap();
    assert_eq!(as_worker(&room, "w1", renewed, "/api/jobs/1/complete", by_name).await.0, 200);
}

#[tokio::test]
async fn draining_suspended_and_other_workers_get_no_jobs() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "a" })).await;
    room.ok("/api/workers/register", &json!({ "id": "w", "type": "pdf" })).await;
    let claim = json!({ "worker_id": "w", "job_type": "pdf" });
    for (event, reason) in [("drain", "draining"), ("suspend", "suspended")] {
        room.ok(&format!("/api/workers/w/{event}"), &json!({})).await;
        let answer = room.ok("/api/jobs/claim", &claim).await;
        assert_eq!((&answer["job"], &answer["reason"]), (&Value::Null, &json!(reason)));
    }
    // A restart of the worker does not end its suspension.
    room.ok("/api/workers/w/unregister", &json!({})).await;
    room.ok("/api/workers/register", &json!({ "id": "w", "type": "pdf" })).await;
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["reason"], "suspended");
    room.ok("/api/workers/w/resume", &json!({})).await;
    let other = room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "image" })).await;
    assert_eq!(other["reason"], "other_type");
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], 1);
    let (status, answer) = http(room.address, "DELETE", "/api/workers/w", &[], None).await;
    assert_eq!((status, answer), (200, json!({ "status": "removed" })));
    assert_eq!(room.get("/api/workers").await.1, Value::Null);
}

#[tokio::test]
async fn a_program_on_this_machine_needs_no_token_and_a_proxy_or_a_page_of_others_does() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let host = room.address.to_string();
    let own = format!("http://{host}");
    let submit = json!({ "type": "pdf", "source_hash": "a" });
    for (headers, expected) in [
        (vec![], 201),
        (vec![("origin", own.as_str())], 200),
        (vec![("x-forwarded-for", "127.0.0.1")], 401),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("authorization", "Bearer bf_wrong")], 401),
        (vec![("x-worker-id", "w"), ("x-worker-secret", "bfw_wrong")], 401),
    ] {
        let (status, answer) = http(room.address, "POST", "/api/jobs", &headers, Some(&submit)).await;
        assert_eq!(status, expected, "{headers:?}: {answer}");
    }
    // Tokens and secrets are made by administrators alone.
    assert_eq!(room.get("/api/tokens").await.0, 403);
    assert_eq!(room.post("/api/admin/workers", &json!({ "id": "w", "type": "pdf" })).await.0, 403);
    let stranger = json!({ "authenticated": false, "oidc_enabled": false });
    let (_, told) = http(room.address, "GET", "/api/auth/info", &[("x-forwarded-for", "::1")], None).await;
    assert_eq!(told, stranger);
}
