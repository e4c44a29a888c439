//! Part `local`: blobs of the built-in store, against nginx that serves the same files.

use std::time::Duration;

use http::StatusCode;

use super::client::Client;
use super::content::{MIB, User, content, sha256};
use super::load::{Asked, run};
use super::nginx::Nginx;
use super::redirect::compared;
use super::room::Room;
use super::{Row, heading};

const ROUNDS: usize = 3;
const RATIO_MIN: f64 = 0.5;

pub(crate) async fn measure(seconds: usize) -> Vec<Row> {
    let length = Duration::from_secs(seconds as u64);
    let room = Room::start(&[], &[]).await;
    let nginx = Nginx::start().await;
    let mut client = Client::connect(room.http).await;
    let mut rows = vec![heading()];
    for (name, bytes) in [("64 KiB", 64 << 10), ("8 MiB", 8 * MIB)] {
        let blob = content(bytes as u64, bytes);
        let hash = sha256(&blob);
        nginx.serve(&hash, &blob);
        client.upload(blob, &User::new().token(&hash), &hash).await;
        let get = Asked::get(&format!("/{hash}"), StatusCode::OK, Some(bytes));
        for (method, asked) in [("HEAD", get.clone().head()), ("GET", get)] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                theirs.push(run(nginx.address, &asked, length).await);
                ours.push(run(room.http, &asked, length).await);
            }
            rows.push(compared(&format!("{method} of {name}"), &ours, &theirs, RATIO_MIN));
        }
    }
    rows
}
