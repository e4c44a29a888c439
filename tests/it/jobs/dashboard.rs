//! The pages of jobs in a real browser: they follow what happens, their buttons work, and nothing scrolls
//! sideways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::kit::{PDF, Room};
use crate::chromium::Browser;
use crate::support::database::TestDatabase;

/// Goes to another page.
async fn open(browser: &mut Browser, room: &Room, path: &str) {
    browser.call("Page.navigate", json!({ "url": format!("http://{}{path}", room.address) })).await;
    let there = path.split('?').next().unwrap();
    browser.until(&format!("location.pathname === '{there}' && document.readyState === 'complete'")).await;
}

/// An expression: an element has this text.
fn says(selector: &str, text: &str) -> String {
    format!("document.querySelector('{selector}').innerText.includes('{text}')")
}

const LIVE: &str = "document.getElementById('link').dataset.state === 'live'";

#[tokio::test]
async fn a_job_is_seen_to_be_submitted_fail_be_retried_and_be_cancelled() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let url = format!("http://{}/", room.address);
    let mut opened = Browser::open(&url).await;
    let browser = &mut opened;
    browser.until(&says("#panel-list", "No job was submitted yet.")).await;
    browser.until(LIVE).await;
    browser.evaluate("window.isSame = true").await;

    // Without a reload the list follows.
    let submit =
        json!({ "type": "pdf", "source_hash": "abc", "source_path": "reports/2026.pdf", "max_attempts": 1 });
    let job = room.ok("/api/jobs", &submit).await["job_id"].as_i64().unwrap();
    browser.until(&says("#panel-list a.job", &format!("#{job} pdf"))).await;
    browser.until(&says("#panel-queue", "No worker is online for pdf")).await;
    room.ok("/api/workers/register", &json!({ "id": "w1", "type": "pdf" })).await;
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await;
    browser.until(&says("#panel-list", "at w1")).await;
    room.ok(&format!("/api/jobs/{job}/fail"), &json!({ "worker_id": "w1", "error": "no such font" })).await;
    browser.until(&says("#panel-list", "no such font")).await;
    browser.until(&says("#panel-list", "dead")).await;
    assert_eq!(browser.evaluate("window.isSame").await, true);

    // Its page: why it failed, and another attempt.
    browser.evaluate("document.querySelector('#panel-list a.job').click()").await;
    browser.until(&format!("location.pathname === '/jobs/{job}'")).await;
    browser.until(&says("#panel-failures", "no such font")).await;
    browser.until(LIVE).await;
    // What is being typed outlasts an event.
    browser.evaluate("document.querySelector('#panel-actions form [name=why]').value = 'new font'").await;
    let body = json!({ "worker_id": "w1", "job_type": "pdf" });
    room.submit(PDF).await;
    room.ok("/api/jobs/claim", &body).await;
    browser.evaluate("document.querySelector('#panel-actions form[action$=retry] button').click()").await;
    browser.until(&says("#panel-history", "by local: new font")).await;
    browser.until(&says("#panel-job", "can be claimed")).await;
    browser.until(LIVE).await;
    room.ok("/api/jobs/claim", &body).await;
    browser.until(&says("#panel-job", "leased to a worker")).await;
    let progress =
        json!({ "worker_id": "w1", "lease_s": 700, "progress": { "percent": 25, "stage": "rendering" } });
    room.ok(&format!("/api/jobs/{job}/heartbeat"), &progress).await;
    browser.until("document.querySelector('#panel-job progress').value === 25").await;
    browser.until("document.querySelector('#panel-actions form[action$=cancel] button') !== null").await;
    browser.evaluate("document.querySelector('#panel-actions form[action$=cancel] button').click()").await;
    browser.until(&says("#panel-job", "will not run")).await;
    browser.until(&says("#panel-history", "cancelled")).await;
    let heartbeat = room.post(&format!("/api/jobs/{job}/heartbeat"), &json!({ "worker_id": "w1" })).await;
    assert_eq!((heartbeat.0, heartbeat.1["code"].as_str()), (409, Some("cancelled")));

    // Workers, by their buttons.
    open(browser, room, "/workers").await;
    browser.until(LIVE).await;
    browser.evaluate("document.querySelector('form[action$=drain] button').click()").await;
    browser.until(&says("#panel-workers", "draining")).await;

    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    let asked = &browser.requests;
    assert!(asked.iter().any(|asked| asked.starts_with(&format!("{url}events"))), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.starts_with(&url)), "requests to other hosts: {asked:?}");
    opened.close().await;
}

