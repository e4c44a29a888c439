//! What comes back from the provider: logins that were changed on their way, tokens that are not believed, claims at the
//! userinfo endpoint, and a provider that is away or has new keys.

use quipu::services::jobs::append::forget_expired_sessions;
use serde_json::json;

use super::kit::{http, number};
use super::login_kit::{Browser, ORIGIN, Provider, SESSION, with_parameter};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_login_that_was_changed_on_its_way_gives_no_session() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    // The provider puts another nonce into the ID token, or redeems the code for another verifier.
    for (name, value) in
        [("nonce", "other"), ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbjGJSstw-cM")]
    {
        let mut browser = Browser::at(&room);
        let begun = browser.begin("/login").await;
        let back = browser.through_provider(&with_parameter(&begun, name, value), "alice").await;
        let answer = browser.send("GET", &back, &[], "").await;
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        assert_eq!(browser.cookie(SESSION), None);
    }
    // The browser returns with another state, from another provider, without its cookie, or with an error.
    let mut browser = Browser::at(&room);
    for (name, value, status) in [
        ("state", "other", 400),
        ("iss", "http://evil.example", 401),
        ("code", "other", 401),
        ("iss", "", 401),
    ] {
        let begun = browser.begin("/login").await;
        let back = browser.through_provider(&begun, "alice").await;
        let changed = with_parameter(&back.parse().unwrap(), name, value);
        let answer = browser.send("GET", changed.as_str(), &[], "").await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    let begun = browser.begin("/login").await;
    let state = begun.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let refused = format!("{ORIGIN}/auth/callback?error=access_denied&state={state}&iss={}", provider.issuer);
    let answer = browser.send("GET", &refused, &[], "").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("<h2>Login failed</h2>"), "{answer:?}");
    let begun = browser.begin("/login").await;
    let back = browser.through_provider(&begun, "alice").await;
    assert_eq!(
        Browser::at(&room).send("GET", &back, &[], "").await.status,
        400,
        "the browser of another person"
    );
    // A state counts once, for the browser that began.
    assert_eq!(browser.send("GET", &back, &[], "").await.status, 302);
    let session = browser.cookie(SESSION).unwrap().to_owned();
    assert_eq!(browser.send("GET", &back, &[], "").await.status, 400);
    let mut again = Browser::at(&room);
    let begun = again.begin("/login").await;
    let back = again.through_provider(&begun, "alice").await;
    let mark = again.cookie("blobforge_login").unwrap().to_owned();
    assert_eq!(again.send("GET", &back, &[], "").await.status, 302);
    again.set_cookie("blobforge_login", &mark);
    assert_eq!(
        again.send("GET", &back, &[], "").await.status,
        400,
        "with the cookie that the browser was told to forget"
    );
    browser.set_cookie(SESSION, &session);
    assert_eq!(browser.get("/api/jobs").await.status, 200, "the session is not touched");
    // Ten minutes later nothing is left of a login.
    let begun = again.begin("/login").await;
    let back = again.through_provider(&begun, "alice").await;
    let late = "WITH old AS (UPDATE job_logins SET expires_at = clock_timestamp() RETURNING 1) SELECT count(*) FROM old";
    assert!(number(&database, late).await >= 1);
    assert_eq!(again.send("GET", &back, &[], "").await.status, 400);
    forget_expired_sessions(&room.parts.pools).await.unwrap();
    assert_eq!(number(&database, "SELECT count(*) FROM job_logins").await, 0);
}

#[tokio::test]
async fn a_token_signed_with_the_clients_secret_is_refused() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room_with(&database, |login| login.client_id = Some("hmac".to_owned())).await;
    let mut browser = Browser::at(&room);
    assert_eq!(browser.log_in("alice").await.status, 401);
    assert_eq!(number(&database, "SELECT count(*) FROM job_sessions").await, 0);
}

#[tokio::test]
async fn groups_are_asked_for_where_the_id_token_has_none() {
    let database = TestDatabase::new().await;
    let provider = Provider::at(0, &["conform"]).await;
    let room = provider.room(&database).await;
    let mut browser = Browser::at(&room);
    assert_eq!(browser.log_in("root").await.status, 302);
    let user = &browser.get("/api/auth/info").await.json()["user"];
    assert_eq!((&user["is_admin"], &user["email"]), (&json!(true), &json!("root@example.test")));
    assert_eq!(Browser::at(&room).log_in("mallory").await.status, 403);
}

#[tokio::test]
async fn a_provider_that_is_away_stops_logins_and_nothing_else_and_may_change_its_keys() {
    let database = TestDatabase::new().await;
    let provider = Provider::start().await;
    let room = provider.room(&database).await;
    let mut browser = Browser::at(&room);
    browser.log_in("alice").await;
    let begun = browser.begin("/login").await;
    let port = provider.stop().await;
    let token = format!("Bearer {}", room.token("reader", false, &["read"]).await);
    assert_eq!(http(room.address, "GET", "/api/jobs", &[("authorization", &token)], None).await.0, 200);
    assert_eq!(browser.get("/api/jobs").await.status, 200, "a session that is open");
    let state = begun.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let back = format!("{ORIGIN}/auth/callback?code=x&state={state}&iss=http://127.0.0.1:{port}");
    let answer = browser.send("GET", &back, &[], "").await;
    assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["60"]), "{answer:?}");

    let renewed = Provider::at(port, &[]).await;
    let mut later = Browser::at(&room);
    assert_eq!(later.log_in("root").await.status, 302, "its new key is asked for");
    let port = renewed.stop().await;
    let again = Provider::at(port, &[]).await;
    assert_eq!(Browser::at(&room).log_in("root").await.status, 401, "but not twice in a minute");
    again.stop().await;
}
