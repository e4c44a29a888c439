//! The reference for commits: pgbench, which inserts a row of the width of a job in each transaction.

use std::time::Duration;

use super::meter::{Measured, Meter};
use super::support::instance::Instance;
use super::support::pgbench::Pgbench;

const LENGTH: Duration = Duration::from_secs(4);

const SCRIPT: &str = "INSERT INTO bench_rows (kind, hash) VALUES ('pdf', md5(random()::text));\n";

/// Makes its table.
pub(crate) async fn prepare(instance: &Instance) {
    let table = "CREATE TABLE bench_rows (number bigserial PRIMARY KEY, kind text, hash text)";
    instance.client.batch_execute(table).await.expect("the owner may");
}

/// Runs one round.
pub(crate) async fn round(instance: &Instance, clients: usize) -> Measured {
    let meter = Meter::start(instance).await;
    let bench =
        Pgbench { url: &instance.owner_url, mode: "prepared", clients, script: SCRIPT, length: LENGTH };
    let latencies = bench.run().await;
    meter.stop_after(LENGTH, latencies.len(), latencies).await
}
