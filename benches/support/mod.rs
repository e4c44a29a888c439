//! Code that the benches share: a durable private server, reference figures, tables.

pub(crate) mod bigbrotr;
pub(crate) mod figure;
pub(crate) mod instance;
pub(crate) mod limit;
pub(crate) mod pgbench;
pub(crate) mod run;
pub(crate) mod wal;

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use quipu::base::Secret;
use quipu::config::{Implementation, Settings};
use quipu::lifecycle::Lifecycle;
use quipu::store::embedded::{Embedded, EmbeddedConfig};
use quipu::store::owner::{self, Procedures};
use quipu::telemetry::Metrics;
use tempfile::TempDir;
use url::Url;

/// A durable private server with the settings of `bigbrotr`: `synchronous_commit=on`, `shared_buffers=256MB`.
pub(crate) struct Server {
    pub(crate) embedded: Embedded,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("quipu-bench-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a writable folder");
        let implementation = Implementation::find_built_in("bigbrotr").expect("a built-in implementation");
        let ports = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a free port"));
        let [postgres_port, pgbouncer_port] =
            ports.map(|listener| listener.local_addr().expect("bound").port());
        let config = EmbeddedConfig {
            data: folder.path().join("data"),
            postgres_port,
            pgbouncer_port,
            postgresql_conf: implementation
                .postgresql_conf()
                .expect("the implementation has a configuration")
                .into_owned(),
            database: "quipu".to_owned(),
        };
        let embedded = Embedded::start(config).await.expect("PostgreSQL and PgBouncer start");
        let procedures = Procedures {
            implementation: "bigbrotr".to_owned(),
            sql: implementation.procedures_sql().expect("the implementation has procedures").into_owned(),
        };
        owner::migrate(embedded.urls().owner().expect("its own server has an owner"), &procedures)
            .await
            .expect("the schema is migrated");
        Self { embedded, _folder: folder }
    }

    /// Runs a query that returns one value, as the superuser in the database `quipu`.
    pub(crate) async fn ask<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        let client = owner::connect(&self.superuser()).await.expect("the server answers");
        client.query_one(sql, &[]).await.expect("a valid query").get(0)
    }

    /// As [`wal::prepare`].
    pub(crate) async fn prepare_wal(&self) {
        wal::prepare(&owner::connect(&self.superuser()).await.expect("the server answers")).await;
    }

    /// Runs statements as the superuser.
    pub(crate) async fn run(&self, sql: &str) {
        let client = owner::connect(&self.superuser()).await.expect("the server answers");
        client.batch_execute(sql).await.expect("the statements are right");
    }

    pub(crate) fn superuser(&self) -> Secret {
        let mut url = Url::parse(self.embedded.superuser_url().expose()).expect("our own URL");
        url.set_path("/quipu");
        Secret::new(url.as_str())
    }

    /// Bytes of WAL written so far.
    pub(crate) async fn wal(&self) -> i64 {
        self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").await
    }

    /// The server's settings for the durability of commits.
    pub(crate) async fn durability(&self) -> String {
        self.ask("SELECT format('synchronous_commit=%s fsync=%s shared_buffers=%s', current_setting('synchronous_commit'), current_setting('fsync'), current_setting('shared_buffers'))").await
    }
}

/// The parts of a process, for a bench.
pub(crate) fn parts(server: &Server, lifecycle: &Lifecycle) -> quipu::app::Parts {
    let metrics = Metrics::new("bench");
    quipu::app::Parts::open(&server.embedded.urls(), Settings::default(), lifecycle.clone(), metrics)
        .expect("valid URLs")
}

/// A lifecycle that is never cancelled.
pub(crate) fn lifecycle() -> Lifecycle {
    Lifecycle::new(Duration::from_secs(10))
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which a fraction `share` of the values lies.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list, rounded down"
    )]
    let place = ((sorted.len() as f64) * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The verdict for the table.
pub(crate) fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "MISSED" }
}

/// Prints rows in columns; the first row is the heading.
pub(crate) fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, text) in row.iter().enumerate() {
            let _ = write!(line, "{text:<width$}  ", width = width(column));
        }
        println!("{}", line.trim_end());
        if number == 0 {
            println!("{}", (0..columns).map(|c| "-".repeat(width(c))).collect::<Vec<_>>().join("  "));
        }
    }
}
