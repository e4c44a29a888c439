//! Part `million`: claims with a million pending jobs of mixed priority, compared with claims with a thousand.

use std::time::Instant;

use tokio_postgres::Client;

use super::Row;
use super::meter::{Measured, Meter, heading, latency_ms, measured_row};
use super::room::Room;
use super::support::verdict;

const ROUNDS: usize = 3;

/// Claims of one round, by one worker, one job each.
const CLAIMS: usize = 2_000;

/// Jobs of one batch, and those that stay pending beside the ones that are claimed.
const FEW: usize = 1_000;

/// Batches after which partitions for further numbers are made.
const PART: usize = 200;

const RATIO_MAX: f64 = 1.5;

/// Makes thousands of pending jobs of mixed priority.
const FILL: &str = "DO $$
DECLARE n CONSTANT integer := 1000; ids bigint[];
BEGIN
    FOR batch IN 1..BATCHES LOOP
        ids := ARRAY(SELECT nextval('job_number') FROM generate_series(1, n));
        PERFORM quipu_append_jobs('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}',
            ids, array_fill('TYPE'::text, ARRAY[n]), ARRAY(SELECT (1 + (x * 7919) % 5)::smallint FROM generate_series(1, n) x),
            array_fill(NULL::bigint, ARRAY[n]), array_fill(3, ARRAY[n]), array_fill(NULL::bytea, ARRAY[n]),
            ARRAY(SELECT md5(x::text) FROM unnest(ids) x), array_fill(NULL::text, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]),
            array_fill(NULL::jsonb, ARRAY[n]), array_fill(NULL::jsonb, ARRAY[n]), array_fill(NULL::text, ARRAY[n]),
            array_fill('local'::text, ARRAY[n]));
    END LOOP;
END $$";

pub(crate) async fn measure(pending: usize) -> Vec<Row> {
    let room = Room::start().await;
    let superuser = room.instance.superuser().await;
    fill(&superuser, "many", pending + ROUNDS * CLAIMS).await;
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let job_type = format!("few{round}");
        fill(&superuser, &job_type, CLAIMS + FEW).await;
        room.instance.checkpoint().await;
        few.push(claims(&room, &job_type).await);
        many.push(claims(&room, "many").await);
    }
    drop(superuser);
    room.stop().await;
    table(pending, few, many)
}

async fn fill(superuser: &Client, job_type: &str, jobs: usize) {
    let batches = jobs.div_ceil(FEW);
    for done in (0..batches).step_by(PART) {
        let sql = FILL.replace("BATCHES", &(batches - done).min(PART).to_string()).replace("TYPE", job_type);
        superuser.batch_execute("SELECT quipu_ensure_job_partitions()").await.expect("the superuser may");
        superuser.batch_execute(&sql).await.expect("the statement is right");
    }
    superuser.batch_execute("VACUUM ANALYZE jobs, job_log, job_ready").await.expect("the superuser may");
}

/// Claims [`CLAIMS`] jobs, one after the other.
async fn claims(room: &Room, job_type: &str) -> Measured {
    let meter = Meter::start(&room.instance).await;
    let mut latencies = Vec::with_capacity(CLAIMS);
    for _ in 0..CLAIMS {
        let asked = Instant::now();
        let held = room.library.claim("w0", job_type, 1).await;
        latencies.push(asked.elapsed());
        assert_eq!(held.len(), 1, "a job is pending");
    }
    meter.stop(CLAIMS, latencies).await
}

fn table(pending: usize, few: Vec<Measured>, many: Vec<Measured>) -> Vec<Row> {
    let ratio = latency_ms(&many, |run| run.p99) / latency_ms(&few, |run| run.p99);
    vec![
        heading("claims, one worker, one job each"),
        measured_row("1,000 jobs pending", few, "1".to_owned(), "", ""),
        measured_row(
            &format!("{pending} jobs pending"),
            many,
            format!("{ratio:.2} x p99"),
            "<= 1.5",
            verdict(ratio <= RATIO_MAX),
        ),
    ]
}
