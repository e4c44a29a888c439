//! Runs BigBrotr 6.6.9 from its package on the same corpus: its synchronizer, a relay of the farm, and a
//! database of its own.
//!
//! BigBrotr refuses relays on the loopback, except behind a proxy. So the relay gets an onion name, and a
//! SOCKS proxy in this process maps every name to it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quipu::base::Secret;
use quipu::store::owner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use super::farm::{Character, Corpus, Farm, Plan};
use super::support::{Server, bigbrotr};

/// Timeout of the whole run.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Result of the run.
pub(crate) struct Theirs {
    /// Events stored per second, from the first connection to the end.
    pub(crate) per_second: f64,
    /// Events stored.
    pub(crate) stored: i64,
    /// Bytes transferred over the relay's socket.
    pub(crate) wire: u64,
}

/// The command, if `make bench-archive` has installed it.
fn command() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2)?;
    Some(target.join("bigbrotr/bin/bigbrotr")).filter(|command| command.exists())
}

/// `None` if BigBrotr is not installed.
pub(crate) async fn measure(plan: &Plan, corpus: &Corpus) -> Option<Theirs> {
    let Some(command) = command() else {
        println!("BigBrotr is not installed: its figure is left out");
        return None;
    };
    let plan = Plan { relays: 1, character: Character::honest, ..*plan };
    let farm = Farm::with(&plan, corpus).await.expect("free ports");
    let relay = Arc::clone(farm.relays().first()?);
    let (proxy, _proxying) = lead_to(relay.address()).await;

    let server = Server::start().await;
    server.run("CREATE DATABASE bigbrotr").await;
    let mut database = Url::parse(server.superuser().expose()).expect("our own URL");
    database.set_path("bigbrotr");
    let client = owner::connect(&Secret::new(database.as_str())).await.expect("the server answers");
    client.batch_execute(bigbrotr::EVENTS).await.expect("the schema is right");
    client.batch_execute(bigbrotr::SYNCHRONIZER).await.expect("the schema is right");
    let onion = format!("ws://{}.onion", "a".repeat(56));
    let known = format!("INSERT INTO relay VALUES ('{onion}', 'tor', 0)");
    client.batch_execute(&known).await.expect("the schema is right");

    let folder = tempfile::Builder::new().prefix("quipu-bench-").tempdir().expect("a temporary folder");
    let file = |name: &str| folder.path().join(name);
    let port = database.port().unwrap_or(5432);
    let pool = serde_json::json!({ "pool": { "database": {
        "host": "127.0.0.1", "port": port, "database": "bigbrotr", "user": database.username(), "password_env": "DB_ADMIN_PASSWORD",
    } } });
    let service = serde_json::json!({ "networks": { "tor": { "enabled": true, "proxy_url": format!("socks5://{proxy}") } } });
    // JSON is valid YAML.
    std::fs::write(file("brotr.yaml"), pool.to_string()).expect("our own folder");
    std::fs::write(file("synchronizer.yaml"), service.to_string()).expect("our own folder");
    let log = File::create(file("log")).expect("our own folder");
    let mut child = Command::new(command)
        .args(["synchronizer", "--once", "--brotr-config", "brotr.yaml", "--config", "synchronizer.yaml"])
        .env("DB_ADMIN_PASSWORD", database.password().unwrap_or_default())
        .env("NOSTR_PRIVATE_KEY", nostr_sdk::Keys::generate().secret_key().to_secret_hex())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("it is installed");
    let ended = timeout(TIMEOUT, child.wait()).await.expect("it ends").expect("our own child");
    let done = Instant::now();
    let said = std::fs::read_to_string(file("log")).unwrap_or_default();
    let count = "SELECT count(*) FROM event_relay";
    let stored: i64 = client.query_one(count, &[]).await.expect("the question is right").get(0);
    drop(client);
    server.embedded.stop().await;
    let Some(seen) = relay.counts().first_seen.get().filter(|_| ended.success() && stored > 0) else {
        println!("BigBrotr stored nothing:\n{said}");
        return None;
    };
    let took = done.duration_since(*seen).as_secs_f64();
    Some(Theirs { per_second: stored as f64 / took, stored, wire: relay.traffic() })
}

/// A SOCKS proxy without authentication that connects every client to `target`.
async fn lead_to(target: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(async move { drop(lead(client, target).await) });
        }
    });
    (address, tasks)
}

async fn lead(mut client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let [_, methods] = [client.read_u8().await?, client.read_u8().await?];
    client.read_exact(&mut vec![0; methods.into()]).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 5];
    client.read_exact(&mut request).await?;
    // The rest of the host name and the port; requests contain names only.
    client.read_exact(&mut vec![0; usize::from(request[4]) + 2]).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
