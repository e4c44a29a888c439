//! Pages where people log in: strangers are sent to the login, and the head says who is logged in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu::services::jobs::append::forget_expired_sessions;
use serde_json::json;

use super::kit::{Room, http, number};
use super::login_kit::{Browser, ORIGIN, Provider, SESSION};
use crate::support::database::TestDatabase;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[tokio::test]
async fn a_stranger_is_sent_to_the_login_and_comes_back_to_the_page() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut browser = Browser::at(&room);
    for (path, login) in [
        ("/jobs?status=dead", "/login?return_to=%2Fjobs%3Fstatus%3Ddead"),
        ("/", "/login?return_to=%2F"),
        ("/admin/tokens", "/login?return_to=%2Fadmin%2Ftokens"),
    ] {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.location()), (303, login), "{path}");
        assert_eq!(answer.all("www-authenticate"), Vec::<&str>::new());
        assert_eq!(answer.all("cache-control"), ["no-store"]);
    }
    // Scripts and forms cannot follow, and a token that is refused is asked for again.
    let jobs = format!("{ORIGIN}/jobs");
    let script = [("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin")];
    let answer = browser.send("GET", &jobs, &script, "").await;
    assert_eq!((answer.status, answer.all("www-authenticate")), (401, vec![]), "{answer:?}");
    let cancel = format!("{ORIGIN}/actions/jobs/1/cancel");
    let answer = browser.send("POST", &cancel, &[("origin", ORIGIN), FORM], "").await;
    assert_eq!((answer.status, answer.all("www-authenticate")), (401, vec![]));
    assert!(answer.body.contains("<a href=\"/login\">Log in</a>"), "{answer:?}");
    let wrong = format!("Basic {}", STANDARD.encode("me:bf_wrong"));
    let answer = browser.send("GET", &jobs, &[("authorization", &wrong)], "").await;
    assert_eq!((answer.status, answer.all("www-authenticate").len()), (401, 1));
    let token = format!("Bearer {}", room.token("reader", false, &["read"]).await);
    let answer = browser.send("GET", &jobs, &[("authorization", &token)], "").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("Log out"), "a token has no session");

    let begun = browser.begin("/login?return_to=%2Fjobs%3Fstatus%3Ddead").await;
    let back = browser.through_provider(&begun, "root").await;
    let answer = browser.send("GET", &back, &[], "").await;
    assert_eq!((answer.status, answer.location()), (302, "/jobs?status=dead"));
    let shown = browser.get("/jobs?status=dead").await;
    assert_eq!(shown.status, 200);
    for part in [
        "<bdi>The root</bdi>",
        "title=\"user:root@example.test\"",
        "action=\"/actions/logout\"",
        "/admin/audit",
    ] {
        assert!(shown.body.contains(part), "{part}: {}", shown.body);
    }
    assert_eq!(browser.get("/admin/audit").await.status, 200);
    // A person who is no administrator is refused, not sent to the login again.
    let mut alice = Browser::at(&room);
    alice.log_in("alice").await;
    let shown = alice.get("/workers").await;
    assert!(!shown.body.contains("/admin/") && !shown.body.contains("New worker"), "{}", shown.body);
    assert_eq!(alice.get("/admin/audit").await.status, 403);
}

#[tokio::test]
async fn a_person_logs_out_by_the_button_of_the_pages_alone() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut alice = Browser::at(&room);
    alice.log_in("alice").await;
    let logout = format!("{ORIGIN}/actions/logout");
    for headers in [&[FORM][..], &[FORM, ("origin", "http://evil.example")], &[FORM, ("origin", "null")]] {
        let answer = alice.send("POST", &logout, headers, "").await;
        assert_eq!(answer.status, 403, "{headers:?}: {answer:?}");
    }
    assert_eq!(alice.get("/actions/logout").await.status, 405);
    assert_eq!(alice.get("/jobs").await.status, 200);
    let session = alice.cookie(SESSION).unwrap().to_owned();
    let answer = alice.send("POST", &logout, &[FORM, ("origin", ORIGIN)], "").await;
    assert_eq!((answer.status, answer.location()), (303, "/logged-out"), "{answer:?}");
    assert_eq!(alice.cookie(SESSION), None);
    let shown = alice.get("/logged-out").await;
    assert_eq!(shown.status, 200);
    assert!(shown.body.contains("You are logged out") && shown.body.contains("href=\"/login\""), "{shown:?}");
    assert_eq!(alice.get("/jobs").await.status, 303);
    alice.set_cookie(SESSION, &session);
    assert_eq!(alice.get("/jobs").await.status, 303, "the session is over, not only its cookie");
    assert_eq!(number(&database, "SELECT count(*) FROM job_user_log WHERE kind = 'logout'").await, 1);

    // A session that ran out leads to the login as well.
    alice.log_in("alice").await;
    let late = "WITH old AS (UPDATE job_sessions SET expires_at = clock_timestamp() RETURNING 1) SELECT count(*) FROM old";
    assert_eq!(number(&database, late).await, 1);
    forget_expired_sessions(&room.parts.pools).await.unwrap();
    let second = provider.room(&database).await;
    let mut later = Browser::at(&second);
    later.set_cookie(SESSION, alice.cookie(SESSION).unwrap());
    assert_eq!(later.get("/jobs").await.status, 303);
}

#[tokio::test]
async fn without_a_provider_the_pages_offer_no_login() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (status, answer) = http(room.address, "POST", "/actions/logout", &[], None).await;
    assert_eq!((status, &answer["code"]), (501, &json!("login_off")));
    let (status, shown) = http(room.address, "GET", "/jobs", &[], None).await;
    let shown = shown.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(!shown.contains("Log in") && !shown.contains("Log out"), "{shown}");
}