#[tokio::test]
async fn an_administrator_creates_and_revokes_a_token_in_the_browser() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("admin", true, &[]).await;
    let mut opened = Browser::open(&format!("http://{}/jobs", room.address)).await;
    let browser = &mut opened;
    // What a browser sends after its visitor has answered with a name and a password.
    let authorization = format!("Basic {}", STANDARD.encode(format!("me:{admin}")));
    let headers = json!({ "headers": { "authorization": authorization } });
    browser.call("Network.setExtraHTTPHeaders", headers).await;
    open(browser, room, "/admin/tokens").await;
    browser.until(&says("main", "admin")).await;
    browser.evaluate("document.querySelector('[name=name]').value = 'ci'").await;
    browser.evaluate("document.querySelector('form[action=\"/actions/tokens\"] button').click()").await;
    browser.until("document.getElementById('new-token').innerText.startsWith('bf_')").await;
    open(browser, room, "/admin/tokens").await;
    browser.until("document.querySelectorAll('form[action$=revoke]').length === 2").await;
    assert_eq!(browser.evaluate("document.getElementById('new-token')").await, Value::Null);
    browser.evaluate("document.querySelector('button[aria-label=\"Revoke ci\"]').click()").await;
    browser.until("document.querySelectorAll('form[action$=revoke]').length === 1").await;
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    opened.close().await;
}

#[tokio::test]
async fn no_page_scrolls_sideways_at_any_width_in_either_scheme() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let mut browser = Browser::open(&format!("http://{}/", room.address)).await;
    fits_everywhere(&mut browser, "empty").await;
    let long = "very-long-name-without-a-place-to-break-".repeat(4);
    for (number, job_type) in
        ["pdf", "thumbnail", "a-type-whose-name-has-no-place-to-break-and-sixty-four-character"]
            .into_iter()
            .enumerate()
    {
        for nth in 0..4 {
            let submit = json!({ "type": job_type, "source_hash": format!("{number}{nth}"), "source_path": format!("in/{long}/{nth}.pdf"),
                                 "max_attempts": 1 + nth % 2, "metadata": { "key": long }, "tags": [long] });
            room.ok("/api/jobs", &submit).await;
        }
        let worker = format!("{long}{number}");
        room.ok("/api/workers/register", &json!({ "id": worker, "type": job_type })).await;
        for nth in 0..3 {
            let claim = json!({ "worker_id": worker, "job_type": job_type });
            let job = room.ok("/api/jobs/claim", &claim).await["job"]["id"].as_i64().unwrap();
            let at = |action: &str| format!("/api/jobs/{job}/{action}");
            match nth {
                0 => {
                    let error = format!("Traceback: {long}\n{long}");
                    let body = json!({ "worker_id": worker, "error": error, "traceback": format!("{error}\n").repeat(9) });
                    room.ok(&at("fail"), &body).await
                }
                1 => {
                    room.ok(&at("complete"), &json!({ "worker_id": worker, "result": { "output": long } }))
                        .await
                }
                _ => {
                    room.ok(
                        &at("heartbeat"),
                        &json!({ "worker_id": worker, "lease_s": 700, "progress": { "percent": 60, "stage": long } }),
                    )
                    .await
                }
            };
        }
    }
    let failed = number_of(room, "dead").await;
    let running = number_of(room, "running").await;
    let done = number_of(room, "completed").await;
    room.ok("/api/workers/register", &json!({ "id": "w1", "type": "pdf" })).await;
    room.ok("/api/workers/w1/drain", &Value::Null).await;
    for path in [
        "/jobs".to_owned(),
        "/workers".to_owned(),
        format!("/jobs/{failed}"),
        format!("/jobs/{running}"),
        format!("/jobs/{done}"),
    ] {
        open(&mut browser, room, &path).await;
        fits_everywhere(&mut browser, &path).await;
    }
    let admin = room.token("admin", true, &[]).await;
    room.token(&long, false, &["read", "submit"]).await;
    let authorization = format!("Basic {}", STANDARD.encode(format!("me:{admin}")));
    browser
        .call("Network.setExtraHTTPHeaders", json!({ "headers": { "authorization": authorization } }))
        .await;
    for path in ["/admin/tokens", "/jobs/99"] {
        open(&mut browser, room, path).await;
        fits_everywhere(&mut browser, path).await;
    }
    browser.close().await;
}

async fn number_of(room: &Room, status: &str) -> i64 {
    let (_, found) = room.get(&format!("/api/jobs?status={status}")).await;
    found["jobs"][0]["id"].as_i64().unwrap_or_else(|| panic!("no job is {status}: {found}"))
}

async fn fits_everywhere(browser: &mut Browser, state: &str) {
    for scheme in ["light", "dark"] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", media).await;
        for width in [360, 480, 820, 1360] {
            let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
            browser.call("Emulation.setDeviceMetricsOverride", size).await;
            browser.until(&format!("window.innerWidth === {width}")).await;
            let too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(too_wide).await, false, "{state}, {scheme}, {width} px");
        }
    }
}
