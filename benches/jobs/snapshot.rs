//! Part `snapshot`: the load of part `drain` through the library, while a transaction holds a snapshot open, so
//! that no dead row can be removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::drain::{BATCH, CLAIMERS};
use super::library::Library;
use super::room::Room;
use super::support::figure::{Bar, row};
use super::{Row, heading};

/// Load before the first window.
const WARM_UP: Duration = Duration::from_secs(10);

/// Length of the windows, if there is time for five of them.
const WINDOW_S_MAX: usize = 60;

const TYPE: &str = "pinned";

/// Dead rows in all tables. Servers' processes tell their counts about once a second.
const DEAD: &str = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables";

/// The load and what it has done.
#[derive(Clone, Default)]
struct Load {
    completed: Arc<AtomicUsize>,
    stops: Arc<AtomicBool>,
}

/// `seconds`: how long the snapshot is held under load, after the warm-up.
pub(crate) async fn measure(seconds: usize) -> Vec<Row> {
    let window_s = (seconds / 5).clamp(1, WINDOW_S_MAX);
    let window = Duration::from_secs(window_s as u64);
    let between = Duration::from_secs(seconds.saturating_sub(2 * window_s) as u64);
    let room = Room::start().await;
    let superuser = room.instance.superuser().await;
    let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_states";
    superuser.batch_execute(hold).await.expect("the superuser may");

    let load = Load::default();
    let mut tasks = JoinSet::new();
    for number in 0..CLAIMERS {
        tasks.spawn(load.clone().run(room.library.clone(), format!("w{number}")));
    }
    let mut done = Vec::new();
    let (mut dead, mut wal) = (Vec::new(), Vec::new());
    for pause in [WARM_UP, window, between, window] {
        sleep(pause).await;
        done.push(load.completed.load(Ordering::Relaxed));
        dead.push(room.instance.count(DEAD).await);
        wal.push(room.instance.wal().await);
    }
    load.stops.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    superuser.batch_execute("SELECT 1; COMMIT").await.expect("the snapshot was held until the end");
    drop(superuser);
    room.stop().await;

    let per_second = |from: usize| (done[from + 1] - done[from]) as f64 / window.as_secs_f64();
    let (first, last) = (per_second(0), per_second(2));
    let jobs = done[3] - done[0];
    let dead_each = (dead[3] - dead[0]) as f64 / jobs as f64;
    println!(
        "{jobs} jobs, {} bytes of WAL each",
        (wal[3] - wal[0]) / i64::try_from(jobs).unwrap_or(1).max(1)
    );
    vec![
        heading(),
        row(
            &format!("jobs/s in the last {window_s} s of {seconds} s with a snapshot held"),
            format!("{last:.0}"),
            format!("{first:.0} in the first {window_s} s"),
            last / first,
            Bar::AtLeast(0.9),
        ),
        row(
            "dead rows per job",
            format!("{} rows", dead[3] - dead[0]),
            format!("{jobs} jobs"),
            dead_each,
            Bar::AtMost(0.01),
        ),
    ]
}

impl Load {
    /// Submits, claims and completes until it is stopped.
    async fn run(self, library: Library, worker: String) {
        while !self.stops.load(Ordering::Relaxed) {
            library.submit_all(TYPE, BATCH).await;
            let held = library.claim(&worker, TYPE, BATCH).await;
            let count = held.len();
            library.complete_all(&worker, held).await;
            self.completed.fetch_add(count, Ordering::Relaxed);
        }
    }
}
