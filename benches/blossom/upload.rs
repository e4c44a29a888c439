//! Parts `upload` and `crowd`: large uploads to three upstreams, against three `curl` straight to the three at once.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::content::{User, change_file, write_file};
use super::room::Room;
use super::support::figure::{Bar, row};
use super::support::median;
use super::upstream::{Keeping, Upstream};
use super::{Row, heading};

const ROUNDS: u64 = 3;

const THROUGHPUT_RATIO_MIN: f64 = 0.6;

/// Growth of the resident memory, MiB: 48 MB and 256 MB.
const GROWTH_MIB_MAX: f64 = 48e6 / 1_048_576.0;
const CROWD_GROWTH_MIB_MAX: f64 = 256e6 / 1_048_576.0;

/// Uploads at the same time.
const CROWD: usize = 20;

/// An upload is answered when all three have the blob, as with the reference.
const ALL: &[&str] = &["services.blossom.replicas_min=3"];

/// One upload of so many MiB.
pub(crate) async fn measure(mib: usize) -> Vec<Row> {
    let upstreams = Upstream::three(Keeping::Lengths).await;
    let room = Room::start(&upstreams, ALL).await;
    let folder = TempDir::new().expect("a temporary folder");
    let (file, user) = (folder.path().join("blob"), User::new());
    write_file(&file, mib, 0);
    let (mut direct, mut through, mut growth) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 0..ROUNDS {
        let hash = change_file(&file, round);
        direct.push(straight(&upstreams, &file).await.as_secs_f64());
        let before = room.instance.reset_peak();
        through.push(upload(room.http, &file, &hash, &user).await.as_secs_f64());
        growth = growth.max(room.instance.peak_mib() - before);
    }
    let speed = |seconds: f64| mib as f64 / seconds;
    let (direct, through) = (speed(median(direct)), speed(median(through)));
    vec![
        heading(),
        row(
            &format!("upload of {mib} MiB to three upstreams"),
            format!("{through:.0} MiB/s"),
            format!("{direct:.0} MiB/s with three curl at once"),
            through / direct,
            Bar::AtLeast(THROUGHPUT_RATIO_MIN),
        ),
        memory("growth of the resident memory", growth, GROWTH_MIB_MAX),
    ]
}

/// Many uploads of so many MiB each at the same time.
pub(crate) async fn measure_crowd(mib: usize) -> Vec<Row> {
    let upstreams = Upstream::three(Keeping::Lengths).await;
    let room = Room::start(&upstreams, ALL).await;
    let folder = TempDir::new().expect("a temporary folder");
    let files: Vec<_> = (0..CROWD)
        .map(|number| {
            let path = folder.path().join(format!("blob{number}"));
            let hash = write_file(&path, mib, number as u64);
            (path, hash)
        })
        .collect();
    let before = room.instance.reset_peak();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (path, hash) in files {
        let to = room.http;
        tasks.spawn(async move { upload(to, &path, &hash, &User::new()).await });
    }
    tasks.join_all().await;
    let took = began.elapsed();
    let growth = room.instance.peak_mib() - before;
    println!(
        "{CROWD} uploads of {mib} MiB at once: {:.0} MiB/s together",
        (CROWD * mib) as f64 / took.as_secs_f64()
    );
    vec![
        heading(),
        memory(
            &format!("growth of the resident memory, {CROWD} uploads of {mib} MiB"),
            growth,
            CROWD_GROWTH_MIB_MAX,
        ),
    ]
}

/// A row whose figure must stay below a limit, both in MiB.
fn memory(name: &str, growth: f64, most: f64) -> Row {
    row(name, format!("{growth:.0} MiB"), format!("{most:.0} MiB"), growth / most, Bar::AtMost(1.0))
}

/// Uploads the file with three `curl` at once; the time until the last one is answered.
async fn straight(upstreams: &[Upstream], file: &Path) -> Duration {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for upstream in upstreams {
        let mut curl = curl(&format!("{}/upload", upstream.url()), file);
        tasks.spawn(async move { curl.status().await });
    }
    for ended in tasks.join_all().await {
        assert!(ended.expect("curl is installed").success(), "curl uploads");
    }
    began.elapsed()
}

/// Uploads the file with one `curl`; the time until it is answered.
async fn upload(to: SocketAddr, file: &Path, hash: &str, user: &User) -> Duration {
    let mut curl = curl(&format!("http://{to}/upload"), file);
    curl.arg("--header").arg(format!("Authorization: {}", user.token(hash)));
    curl.arg("--header").arg(format!("X-SHA-256: {hash}"));
    let began = Instant::now();
    let ended = curl.status().await.expect("curl is installed");
    assert!(ended.success(), "curl uploads to Quipu");
    began.elapsed()
}

fn curl(url: &str, file: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--upload-file"]).arg(file);
    curl.args(["--header", "Content-Type: application/octet-stream", "--output", "/dev/null", url]);
    curl.stdin(Stdio::null()).kill_on_drop(true);
    curl
}
