//! Part `recovery`: one of three upstreams loses all blobs; the time until `quipu blobs verify` and repair have brought them back.

use std::time::Instant;

use tokio::task::JoinSet;

use super::client::Client;
use super::content::{User, content, sha256};
use super::room::Room;
use super::upstream::{Keeping, Upstream};
use super::{Row, heading};

const UPLOADERS: usize = 16;
const BYTES: usize = 4_096;

const READABLE: &str = "SELECT count(*) FROM blob_replicas WHERE state = 'readable'";
const LOST: &str = "SELECT count(*) FROM blob_log WHERE kind = 'lost'";

pub(crate) async fn measure(blobs: usize) -> Vec<Row> {
    let each = blobs / UPLOADERS;
    let blobs = each * UPLOADERS;
    let number = i64::try_from(blobs).expect("a small number");
    let upstreams = Upstream::three(Keeping::Bodies).await;
    let room = Room::start(&upstreams, &["services.blossom.repair_places=16"]).await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for uploader in 0..UPLOADERS {
        let to = room.http;
        tasks.spawn(async move {
            let (mut client, user) = (Client::connect(to).await, User::new());
            for place in 0..each {
                let blob = content((uploader * each + place) as u64, BYTES);
                let hash = sha256(&blob);
                client.upload(blob, &user.token(&hash), &hash).await;
            }
        });
    }
    tasks.join_all().await;
    let uploaded = began.elapsed().as_secs_f64();
    room.instance.until(READABLE, 3 * number).await;

    upstreams[2].wipe();
    let began = Instant::now();
    let mut verify = tokio::process::Command::from(room.instance.command());
    verify.args(["blobs", "verify", "--set", &room.upstreams]).stdout(std::process::Stdio::null());
    let ended = verify.status().await.expect("the program is built");
    // 1: copies are lost.
    assert_eq!(ended.code(), Some(1), "quipu blobs verify");
    let noticed = room.instance.until(LOST, number).await - began;
    let whole = room.instance.until(READABLE, 3 * number).await - began;
    assert_eq!(upstreams[2].count(), blobs, "every blob is back");
    let speed = |seconds: f64| blobs as f64 / seconds;
    let (uploads, recovered) = (speed(uploaded), speed(whole.as_secs_f64()));
    vec![
        heading(),
        vec![
            format!("{blobs} blobs lost at one upstream: until all are noticed"),
            format!("{:.1} s", noticed.as_secs_f64()),
        ],
        vec![
            "until all are back and read".to_owned(),
            format!("{:.1} s, {recovered:.0} blobs/s", whole.as_secs_f64()),
            format!("uploads of the same: {uploads:.0}/s"),
            format!("{:.3}", recovered / uploads),
        ],
    ]
}
