//! PostgreSQL and PgBouncer.

use crate::store::labels::{ROLE, TABLE};
use crate::telemetry::{Label, describe_metrics};

const VERSION: Label = Label::constants("version", "the server's version");
const CONNECTION: Label = Label::listed("state", &[&["active", "idle", "idle_in_transaction", "hidden"]]);
const OUTCOME: Label = Label::listed("outcome", &[&["committed", "rolled_back"]]);
const CLIENT: Label = Label::listed("state", &[&["active", "waiting"]]);
const SERVER: Label = Label::listed("state", &[&["active", "idle", "other"]]);

describe_metrics! { Observer;
    INFO: Gauge = "quipu_postgresql_info" [VERSION], "Version of the server; the value is always 1";
    CONNECTIONS: Gauge = "quipu_postgresql_connections" [CONNECTION],
        "Client connections of the server; hidden: of roles whose state Quipu may not see";
    LIMIT: Gauge = "quipu_postgresql_limit_connections" [], "Connections that the server accepts";
    LONGEST: Gauge = "quipu_postgresql_longest_transaction_seconds" [],
        "Age of the longest open transaction that Quipu may see; 0 without one";
    WAITING: Gauge = "quipu_postgresql_waiting_locks" [], "Locks of this database that a session waits for";
    TRANSACTIONS: Counter = "quipu_postgresql_transactions_total" [OUTCOME], "Transactions of this database";
    HITS: Counter = "quipu_postgresql_block_hits_total" [], "Blocks that were found in shared buffers";
    READS: Counter = "quipu_postgresql_block_reads_total" [], "Blocks that were read from the system";
    TEMPORARY: Counter = "quipu_postgresql_temporary_bytes_total" [],
        "Bytes that queries wrote to temporary files";
    DEADLOCKS: Counter = "quipu_postgresql_deadlocks_total" [], "Deadlocks in this database";
    WAL: Counter = "quipu_postgresql_wal_bytes_total" [], "Bytes of WAL that the server has written";
    REPLICAS: Gauge = "quipu_postgresql_replicas" [], "Replicas that are connected to the primary";
    LAG_BYTES: Gauge = "quipu_postgresql_replication_lag_bytes" [],
        "WAL that the slowest of these has not replayed; absent without one, or without the privilege";
    LAG_SECONDS: Gauge = "quipu_postgresql_replication_lag_seconds" [],
        "How far the replica behind QUIPU_READ_DATABASE_URL is; absent when that is the primary";
    UNFROZEN: Gauge = "quipu_postgresql_unfrozen_transactions" [],
        "Transactions since the oldest unfrozen id of the database; at two billion the server stops";
    DEAD: Gauge = "quipu_postgresql_dead_rows" [TABLE],
        "Dead rows that are not vacuumed yet; tables without any are left out";
    CLIENTS: Gauge = "quipu_pgbouncer_client_connections" [ROLE, CLIENT], "Clients of this database";
    SERVERS: Gauge = "quipu_pgbouncer_server_connections" [ROLE, SERVER],
        "Connections to PostgreSQL for this database";
    POOLER_WAIT: Gauge = "quipu_pgbouncer_longest_wait_seconds" [ROLE],
        "How long the first client in the queue has waited";
    POOLER_LIMIT: Gauge = "quipu_pgbouncer_limit_client_connections" [],
        "Clients that PgBouncer accepts, for all databases together";
    POOLER_TRANSACTIONS: Counter = "quipu_pgbouncer_transactions_total" [], "Transactions of this database";
    POOLER_WAITED: Counter = "quipu_pgbouncer_wait_seconds_total" [],
        "Time that clients waited for a server connection, together";
    POOLER_RECEIVED: Counter = "quipu_pgbouncer_received_bytes_total" [], "Bytes from clients";
    POOLER_SENT: Counter = "quipu_pgbouncer_sent_bytes_total" [], "Bytes to clients";
}
