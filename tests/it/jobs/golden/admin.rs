//! Tokens, workers, people and the audit, for administrators.

use quipu::services::jobs::append::UserJournal;
use quipu::services::jobs::command::{NewSession, UserCommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Golden, bad, missing, plain};
use crate::jobs::kit::{Room, http};
use crate::support::database::TestDatabase;

/// Checks that a program on this machine, which is no administrator, gets nothing.
async fn forbidden(room: &Room, method: &str, path: &str) {
    let message = "an administrator's token or session is required";
    let expected = json!({ "code": "forbidden", "error": message, "message": message });
    let (status, answer) = http(room.address, method, path, &[], None).await;
    assert_eq!((status, plain(answer)), (403, expected), "{method} {path}");
}

/// The answer about a worker that is not there.
fn no_worker() -> Value {
    json!({ "code": "not_found", "error": "worker not found", "field": "worker_id" })
}

pub(super) const TOKENS: &[&str] = &[
    "GET /api/tokens",
    "POST /api/tokens",
    "DELETE /api/tokens/{id}",
    "GET /api/admin/tokens",
    "POST /api/admin/tokens",
    "DELETE /api/admin/tokens/{id}",
];

#[tokio::test]
async fn tokens_are_created_listed_and_deleted() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("root", true, &[]).await;
    let golden = Golden::with(room, TOKENS, admin);
    for path in ["/api/tokens", "/api/admin/tokens"] {
        let create = json!({ "name": "ci", "scopes": ["read", "submit"], "expires_in": 30 });
        let (status, created) = golden.answer("POST", path, Some(&create)).await;
        let id = created["id"].clone();
        let expected = json!({ "id": id, "token": "SECRET", "name": "ci" });
        assert_eq!((status, plain(created)), (201, expected));
        let (status, listed) = golden.answer("GET", path, None).await;
        let first = json!({ "id": listed[0]["id"], "name": "root", "is_admin": true, "created_at": "NOW" });
        let ci = json!({
            "id": id, "name": "ci", "is_admin": false, "scopes": ["read", "submit"], "created_at": "NOW", "expires_at": "NOW",
        });
        assert_eq!((status, plain(listed)), (200, json!([first, ci])));
        for (body, field) in [
            (json!({}), "name"),
            (json!({ "name": "x", "scopes": ["everything"] }), "scopes"),
            (json!({ "name": "x", "expires_in": -1 }), "expires_in"),
        ] {
            golden.refused("POST", path, Some(body), 400, bad(field)).await;
        }
        let one = format!("{path}/{id}");
        golden.ask("DELETE", &one, None, 200, json!({ "status": "deleted" })).await;
        golden.ask("DELETE", &format!("{path}/0"), None, 404, missing("token")).await;
        golden.refused("DELETE", &format!("{path}/x"), None, 400, bad("id")).await;
        forbidden(room, "GET", path).await;
        forbidden(room, "POST", path).await;
        forbidden(room, "DELETE", &one).await;
    }
}

pub(super) const WORKERS: &[&str] = &[
    "POST /api/admin/workers",
    "POST /api/admin/workers/{id}/regenerate",
    "POST /api/admin/workers/{id}/enable",
    "POST /api/admin/workers/{id}/disable",
    "GET /api/workers",
    "POST /api/workers/{id}/drain",
    "POST /api/workers/{id}/suspend",
    "POST /api/workers/{id}/resume",
    "DELETE /api/workers/{id}",
];

