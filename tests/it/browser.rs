//! The console in a real browser: what arrives live is on the page, and nothing leaves for another host.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quipu::http::{bind, serve};
use tokio::process::Command;
use tokio::time::{interval, sleep, timeout};

use crate::console::{Console, console_under_test};

async fn listening(console: &Console, address: &str) -> SocketAddr {
    let listener = bind(address.parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(&console.lifecycle, "console listener", listener, console.router.clone());
    address
}

/// Archives events at a steady pace, for as long as it is polled.
async fn archive(console: &Console) {
    let insert = "SELECT insert_event(sha256(convert_to(g::text || $1::text, 'UTF8')), sha256('a'),
                         extract(epoch FROM now())::bigint - g * 60, (ARRAY[1,1,1,1,7,7,7,0,3,6,9735,1059,10002,30023])[1 + g % 14], '[]', 'x',
                         decode(repeat('00', 64), 'hex'), (ARRAY['wss://relay.one.example', 'wss://two.example', 'ws://three.onion'])[1 + g % 3])
                  FROM generate_series(1, 20) g";
    let mut pace = interval(Duration::from_millis(200));
    for round in 0.. {
        pace.tick().await;
        console.owner.query(insert, &[&format!("{round}")]).await.unwrap();
        console.tick().await;
        for projection in quipu::services::archive::project::PROJECTIONS {
            if projection.upkeep == quipu::store::projection::Upkeep::Ticks {
                projection.catch_up(&console.database.doors().write).await.unwrap();
            }
        }
    }
}

/// Chromium's options that keep it from talking to anybody by itself.
fn chromium(profile: &Path) -> Command {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.join("profile").display()));
    command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn live_entries_reach_the_page_and_no_request_leaves_for_another_host() {
    let console = console_under_test().await;
    let address = listening(&console, "127.0.0.1:0").await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("net.json");
    let url = format!("http://{address}/");
    let browsing = chromium(folder.path())
        .arg(format!("--log-net-log={}", log.display()))
        .args(["--timeout=8000", "--dump-dom", &url])
        .stdout(Stdio::piped())
        .output();
    let seen = tokio::select! {
        () = archive(&console) => unreachable!("it archives for ever"),
        seen = timeout(Duration::from_secs(60), browsing) => seen.expect("chromium ends in time"),
    };
    let seen = match seen {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("chromium is missing: install Debian's package `chromium`")
        }
        seen => String::from_utf8(seen.unwrap().stdout).unwrap(),
    };
    assert!(seen.contains("data-state=\"live\""), "the link is not live: {seen}");
    let live = seen.matches("data-live=\"\"").count();
    assert!(live >= 5, "{live} live entries in {seen}");
    assert!(!seen.contains("Nothing archived yet."), "the panels were not renewed: {seen}");
    let foreign: Vec<&str> =
        seen.match_indices("http").map(|(at, _)| &seen[at..(at + 40).min(seen.len())]).collect();
    assert!(
        foreign
            .iter()
            .all(|url| url.starts_with("http://127.0.0.1:") || url.starts_with("http://www.w3.org/")),
        "{foreign:?}"
    );

    let log = std::fs::read_to_string(log).unwrap();
    let asked: Vec<&str> =
        log.split("\"url\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(asked.iter().any(|asked| asked.starts_with(&url)), "the log of the network names our page");
    let others: Vec<&&str> =
        asked.iter().filter(|asked| asked.starts_with("http") && !asked.starts_with(&url)).collect();
    assert!(others.is_empty(), "requests to others: {others:?}");
    console.lifecycle.drain();
}

/// For eyes: `cargo test --test it look_at_the_console -- --ignored`, then open http://127.0.0.1:4799/.
#[tokio::test]
#[ignore = "serves until it is stopped"]
async fn look_at_the_console() {
    let console = console_under_test().await;
    let address = listening(&console, "127.0.0.1:4799").await;
    for service in ["finder", "initializer", "projector", "synchronizer", "ticker"] {
        console.health.starting(service);
        console.health.cycle_succeeded(service);
    }
    console.health.done("initializer");
    console.health.cycle_failed("finder", "wss://relay.example cannot be reached: connection refused");
    println!("http://{address}/");
    sleep(Duration::from_secs(20)).await;
    archive(&console).await;
}
