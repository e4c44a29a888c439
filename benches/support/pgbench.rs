//! Runs pgbench with a log of every transaction, which gives percentiles.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use quipu::base::Secret;
use tokio::io::AsyncWriteExt as _;

/// One run of pgbench.
pub(crate) struct Pgbench<'a> {
    pub(crate) url: &'a Secret,
    /// The protocol: `prepared`, `extended` or `simple`.
    pub(crate) mode: &'a str,
    pub(crate) clients: usize,
    /// The statements of one transaction.
    pub(crate) script: &'a str,
    /// Duration; whole seconds.
    pub(crate) length: Duration,
}

impl Pgbench<'_> {
    /// Runs pgbench and returns the sorted latencies of all transactions.
    pub(crate) async fn run(&self) -> Vec<Duration> {
        let logs = tempfile::tempdir().expect("a temporary folder");
        let (clients, seconds) = (self.clients.to_string(), self.length.as_secs().to_string());
        let mut child = tokio::process::Command::new(binary())
            .args(["-n", "-M", self.mode, "-c", &clients, "-j", "2", "-T", &seconds, "-l", "-f", "-"])
            .arg(self.url.expose())
            .current_dir(logs.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbench is installed with PostgreSQL");
        let mut script = child.stdin.take().expect("piped");
        script.write_all(self.script.as_bytes()).await.expect("pgbench reads its script");
        drop(script);
        assert!(child.wait().await.expect("pgbench ends").success(), "pgbench failed");
        let mut latencies = Vec::new();
        for entry in std::fs::read_dir(logs.path()).expect("its folder") {
            let text = std::fs::read_to_string(entry.expect("its file").path()).expect("its log");
            // Columns: client, transaction, latency in µs, …
            let field =
                |line: &str| line.split(' ').nth(2).and_then(|us| us.parse().ok()).map(Duration::from_micros);
            latencies.extend(text.lines().filter_map(field));
        }
        latencies.sort_unstable();
        latencies
    }
}

fn binary() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/pgbench")))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| "pgbench".into())
}
