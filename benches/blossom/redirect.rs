//! Part `redirect`: redirects to upstreams, and blobs that no upstream has, against nginx.

use std::time::Duration;

use http::StatusCode;

use super::client::Client;
use super::content::{User, content, sha256};
use super::load::{Asked, CONNECTIONS, run};
use super::nginx::Nginx;
use super::room::Room;
use super::support::figure::{Bar, row};
use super::support::run::{Run, middle, middle_ms};
use super::upstream::{Keeping, Upstream};
use super::{Row, heading};

const ROUNDS: usize = 3;
const RATIO_MIN: f64 = 0.7;
const BYTES: usize = 4_096;

pub(crate) async fn measure(seconds: usize) -> Vec<Row> {
    let length = Duration::from_secs(seconds as u64);
    let upstreams = Upstream::three(Keeping::Bodies).await;
    let room = Room::start(&upstreams, &[]).await;
    let nginx = Nginx::start().await;
    let blob = content(1, BYTES);
    let hash = sha256(&blob);
    Client::connect(room.http).await.upload(blob, &User::new().token(&hash), &hash).await;
    let readable = "SELECT count(*) FROM blob_replicas WHERE state = 'readable'";
    room.instance.until(readable, 3).await;

    let known = Asked::get(&format!("/{hash}.bin"), StatusCode::TEMPORARY_REDIRECT, None);
    let absent = Asked::get(&format!("/{}.bin", sha256(b"absent")), StatusCode::NOT_FOUND, None);
    let redirect = Asked::get("/redirect", StatusCode::FOUND, None);
    let missing = Asked::get("/absent", StatusCode::NOT_FOUND, None);
    let mut runs = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        runs[0].push(run(nginx.address, &redirect, length).await);
        runs[1].push(run(room.http, &known, length).await);
        runs[2].push(run(nginx.address, &missing, length).await);
        runs[3].push(run(room.http, &absent, length).await);
    }
    let [redirects, ours, missings, absents] = runs;
    vec![
        heading(),
        compared(&format!("redirects, {CONNECTIONS} connections"), &ours, &redirects, RATIO_MIN),
        compared("a blob that is known to be absent", &absents, &missings, RATIO_MIN),
    ]
}

/// A row that compares requests a second.
pub(crate) fn compared(name: &str, ours: &[Run], theirs: &[Run], bar: f64) -> Row {
    let figure = |runs: &[Run]| {
        let (speed, p99) = (middle(runs, |run| run.per_second), middle_ms(runs, |run| run.p99));
        (format!("{speed:.0}/s, p99 {p99:.2} ms"), speed)
    };
    let ((ours, speed), (theirs, reference)) = (figure(ours), figure(theirs));
    row(name, ours, format!("nginx {theirs}"), speed / reference, Bar::AtLeast(bar))
}