#[tokio::test]
async fn workers_are_created_switched_and_removed() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("root", true, &[]).await;
    let golden = Golden::with(room, WORKERS, admin);
    let create = json!({ "id": "w1", "name": "One", "type": "pdf" });
    let created = json!({ "id": "w1", "name": "One", "type": "pdf", "secret": "SECRET" });
    golden.ask("POST", "/api/admin/workers", Some(create.clone()), 201, created).await;
    let exists = json!({ "code": "conflict", "error": "worker already exists", "field": "worker_id" });
    golden.refused("POST", "/api/admin/workers", Some(create), 409, exists).await;
    golden.refused("POST", "/api/admin/workers", Some(json!({ "id": "w2" })), 400, bad("id")).await;
    let worker = json!({
        "id": "w1", "name": "One", "type": "pdf", "status": "offline", "enabled": true, "created_at": "NOW", "updated_at": "NOW",
    });
    golden.ask("GET", "/api/workers", None, 200, json!([worker])).await;

    let renewed = json!({ "id": "w1", "secret": "SECRET" });
    golden.ask("POST", "/api/admin/workers/w1/regenerate", None, 200, renewed).await;
    golden.ask("POST", "/api/admin/workers/w9/regenerate", None, 404, missing("worker")).await;
    for (step, word) in [("disable", "disabled"), ("enable", "enabled")] {
        let path = |id: &str| format!("/api/admin/workers/{id}/{step}");
        golden.ask("POST", &path("w1"), None, 200, json!({ "status": word })).await;
        golden.refused("POST", &path("w9"), None, 404, no_worker()).await;
    }
    for (step, word) in [("drain", "draining"), ("suspend", "suspended"), ("resume", "resumed")] {
        let path = |id: &str| format!("/api/workers/{id}/{step}");
        golden.ask("POST", &path("w1"), None, 200, json!({ "status": word })).await;
        golden.refused("POST", &path("w9"), None, 404, no_worker()).await;
    }
    golden.ask("DELETE", "/api/workers/w1", None, 200, json!({ "status": "removed" })).await;
    golden.refused("DELETE", "/api/workers/w1", None, 404, no_worker()).await;

    for path in ["", "/w1/regenerate", "/w1/enable", "/w1/disable"] {
        forbidden(room, "POST", &format!("/api/admin/workers{path}")).await;
    }
}

pub(super) const PEOPLE: &[&str] = &[
    "GET /api/users",
    "GET /api/admin/users",
    "GET /api/admin/sessions",
    "DELETE /api/admin/sessions/{id}",
    "GET /api/admin/audit",
];

#[tokio::test]
async fn people_their_sessions_and_the_audit_are_listed() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("root", true, &[]).await;
    let golden = Golden::with(room, PEOPLE, admin);
    for path in ["/api/users", "/api/admin/users"] {
        golden.ask("GET", path, None, 200, Value::Null).await;
    }
    golden.ask("GET", "/api/admin/sessions", None, 200, json!({ "sessions": [] })).await;
    let session = Uuid::now_v7();
    let login = NewSession {
        session,
        sha256: [1; 32],
        issuer: "https://id.example".to_owned(),
        subject: "ada".to_owned(),
        label: "ada@example.test".to_owned(),
        name: Some("Ada".to_owned()),
        email: Some("ada@example.test".to_owned()),
        groups: vec!["users".to_owned()],
        is_admin: false,
        lifetime_s: 3_600,
    };
    room.parts.writer(UserJournal).append(UserCommand::Login(Box::new(login))).await.unwrap();
    let ada = json!({
        "id": "ada", "issuer": "https://id.example", "email": "ada@example.test", "name": "Ada", "groups": ["users"],
        "is_admin": false, "created_at": "NOW", "last_login": "NOW", "sessions": 1,
    });
    for path in ["/api/users", "/api/admin/users"] {
        golden.ask("GET", path, None, 200, json!([ada])).await;
    }
    let open = json!({
        "id": session, "user": "ada@example.test", "subject": "ada", "issuer": "https://id.example",
        "email": "ada@example.test", "name": "Ada", "groups": ["users"], "is_admin": false, "created_at": "NOW",
        "expires_at": "NOW", "is_own": false,
    });
    golden.ask("GET", "/api/admin/sessions", None, 200, json!({ "sessions": [open] })).await;
    let path = |id: &str| format!("/api/admin/sessions/{id}");
    let revoked = json!({ "status": "revoked" });
    golden.ask("DELETE", &path(&session.to_string()), None, 200, revoked).await;
    golden.ask("GET", "/api/admin/sessions", None, 200, json!({ "sessions": [] })).await;
    golden.ask("DELETE", &path(&Uuid::now_v7().to_string()), None, 404, missing("session")).await;
    golden.refused("DELETE", &path("x"), None, 400, bad("id")).await;

    room.ok("/api/schedules", &json!({ "name": "nightly", "cron": "0 3 * * *", "type": "report" })).await;
    let entry = json!({
        "position": "POSITION", "at": "NOW", "actor": "local", "action": "schedule_set", "subject": "nightly",
        "detail": { "cron": "0 3 * * *", "type": "report" },
    });
    let page = json!({ "entries": [entry], "next_before": "POSITION" });
    golden.ask("GET", "/api/admin/audit?limit=1", None, 200, page).await;
    let none = json!({ "entries": [], "next_before": null });
    golden.ask("GET", "/api/admin/audit?before=0", None, 200, none).await;
    golden.refused("GET", "/api/admin/audit?limit=101", None, 400, bad("limit")).await;
    for path in ["/api/users", "/api/admin/users", "/api/admin/sessions", "/api/admin/audit"] {
        forbidden(room, "GET", path).await;
    }
}
