"""PostgreSQL and journal: the writers, the journals on disk, ticks and projections, the server, the pooler, the reader's SQL."""

from panels import (
    AGO,
    BYTES,
    dashboard,
    graph,
    instance_variable,
    rising,
    sql_table,
    stat,
)
from queries import EVERYWHERE, INSTANCE, or_zero, quantile, rate, total

IN_USE = f'quipu_store_pool_connections{{{INSTANCE},state="in_use"}}'

DASHBOARD = dashboard(
    "quipu-postgresql",
    "Quipu: PostgreSQL and journal",
    "Writers and journals, ticks and projections, the server, the pooler, and what is on disk.",
    [instance_variable()],
    [
        [
            stat(
                "Commit, p99",
                quantile(0.99, "quipu_store_commit_duration_seconds"),
                "Time of a group commit, from its first attempt to its known outcome. Above 0.1 s: the disk"
                " of PostgreSQL, or locks.",
                unit="s",
                steps=rising(0.1, 1),
                decimals=3,
            ),
            stat(
                "Fullest queue",
                or_zero(
                    f"max(quipu_store_queue_commands{{{INSTANCE}}} /"
                    f" quipu_store_queue_limit_commands{{{INSTANCE}}})"
                ),
                "How full the fullest queue of a writer is. At 100 % callers wait or are refused.",
                unit="percentunit",
                steps=rising(0.5, 0.8),
                decimals=0,
            ),
            stat(
                "Projection behind",
                or_zero("max(quipu_store_projection_lag_seconds)"),
                "Age of the oldest batch that totals and the console do not count yet. Minutes: section"
                " QuipuProjectionBehind of docs/alerts.md.",
                unit="s",
                steps=rising(60, 300),
                decimals=0,
            ),
            stat(
                "Connections",
                or_zero("sum(quipu_postgresql_connections) / max(quipu_postgresql_limit_connections)"),
                "Share of `max_connections` that is in use, of the whole server.",
                unit="percentunit",
                steps=rising(0.7, 0.9),
                decimals=0,
            ),
            stat(
                "Longest transaction",
                or_zero("max(quipu_postgresql_longest_transaction_seconds)"),
                "Age of the oldest open transaction. It keeps dead rows from being vacuumed. Sessions of"
                " analysts are ended after two minutes.",
                unit="s",
                steps=rising(300, 3600),
                decimals=0,
            ),
            stat(
                "Cache hits",
                or_zero(
                    "sum(rate(quipu_postgresql_block_hits_total[$__rate_interval])) /"
                    " (sum(rate(quipu_postgresql_block_hits_total[$__rate_interval])) +"
                    " sum(rate(quipu_postgresql_block_reads_total[$__rate_interval]))) >= 0"
                ),
                "Share of blocks that were in shared buffers. Low while histories are read; otherwise above"
                " 90 %, or raise `shared_buffers`.",
                unit="percentunit",
                decimals=1,
            ),
            stat(
                "Transaction ids used",
                or_zero("max(quipu_postgresql_unfrozen_transactions) / 2e9"),
                "Age of the oldest unfrozen transaction id; at 100 % PostgreSQL accepts nothing. Above 25 %:"
                " section QuipuTransactionIdsRunningOut of docs/alerts.md.",
                unit="percentunit",
                steps=rising(0.25, 0.5),
                decimals=1,
            ),
            stat(
                "Event numbers used",
                or_zero(f"max(quipu_ingest_event_numbers_used_ratio{{{INSTANCE}}})"),
                "Share of the numbers for events that are used; at 100 % no event can be stored.",
                unit="percentunit",
                steps=rising(0.8, 0.9),
                decimals=4,
            ),
        ],
        "Writers",
        [
            graph(
                "Commands",
                [("{{journal}}", rate("quipu_store_commands_total", "journal"))],
                "Commands committed a second, by journal.",
            ),
            graph(
                "Commits",
                [
                    ("{{journal}}", rate("quipu_store_commits_total", "journal")),
                    ("{{journal}} sent again", rate("quipu_store_commit_retries_total", "journal")),
                    ("{{journal}} failed", rate("quipu_store_commit_failures_total", "journal")),
                    (
                        "{{journal}} refused: {{reason}}",
                        rate("quipu_store_refusals_total", "journal, reason"),
                    ),
                ],
                "Group commits a second; batches sent again after a lost answer or a deadlock; batches that"
                " failed; commands refused at the queue. Failed and refused should be 0: the log has the"
                " cause.",
            ),
            graph(
                "Duration of a commit",
                [
                    ("{{journal}} p50", quantile(0.5, "quipu_store_commit_duration_seconds", "journal")),
                    ("{{journal}} p99", quantile(0.99, "quipu_store_commit_duration_seconds", "journal")),
                ],
                "Time of a group commit. It rises with the disk's sync time and with locks.",
                unit="s",
            ),
        ],
        [
            graph(
                "Commands in a commit",
                [("{{journal}} p50", quantile(0.5, "quipu_store_batch_commands", "journal"))],
                "How many commands one commit takes. It grows with the load, which is how Quipu keeps up.",
            ),
            graph(
                "Queues",
                [
                    ("{{journal}}", total("quipu_store_queue_commands", "journal")),
                    ("{{journal}} limit", total("quipu_store_queue_limit_commands", "journal")),
                ],
                "Commands that wait for a commit. Near the limit: commits are too slow; see their duration.",
            ),
            graph(
                "Connections of the pools",
                [
                    ("{{pool}} in use", or_zero(f"sum by (pool) ({IN_USE})")),
                    ("{{pool}} limit", total("quipu_store_pool_limit_connections", "pool")),
                    ("{{pool}} waiting", total("quipu_store_pool_waiting_requests", "pool")),
                ],
                "Connections in use and their limit (`database.write_connections_max` and its like), and"
                " callers that wait. In use at the limit: raise it, or find the statement that is slow.",
            ),
        ],
        "Journals and projections",
        [
            graph(
                "Rows",
                [("{{journal}}", or_zero("sum by (journal) (quipu_store_journal_rows)"))],
                "Rows of each journal, PostgreSQL's estimate.",
            ),
            graph(
                "Bytes",
                [
                    ("{{journal}}", or_zero("sum by (journal) (quipu_store_journal_bytes)")),
                    ("whole database", or_zero("max(quipu_store_database_bytes)")),
                ],
                "Bytes on disk with indexes.",
                unit="bytes",
            ),
            graph(
                "Ticks and projections",
                [
                    (
                        "{{projection}}: ticks behind",
                        or_zero("max by (projection) (quipu_store_projection_lag_ticks)"),
                    ),
                    (
                        "{{projection}}: seconds behind",
                        or_zero("max by (projection) (quipu_store_projection_lag_seconds)"),
                    ),
                    ("age of the newest tick", or_zero("max(quipu_store_tick_age_seconds)")),
                ],
                "How far projections follow the journals. An idle database takes no ticks, so an old tick"
                " alone is no fault.",
            ),
        ],
        [
            graph(
                "Partitions ahead",
                [("{{journal}}", or_zero("max by (journal) (quipu_store_ahead_partitions)"))],
                "Partitions that are ready for the future: months of events, hours of payloads. 0: nothing"
                " with such a time can be stored; the log says why none was made.",
            ),
            graph(
                "Leases",
                [("{{kind}}", or_zero("sum by (kind) (quipu_store_held_leases)"))],
                "Leases that are held now. `ticker` and `observer` are one each.",
            ),
            graph(
                "Verify",
                [
                    ("problems", or_zero("max(quipu_store_verify_problems)")),
                    ("duration in seconds", or_zero("max(quipu_store_verify_duration_seconds)")),
                    ("days since", or_zero("(time() - max(quipu_store_verify_timestamp_seconds)) / 86400")),
                ],
                "The newest `quipu verify`: differences found, how long it took, how long ago. Run it weekly"
                " from a timer.",
            ),
        ],
        "Server",
        [
            graph(
                "Connections of the server",
                [
                    ("{{state}}", or_zero("sum by (state) (quipu_postgresql_connections)")),
                    ("limit", or_zero("max(quipu_postgresql_limit_connections)")),
                    ("replicas", total("quipu_postgresql_replicas", where=EVERYWHERE)),
                    ("waiting locks", total("quipu_postgresql_waiting_locks", where=EVERYWHERE)),
                ],
                "Client connections of the whole server, replicas, and locks that sessions wait for. Idle in"
                " transaction for long: a program that forgot its transaction. Many locks: `SELECT pid,"
                " wait_event, query FROM pg_stat_activity` names who waits; each statement of Quipu begins"
                " with its name.",
            ),
            graph(
                "Transactions",
                [
                    ("{{outcome}}", rate("quipu_postgresql_transactions_total", "outcome", EVERYWHERE)),
                    ("deadlocks", rate("quipu_postgresql_deadlocks_total", where=EVERYWHERE)),
                ],
                "Transactions and deadlocks a second. Quipu sends a batch again after a deadlock; it causes"
                " none by itself, so look for a program of your own that writes.",
            ),
            graph(
                "Blocks",
                [
                    ("in shared buffers", rate("quipu_postgresql_block_hits_total", where=EVERYWHERE)),
                    ("read", rate("quipu_postgresql_block_reads_total", where=EVERYWHERE)),
                ],
                "Blocks of 8 KiB a second. Many reads at a constant load: the indexes in use no longer fit"
                " into memory.",
            ),
        ],
        [
            graph(
                "Written",
                [
                    ("WAL", rate("quipu_postgresql_wal_bytes_total", where=EVERYWHERE)),
                    ("temporary files", rate("quipu_postgresql_temporary_bytes_total", where=EVERYWHERE)),
                ],
                "Bytes a second of the write-ahead log, and of temporary files, which large queries of"
                " analysts write.",
                unit="Bps",
            ),
            graph(
                "Ages",
                [
                    ("longest transaction", or_zero("max(quipu_postgresql_longest_transaction_seconds)")),
                    ("replica behind", or_zero("max(quipu_postgresql_replication_lag_seconds)")),
                ],
                "Age of the longest transaction, and how far the replica of `QUIPU_READ_DATABASE_URL` is"
                " behind.",
                unit="s",
            ),
            graph(
                "Dead rows",
                [("{{table}}", or_zero("topk(10, sum by (table) (quipu_postgresql_dead_rows))"))],
                "Dead rows not yet vacuumed of the ten tables with most. Growth without end: a long"
                " transaction, or autovacuum is off.",
            ),
            graph(
                "Replication",
                [("behind", or_zero("max(quipu_postgresql_replication_lag_bytes)"))],
                "WAL that the slowest replica has not applied. Growth without end: it has stopped, and the"
                " primary keeps WAL for it.",
                unit="bytes",
            ),
        ],
        "Pooler",
        [
            graph(
                "Clients of PgBouncer",
                [
                    (
                        "{{role}} {{state}}",
                        or_zero("sum by (role, state) (quipu_pgbouncer_client_connections)"),
                    ),
                    ("limit", or_zero("max(quipu_pgbouncer_limit_client_connections)")),
                ],
                "Clients by role. Waiting: all server connections of the role are in use"
                " (`default_pool_size`).",
            ),
            graph(
                "Servers of PgBouncer",
                [
                    (
                        "{{role}} {{state}}",
                        or_zero("sum by (role, state) (quipu_pgbouncer_server_connections)"),
                    ),
                ],
                "Connections of PgBouncer to PostgreSQL by role.",
            ),
            graph(
                "Waiting for a connection",
                [
                    ("pool {{pool}}, p99", quantile(0.99, "quipu_store_pool_wait_seconds", "pool")),
                    (
                        "PgBouncer, {{role}}, first in the queue",
                        or_zero("max by (role) (quipu_pgbouncer_longest_wait_seconds)"),
                    ),
                    (
                        "PgBouncer, all clients together, in a second",
                        rate("quipu_pgbouncer_wait_seconds_total", where=EVERYWHERE),
                    ),
                ],
                "How long a probe waited for a connection of Quipu's pools, and clients of PgBouncer for one"
                " to the server. Above 0 for long: section QuipuPoolExhausted of docs/alerts.md.",
                unit="s",
            ),
        ],
        [
            graph(
                "Transactions through PgBouncer",
                [
                    ("transactions", rate("quipu_pgbouncer_transactions_total", where=EVERYWHERE)),
                ],
                "Transactions a second.",
            ),
            graph(
                "Bytes through PgBouncer",
                [
                    ("from clients", rate("quipu_pgbouncer_received_bytes_total", where=EVERYWHERE)),
                    ("to clients", rate("quipu_pgbouncer_sent_bytes_total", where=EVERYWHERE)),
                ],
                "Bytes a second between the processes of Quipu, people and PgBouncer. Much more than PostgreSQL writes to its log (WAL): "
                "a client reads whole tables; pg_stat_activity names it.",
                unit="Bps",
            ),
        ],
        "On disk, from SQL",
        [
            sql_table(
                "Largest tables",
                """SELECT coalesce(p.relname, c.relname) AS table, count(*) AS partitions,
       sum(pg_table_size(c.oid)) AS rows_bytes, sum(pg_indexes_size(c.oid)) AS index_bytes,
       sum(greatest(c.reltuples, 0))::bigint AS rows
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace)
GROUP BY 1 ORDER BY sum(pg_total_relation_size(c.oid)) DESC LIMIT 30""",
                "Bytes of rows (with TOAST) and of indexes, partitions counted with their table; rows are"
                " PostgreSQL's estimate.",
                columns={"rows_bytes": BYTES, "index_bytes": BYTES},
            ),
            sql_table(
                "Months of events",
                """SELECT replace(c.relname, 'events_', '') AS month, sum(pg_total_relation_size(c.oid)) AS events_bytes,
       sum(greatest(c.reltuples, 0))::bigint AS events
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'events'::regclass
GROUP BY 1 HAVING sum(pg_total_relation_size(c.oid)) > 1048576 OR sum(c.reltuples) > 0
ORDER BY 1 DESC LIMIT 240""",
                "Size of each month of events. `quipu retention --before MONTH` drops the oldest.",
                columns={"events_bytes": BYTES},
            ),
        ],
        [
            sql_table(
                "Newest entries of all journals",
                """SELECT recorded_at AS at, room, kind, subject, left(detail::text, 300) AS detail
FROM journal ORDER BY position DESC LIMIT 100""",
                "What Quipu did last, in the order of its journals.",
                columns={"at": AGO},
            ),
            sql_table(
                "Settings of the server",
                """SELECT name, current_setting(name) AS value FROM pg_settings
WHERE name IN ('server_version', 'shared_buffers', 'max_connections', 'max_locks_per_transaction', 'work_mem', 'maintenance_work_mem',
               'effective_cache_size', 'max_wal_size', 'synchronous_commit', 'wal_compression', 'autovacuum')
ORDER BY name""",
                "Settings that matter most. The recommended ones:"
                " `implementations/*/config/postgres/postgresql.conf`.",
            ),
        ],
    ],
)
