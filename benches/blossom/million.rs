//! Part `million`: HEAD of a thousand blobs of the built-in store, while a thousand and while a million are known.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::client::Client;
use super::content::{User, content, sha256};
use super::load::{Asked, run};
use super::room::Room;
use super::support::figure::{Bar, row};
use super::support::run::{Run, middle};
use super::{Row, heading};

const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(5);

/// Blobs that are asked for.
const ASKED: usize = 1_000;
const BYTES: usize = 1_024;
const RATIO_MIN: f64 = 0.9;

/// Blobs without contents, as the journals and projections have them after an upload.
const FILL: &str = "
    CREATE TEMPORARY TABLE made AS
    SELECT sha256(('made ' || n)::bytea) AS hash, sha256(('owner ' || n % 1000)::bytea) AS owner FROM generate_series(1, NUMBER) n;
    INSERT INTO blobs (sha256, size, type, actor) SELECT hash, 1024, 'application/octet-stream', 'local' FROM made;
    INSERT INTO blob_log (sha256, kind, upstream, state, actor)
    SELECT hash, 'readable', (SELECT min(upstream) FROM blob_replicas), 'readable', 'quipu' FROM made;
    INSERT INTO blob_log (sha256, kind, owner, actor) SELECT hash, 'uploaded', owner, 'local' FROM made;
    INSERT INTO blob_replicas (sha256, upstream, state, since)
    SELECT hash, (SELECT min(upstream) FROM blob_replicas), 'readable', now() FROM made;
    INSERT INTO blob_owners (owner, sha256, uploaded) SELECT owner, hash, extract(epoch FROM now())::bigint FROM made;
    INSERT INTO blob_usage (owner, blobs, bytes) SELECT owner, count(*), count(*) * 1024 FROM made GROUP BY 1;
    INSERT INTO blob_copies (sha256, size, owners, copies) SELECT hash, 1024, 1, 1 FROM made;
    DROP TABLE made";

pub(crate) async fn measure(known: usize) -> Vec<Row> {
    let room = Room::start(&[], &[]).await;
    let (user, mut paths) = (User::new(), Vec::with_capacity(ASKED));
    let mut client = Client::connect(room.http).await;
    for number in 0..ASKED {
        let blob = content(number as u64, BYTES);
        let hash = sha256(&blob);
        client.upload(blob, &user.token(&hash), &hash).await;
        paths.push(format!("/{hash}"));
    }
    let readable = "SELECT count(*) FROM blob_replicas WHERE state = 'readable'";
    room.instance.until(readable, i64::try_from(ASKED).expect("a small number")).await;
    let asked =
        Asked { method: Method::HEAD, paths: Arc::from(paths), status: StatusCode::OK, length: Some(0) };

    let superuser = room.instance.superuser().await;
    superuser.batch_execute("VACUUM ANALYZE").await.expect("the superuser may");
    let few = measured(&room, &asked).await;
    let fill = FILL.replace("NUMBER", &known.saturating_sub(ASKED).to_string());
    superuser.batch_execute(&fill).await.expect("the statements are right");
    superuser.batch_execute("VACUUM ANALYZE").await.expect("the superuser may");
    room.instance.checkpoint().await;
    let many = measured(&room, &asked).await;
    let (few, many) = (middle(&few, |run| run.per_second), middle(&many, |run| run.per_second));
    vec![
        heading(),
        row(
            &format!("HEAD of {ASKED} blobs, {known} known"),
            format!("{many:.0}/s"),
            format!("{few:.0}/s with {ASKED} known"),
            many / few,
            Bar::AtLeast(RATIO_MIN),
        ),
    ]
}

async fn measured(room: &Room, asked: &Asked) -> Vec<Run> {
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        runs.push(run(room.http, asked, LENGTH).await);
    }
    runs
}
