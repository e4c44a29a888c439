//! Recycles WAL files, so that the server resembles one that has worked for hours. A new server fills each
//! new WAL file with zeroes first, which delays all commits by tens of milliseconds.

use tokio_postgres::Client;

/// Files of 16 MiB each, enough for the longest part of a bench.
const FILES: usize = 72;

/// Creates the files.
pub(crate) async fn prepare(superuser: &Client) {
    let next = "SELECT pg_logical_emit_message(false, 'bench', ''); SELECT pg_switch_wal()";
    for _ in 0..FILES {
        superuser.batch_execute(next).await.expect("the superuser may do this");
    }
    superuser.batch_execute("CHECKPOINT").await.expect("the superuser may do this");
}
