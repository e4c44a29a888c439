//! Health, what the client is known as, the login where it is off, and schedules.

use serde_json::json;

use super::{Golden, bad, missing};
use crate::jobs::kit::{Room, number};
use crate::support::database::TestDatabase;

pub(super) const HEALTH: &[&str] = &["GET /health", "GET /api/health", "GET /api/auth/info"];

#[tokio::test]
async fn health_and_what_is_not_there_answer_as_the_original() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, HEALTH);
    for path in ["/health", "/api/health"] {
        golden.ask("GET", path, None, 200, json!({ "status": "healthy" })).await;
    }
    let local = json!({ "authenticated": true, "user": { "name": "local", "is_admin": false } });
    golden.ask("GET", "/api/auth/info", None, 200, local).await;
    let (status, answer) = room.get("/api/nothing").await;
    assert_eq!(status, 404);
    assert!(answer["error"].is_string(), "{answer}");
}

pub(super) const LOGIN: &[&str] = &[
    "GET /login",
    "GET /auth/login",
    "GET /auth/callback",
    "POST /logout",
    "POST /auth/logout",
    "GET /api/auth/info",
];

#[tokio::test]
async fn where_people_do_not_log_in_the_login_says_so() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("root", true, &[]).await;
    let golden = Golden::with(room, LOGIN, admin);
    let message = "people do not log in here: services.jobs.oidc.issuer has no value";
    let off = json!({ "code": "login_off", "error": message, "message": message });
    for route in LOGIN.iter().filter(|route| !route.contains("/api/")) {
        let (method, path) = route.split_once(' ').unwrap();
        golden.ask(method, path, None, 501, off.clone()).await;
    }
    let known = json!({ "authenticated": true, "user": { "name": "root", "is_admin": true } });
    golden.ask("GET", "/api/auth/info", None, 200, known).await;
    let stranger = Golden::with(room, &["GET /api/auth/info"], "bf_wrong".to_owned());
    let unknown = json!({ "authenticated": false, "oidc_enabled": false });
    stranger.ask("GET", "/api/auth/info", None, 200, unknown).await;
}

pub(super) const SCHEDULES: &[&str] =
    &["GET /api/schedules", "POST /api/schedules", "DELETE /api/schedules/{name}"];

#[tokio::test]
async fn schedules_are_set_listed_and_removed() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, SCHEDULES);
    let mut set = json!({ "name": "nightly", "cron": "0 3 * * *", "type": "report", "metadata": { "a": 1 } });
    golden.ask("POST", "/api/schedules", Some(set.clone()), 200, json!({ "status": "set" })).await;
    let nightly = json!({
        "name": "nightly", "cron": "0 3 * * *", "timezone": "UTC", "type": "report", "priority": 3, "max_attempts": 3, "tags": null,
        "metadata": { "a": 1 }, "since": "NOW",
    });
    golden.ask("GET", "/api/schedules", None, 200, json!({ "schedules": [nightly] })).await;
    let listed = async || room.get("/api/schedules").await.1["schedules"][0].clone();
    let first = listed().await;
    // UTC by name is no change; another time zone is one.
    for zone in ["UTC", "Europe/Berlin"] {
        set["timezone"] = json!(zone);
        golden.ask("POST", "/api/schedules", Some(set.clone()), 200, json!({ "status": "set" })).await;
        let now = listed().await;
        assert_eq!(now["timezone"], zone, "{now}");
        assert_eq!(now["since"] == first["since"], zone == "UTC", "{now}");
    }
    let unknown = json!({ "name": "x", "cron": "0 3 * * *", "type": "y", "timezone": "Europe/Atlantis" });
    let (status, answer) = room.post("/api/schedules", &unknown).await;
    assert_eq!((status, &answer["field"]), (400, &json!("timezone")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("Europe/Atlantis"), "{answer}");
    let never = json!({ "name": "x", "cron": "0 0 1 * +MON#5", "type": "y" });
    let (status, answer) = room.post("/api/schedules", &never).await;
    assert_eq!((status, &answer["field"]), (400, &json!("cron")), "{answer}");
    let said = "cron is a cron expression without a time in the next 10 years: `0 0 1 * +MON#5`";
    assert_eq!(answer["message"], said);
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": "x", "cron": "now", "type": "y" }), "cron"),
        (json!({ "name": "x", "cron": "0 3 * * *" }), "type"),
        (json!({ "name": "x", "cron": "0 3 * * *", "type": "y", "priority": 0 }), "priority"),
    ] {
        golden.refused("POST", "/api/schedules", Some(body), 400, bad(field)).await;
    }
    golden.ask("DELETE", "/api/schedules/nightly", None, 200, json!({ "status": "removed" })).await;
    golden.ask("GET", "/api/schedules", None, 200, json!({ "schedules": [] })).await;
    let audit = "SELECT count(*) FROM job_audit WHERE detail ->> 'timezone' = 'Europe/Berlin'";
    assert_eq!(number(&database, audit).await, 2, "set and removed");
    golden.ask("DELETE", "/api/schedules/none", None, 404, missing("schedule")).await;
}
