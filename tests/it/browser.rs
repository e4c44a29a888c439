//! The console in a real browser: live entries appear on the page, and the page makes no request to another
//! host.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use quipu::http::Listener;
use quipu::services::console::routes;
use serde_json::json;
use tokio::time::interval;

use crate::chromium::Browser;
use crate::console::{Console, console_under_test};

async fn listening(console: &Console, address: &str) -> SocketAddr {
    let listener = Listener::bind("console", "http.console_address", address.parse().unwrap()).await.unwrap();
    let address = listener.address();
    console.edge.serve(&console.lifecycle, listener, routes(console.state.clone()));
    address
}

/// Archives events at a steady pace, for as long as it is polled.
async fn archive(console: &Console) {
    let insert = "SELECT insert_event_batch(gen_random_uuid(), 'relay', '{}', ARRAY[sha256(convert_to(g::text || $1::text, 'UTF8'))],
                         ARRAY[sha256('a')], ARRAY[extract(epoch FROM now())::bigint - g * 60],
                         ARRAY[(ARRAY[1,1,1,1,7,7,7,0,3,6,9735,1059,10002,30023])[1 + g % 14]], ARRAY['[]'], ARRAY['x'],
                         ARRAY[decode(repeat('00', 64), 'hex')], ARRAY[NULL::bytea], ARRAY[0],
                         insert_relay((ARRAY['wss://relay.one.example', 'wss://two.example', 'wss://three.example'])[1 + g % 3]),
                         '{}', '{}', '{}', '{}', 0)
                  FROM generate_series(1, 20) g";
    let pools = console.database.pools();
    let mut pace = interval(Duration::from_millis(200));
    loop {
        pace.tick().await;
        console.owner.query(insert, &[&uuid::Uuid::new_v4().to_string()]).await.unwrap();
        console.tick().await;
        for projection in quipu::app::registry::projections() {
            if projection.upkeep == quipu::store::projection::Upkeep::Ticks {
                projection.catch_up(&pools.write).await.unwrap();
            }
        }
    }
}

/// Runs `work` while events are archived.
async fn meanwhile<T>(console: &Console, work: impl Future<Output = T>) -> T {
    tokio::select! {
        () = archive(console) => unreachable!("it archives for ever"),
        done = work => done,
    }
}

#[tokio::test]
async fn live_entries_reach_the_page_and_no_request_leaves_for_another_host() {
    let console = console_under_test().await;
    let url = format!("http://{}/", listening(&console, "127.0.0.1:0").await);
    let mut browser = Browser::open(&url).await;
    // The archive is empty, and the page says what to do.
    browser.until("document.body.innerText.includes('Nothing archived yet.')").await;
    browser.until("document.getElementById('link').dataset.state === 'live'").await;
    // What is wrong appears by itself, and disappears when it is healed.
    let wrong = |words: &str| format!("document.getElementById('panel-wrong').innerText.includes('{words}')");
    browser.until(&wrong("Nothing is wrong.")).await;
    console.health.starting("finder");
    console.health.cycle_failed("finder", "no network");
    browser.until(&wrong("The service finder fails: no network.")).await;
    console.health.cycle_succeeded("finder");
    browser.until(&wrong("Nothing is wrong.")).await;
    let shown = meanwhile(&console, async {
        browser.until("document.querySelectorAll('#feed li[data-live]').length >= 40").await;
        // The counters arrive with the stream; the panels are polled.
        browser.until("Number(document.querySelector('[data-live=events]').textContent) > 0").await;
        browser.until("!document.body.innerText.includes('Nothing archived yet.')").await;
        browser.until("document.querySelector('#panel-lists').innerText.includes('text note')").await;
        browser
            .evaluate(
                "[...document.querySelectorAll('#feed li')].map((line) => Number(line.dataset.position))",
            )
            .await
    });
    let shown: Vec<i64> = serde_json::from_value(shown.await).unwrap();
    assert_eq!(
        shown.len(),
        shown.iter().collect::<BTreeSet<_>>().len(),
        "an entry is shown twice: {shown:?}"
    );

    // While paused, the feed does not change and counts new entries.
    meanwhile(&console, async {
        browser.evaluate("document.getElementById('hold').click()").await;
        let held = browser.evaluate("document.querySelector('#feed li').dataset.position").await;
        browser.until("document.getElementById('hold').textContent.includes('new')").await;
        assert_eq!(browser.evaluate("document.querySelector('#feed li').dataset.position").await, held);
        browser.evaluate("document.getElementById('hold').click()").await;
        browser
            .until(&format!(
                "document.querySelector('#feed li').dataset.position !== '{}'",
                held.as_str().unwrap()
            ))
            .await;
    })
    .await;

    // The newest tick of an era that the page does not know: the page reloads by itself.
    console.owner.batch_execute("TRUNCATE tick").await.unwrap();
    browser.evaluate("window.isOld = true").await;
    meanwhile(
        &console,
        browser.until("window.isOld !== true && document.querySelectorAll('#feed li[data-live]').length > 0"),
    )
    .await;

    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    // Only links lead elsewhere.
    let foreign = "[...document.querySelectorAll('[src],[href]:not(a)')].map((e) => e.src || e.href).filter((u) => u && !u.startsWith(location.origin))";
    assert_eq!(browser.evaluate(foreign).await, serde_json::json!([]));
    let asked = &browser.requests;
    assert!(asked.iter().any(|asked| asked.starts_with(&format!("{url}events"))), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.starts_with(&url)), "requests to other hosts: {asked:?}");
    browser.close().await;
    console.lifecycle.drain();
}

#[tokio::test]
async fn nothing_scrolls_sideways_at_any_width_in_either_scheme() {
    let console = console_under_test().await;
    let url = format!("http://{}/", listening(&console, "127.0.0.1:0").await);
    console.health.starting("finder");
    console.health.cycle_failed("finder", "wss://relay.example cannot be reached: connection refused");
    let mut browser = Browser::open(&url).await;
    fits_everywhere(&mut browser, "empty").await;
    meanwhile(&console, async {
        browser.until("document.querySelectorAll('#feed li[data-live]').length >= 20").await;
        fits_everywhere(&mut browser, "busy").await;
    })
    .await;
    browser.close().await;
    console.lifecycle.drain();
}

async fn fits_everywhere(browser: &mut Browser, state: &str) {
    for scheme in ["light", "dark"] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", media).await;
        for width in [380, 820, 1360] {
            let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
            browser.call("Emulation.setDeviceMetricsOverride", size).await;
            browser.until(&format!("window.innerWidth === {width}")).await;
            let too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(too_wide).await, false, "{state}, {scheme}, {width} px");
        }
    }
}
