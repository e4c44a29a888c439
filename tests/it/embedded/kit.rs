//! Helpers of these tests: a folder that the servers' user can enter, free ports, connections, and limited
//! waiting.

use std::{
    fs::{self, Permissions},
    future::Future,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use backon::{ConstantBuilder, Retryable};
use quipu::{
    base::Secret,
    store::embedded::{Embedded, EmbeddedConfig},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_postgres::{Client, NoTls};

/// A short-lived folder that every user can enter.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("quipu-it-").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Two free ports.
pub(crate) fn free_ports() -> (u16, u16) {
    let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    let [one, two] = listeners.map(|listener| listener.local_addr().unwrap().port());
    (one, two)
}

/// A configuration on free ports. The data of tests need not be durable.
pub(crate) fn config(data: &Path) -> EmbeddedConfig {
    let (postgres_port, pgbouncer_port) = free_ports();
    EmbeddedConfig {
        data: data.to_path_buf(),
        postgres_port,
        pgbouncer_port,
        postgresql_conf: "shared_buffers = '16MB'\nmax_connections = 100\nfsync = off\n".to_owned(),
        database: "quipu".to_owned(),
    }
}

/// A connection; `tasks` drives it.
pub(crate) async fn connect(url: &Secret, tasks: &mut JoinSet<()>) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tasks.spawn(async move {
        // The client reports how its connection ended.
        let _ = connection.await;
    });
    client
}

/// Runs a query that returns one value, on its own connection, in one round trip.
pub(crate) async fn ask(url: &Secret, query: &str) -> Result<String, String> {
    let (client, connection) =
        tokio_postgres::connect(url.expose(), NoTls).await.map_err(|error| format!("{error:?}"))?;
    let work = async move {
        let row = client.query_typed(query, &[]).await.map_err(|error| format!("{error:?}"))?;
        Ok(row[0].get::<_, String>(0))
    };
    tokio::join!(work, connection).0
}

/// Sends one request; returns status, head and body of the response.
pub(crate) async fn http(address: &str, method: &str, path: &str, body: &Value) -> (u16, String, String) {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// Polls `look` until it succeeds, for at most a minute.
pub(crate) async fn eventually<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    look: impl FnMut() -> F,
) -> T {
    let looks = ConstantBuilder::default().with_delay(Duration::from_millis(20)).without_max_times();
    tokio::time::timeout(Duration::from_mins(1), look.retry(looks)).await.expect("within a minute").unwrap()
}

/// Every process that belongs to the servers on `data`.
pub(crate) fn processes_of(data: &Path, cluster_name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        let server = line.contains("postgres -D") || line.contains("pgbouncer");
        if line.contains(cluster_name) || (server && line.contains(data.to_str().unwrap())) {
            found.push(line);
        }
    }
    found
}

/// The name in the titles of the servers' processes.
pub(crate) async fn cluster_name(embedded: &Embedded) -> String {
    ask(&embedded.superuser_url(), "show cluster_name").await.unwrap()
}
