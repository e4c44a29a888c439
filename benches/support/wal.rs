//! Files of the write-ahead log, as a server has them that has worked for hours: they wait to be used again. In a fresh one each
//! new file is filled with zeroes first, which holds up all commits for tens of milliseconds.

use tokio_postgres::Client;

/// 16 MiB each: as many as the longest part of a bench writes.
const FILES: usize = 72;

/// Prepares them.
pub(crate) async fn prepare(superuser: &Client) {
    let next = "SELECT pg_logical_emit_message(false, 'bench', ''); SELECT pg_switch_wal()";
    for _ in 0..FILES {
        superuser.batch_execute(next).await.expect("a superuser may");
    }
    superuser.batch_execute("CHECKPOINT").await.expect("a superuser may");
}
